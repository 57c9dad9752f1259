//! What calls sent and were answered, where it is recorded.

use super::subject::*;
use crate::db::{CallCursor, CallRow, SettleAnswer};
use crate::task::settle::{Body, Call, Ended};
use crate::task::{Settlement, TaskId};

/// Whatever a body may hold: no text of any database.
const ANY: &[u8] = b"a\0\xff\xc3(\x1b";

fn body(bytes: &[u8], size: u64) -> Option<Body> {
    Some(Body { bytes: bytes.to_vec(), size })
}

async fn read(s: &Subject, id: TaskId, bodies: bool) -> Vec<CallRow> {
    s.db.calls(id, CallCursor::default(), 2_000, bodies).await.unwrap().rows
}

async fn kept(s: &Subject) -> i64 {
    s.back_door.number("SELECT count(*) FROM task_call_bodies").await
}

pub async fn bodies_are_kept_with_their_calls_and_read_only_if_asked_for(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let calls = vec![
        call(1, "none"),
        Call { request_body: body(ANY, 6), response_body: body(b"{", u64::MAX), ..call(2, "both") },
        Call { response_body: body(b"", 9), ..call(3, "one, and no room for it") },
    ];
    for ended in [retrying(), completed()] {
        let claimed = s.run(host, &arrival).await;
        let settlement = Settlement { calls: calls.clone(), ..settlement(&arrival, &claimed, ended) };
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled);
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled, "the same again");
    }
    assert_eq!(kept(s).await, 4, "two of each attempt");
    let id = arrival.message.id;
    let rows = read(s, id, true).await;
    assert_eq!(
        rows.iter().map(|row| (row.fence, row.seq)).collect::<Vec<_>>(),
        [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    );
    for rows in rows.chunks(3) {
        let sizes: Vec<_> = rows.iter().map(|row| (row.request_body_bytes, row.response_body_bytes)).collect();
        assert_eq!(sizes, [(None, None), (Some(6), Some(i64::MAX)), (None, Some(9))]);
        let bytes: Vec<_> =
            rows.iter().map(|row| (row.request_body.as_deref(), row.response_body.as_deref())).collect();
        assert_eq!(bytes, [(None, None), (Some(ANY), Some(&b"{"[..])), (None, Some(&b""[..]))]);
    }
    let unasked = |row: CallRow| CallRow { request_body: None, response_body: None, ..row };
    assert_eq!(read(s, id, false).await, rows.into_iter().map(unasked).collect::<Vec<_>>());
    let page = s.db.calls(id, CallCursor { fence: 1, seq: 1 }, 1, true).await.unwrap().rows;
    assert_eq!(page.iter().map(|row| row.request_body.as_deref()).collect::<Vec<_>>(), [Some(ANY)]);
}

pub async fn bodies_go_with_a_settlement_that_is_fenced_or_refused_and_no_other(s: &Subject) {
    let host = s.host().await;
    let arrivals = [arrival(), arrival(), arrival()];
    let mut batch = Vec::new();
    for arrival in &arrivals {
        let claimed = s.run(host, arrival).await;
        let calls = vec![Call { request_body: body(ANY, 6), ..call(1, "x") }];
        batch.push(Settlement { calls, ..settlement(arrival, &claimed, completed()) });
    }
    batch[0].fence += 1;
    batch[1].ended = Ended::Completed { output: "\"\0\"".into() };
    let answers = [SettleAnswer::Fenced, SettleAnswer::Refused, SettleAnswer::Settled];
    assert_eq!(s.db.settle(host, &batch).await.unwrap(), answers);
    assert_eq!(kept(s).await, 1);
    assert_eq!(read(s, arrivals[2].message.id, true).await[0].request_body.as_deref(), Some(ANY));
}

pub async fn bodies_are_erased_with_their_task_and_forgotten_with_it(s: &Subject) {
    let host = s.host().await;
    let (erased, other) = (arrival(), arrival());
    for arrival in [&erased, &other] {
        let claimed = s.run(host, arrival).await;
        let calls = vec![Call { request_body: body(b"hunter2", 7), response_body: body(ANY, 6), ..call(1, "x") }];
        s.settle(host, &Settlement { calls, ..settlement(arrival, &claimed, completed()) }).await;
    }
    s.db.erase(erased.message.id).await.unwrap();
    let row = read(s, erased.message.id, true).await.remove(0);
    assert_eq!((row.request_body, row.response_body), (None, None));
    assert_eq!((row.request_body_bytes, row.response_body_bytes, row.request_bytes), (None, None, 10));
    assert_eq!(read(s, other.message.id, true).await[0].request_body.as_deref(), Some(&b"hunter2"[..]));
    assert_eq!(kept(s).await, 1);
    let keep = crate::db::Retention {
        completed: Default::default(),
        failed: Default::default(),
        dead: Default::default(),
        audit: Default::default(),
    };
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 2);
    assert_eq!(kept(s).await, 0);
}

pub async fn a_batch_of_large_bodies_is_settled_in_one_call(s: &Subject) {
    let host = s.host().await;
    let large: Vec<u8> = (0..256u32 << 10).map(|n| (n % 251) as u8).collect();
    let mut batch = Vec::new();
    for _ in 0..8 {
        let arrival = arrival();
        let claimed = s.run(host, &arrival).await;
        let of =
            |seq| Call { request_body: body(&large, 1 << 20), response_body: body(&large, 1 << 20), ..call(seq, "x") };
        let calls = (1..=4).map(of).collect();
        batch.push(Settlement { calls, ..settlement(&arrival, &claimed, completed()) });
    }
    assert_eq!(s.db.settle(host, &batch).await.unwrap(), [const { SettleAnswer::Settled }; 8]);
    let rows = read(s, batch[7].id, true).await;
    assert!(rows.len() == 4 && rows.iter().all(|row| row.response_body.as_deref() == Some(&large)));
}
