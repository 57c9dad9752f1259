//! What attempts called.

use super::subject::*;
use crate::db::{CallCursor, CallRow, ClaimAnswer, SettleAnswer};
use crate::task::settle::{Call, Ended};
use crate::task::{Settlement, State, TaskId};
use serde_json::{Value, json};

async fn all(s: &Subject, id: TaskId) -> Vec<CallRow> {
    s.db.calls(id, CallCursor::default(), 2_000, true).await.unwrap().rows
}

pub async fn calls_are_stored_with_their_attempts_settlement(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let whole = Call { duration_us: u64::MAX, detail: Value::Null, ..call(2, "b") };
    for (ended, calls) in
        [(retrying(), vec![call(1, "a"), call(2, "b")]), (retrying(), vec![]), (completed(), vec![whole])]
    {
        let claimed = s.run(host, &arrival).await;
        let settlement = Settlement { calls, ..settlement(&arrival, &claimed, ended) };
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled);
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled, "the same again");
    }
    let rows = all(s, arrival.message.id).await;
    let first = CallRow {
        fence: 1,
        seq: 1,
        at: call(1, "").at,
        attempt: 1,
        capability: "llm".into(),
        operation: "chat".into(),
        target: "a".into(),
        duration_us: 1_000,
        request_bytes: 10,
        response_bytes: 20,
        result: "ok".into(),
        detail: json!({"input_tokens": 7}),
        request_body_bytes: None,
        response_body_bytes: None,
        request_body: None,
        response_body: None,
    };
    assert_eq!(rows[0], first);
    let told: Vec<_> = rows.iter().map(|row| (row.fence, row.seq, row.attempt, row.target.as_str())).collect();
    assert_eq!(told, [(1, 1, 1, "a"), (1, 2, 1, "b"), (3, 1, 3, "b")]);
    assert_eq!((rows[2].duration_us, &rows[2].detail), (i64::MAX, &Value::Null));
    let attempts = s.db.attempts(arrival.message.id).await.unwrap();
    assert_eq!(attempts.iter().map(|a| a.called_us).collect::<Vec<_>>(), [Some(3_000), None, Some(i64::MAX)]);
}

pub async fn calls_are_made_storable_and_go_with_an_outcome_that_is_not(s: &Subject) {
    let host = s.host().await;
    let (good, bad) = (arrival(), arrival());
    let mut batch = Vec::new();
    for arrival in [&good, &bad] {
        let claimed = s.run(host, arrival).await;
        let nul = Call { operation: "o\0".into(), detail: json!({"a\0": "\0"}), ..call(1, "http://\0/") };
        batch.push(Settlement { calls: vec![nul], ..settlement(arrival, &claimed, completed()) });
    }
    batch[1].ended = Ended::Completed { output: "\"\0\"".into() };
    assert_eq!(s.db.settle(host, &batch).await.unwrap(), [SettleAnswer::Settled, SettleAnswer::Refused]);
    let rows = all(s, good.message.id).await;
    assert_eq!((rows[0].operation.as_str(), rows[0].target.as_str()), ("o\u{FFFD}", "http://\u{FFFD}/"));
    assert_eq!(rows[0].detail, json!({"a\u{FFFD}": "\u{FFFD}"}));
    assert_eq!(s.row(bad.message.id).await.state, State::Failed);
    assert!(all(s, bad.message.id).await.is_empty());
}

pub async fn a_fenced_settlement_leaves_no_calls(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let calls = vec![call(1, "a")];
    let stale = Settlement { fence: 2, calls, ..settlement(&arrival, &claimed, completed()) };
    assert_eq!(s.settle(host, &stale).await, SettleAnswer::Fenced);
    assert!(all(s, arrival.message.id).await.is_empty());
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_calls").await, 0);
}

pub async fn calls_are_read_from_where_the_reader_was(s: &Subject) {
    let host = s.host().await;
    let arrivals = [arrival(), arrival()];
    let answers = s.db.claim(steady(host), &arrivals).await.unwrap();
    let thousand: Vec<Call> = (1..=1_000).map(|n| call(n, "x")).collect();
    let batch: Vec<_> = arrivals
        .iter()
        .zip(&answers)
        .map(|(arrival, answer)| {
            let ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
            Settlement { calls: thousand.clone(), ..settlement(arrival, claimed, retrying()) }
        })
        .collect();
    assert_eq!(s.db.settle(host, &batch).await.unwrap(), [const { SettleAnswer::Settled }; 2]);
    let claimed = s.run(host, &arrivals[0]).await;
    let last = Settlement { calls: vec![call(1, "y")], ..settlement(&arrivals[0], &claimed, completed()) };
    s.settle(host, &last).await;
    let (mut read, mut after) = (Vec::new(), CallCursor::default());
    loop {
        let page = s.db.calls(arrivals[0].message.id, after, 300, false).await.unwrap().rows;
        assert!(page.len() <= 300);
        let Some(last) = page.last() else { break };
        after = CallCursor::from(last);
        assert_eq!(CallCursor::parse(&after.to_string()), Some(after));
        read.extend(page.iter().map(|row| (row.fence, row.seq)));
    }
    let expected: Vec<_> = (1..=1_000).map(|n| (1, n)).chain([(2, 1)]).collect();
    assert_eq!(read, expected);
    assert_eq!(all(s, arrivals[1].message.id).await.len(), 1_000);
    for bad in ["", "1", "1.", "-1.2", "1.x", "1.2.3"] {
        assert_eq!(CallCursor::parse(bad), None, "{bad:?}");
    }
}

pub async fn an_erased_task_keeps_the_counts_of_its_calls_and_none_of_their_words(s: &Subject) {
    let host = s.host().await;
    let (erased, other) = (arrival(), arrival());
    for arrival in [&erased, &other] {
        let claimed = s.run(host, arrival).await;
        let calls = vec![Call { detail: json!({"model": "hunter2"}), ..call(1, "https://hunter2/") }];
        s.settle(host, &Settlement { calls, ..settlement(arrival, &claimed, completed()) }).await;
    }
    s.db.erase(erased.message.id).await.unwrap();
    let rows = all(s, erased.message.id).await;
    assert_eq!((rows[0].target.as_str(), &rows[0].detail), ("erased", &Value::Null));
    assert_eq!((rows[0].duration_us, rows[0].request_bytes, rows[0].result.as_str()), (1_000, 10, "ok"));
    assert_eq!(all(s, other.message.id).await[0].target, "https://hunter2/");
}
