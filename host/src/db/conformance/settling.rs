//! How attempts end.

use super::subject::*;
use crate::db::{ClaimAnswer, SettleAnswer};
use crate::task::claim::Kept;
use crate::task::settle::Ended;
use crate::task::{Decision, Event, FailureKind, Settlement, State, WaitCode};
use std::time::Duration;

pub async fn each_end_of_an_attempt_is_recorded_with_its_event_and_attempt(s: &Subject) {
    let host = s.host().await;
    let hour = Duration::from_secs(3600);
    let ends = [
        completed(),
        failed(),
        Ended::Retrying { failure: trap(), after: hour },
        Ended::Snoozed { message: "too early".into(), after: hour },
        Ended::Interrupted { reason: "the host shut down".into() },
        Ended::Cancelled,
    ];
    for ended in ends {
        let arrival = arrival();
        let claimed = s.run(host, &arrival).await;
        assert_eq!(s.settle(host, &settlement(&arrival, &claimed, ended.clone())).await, SettleAnswer::Settled);
        let row = s.row(arrival.message.id).await;
        assert_eq!(row.state, ended.state());
        assert_eq!(row.failure.as_ref(), ended.failure());
        assert_eq!(row.finished_at.is_some(), ended.state().is_terminal());
        assert_eq!(row.output.is_some(), row.state == State::Completed);
        assert_eq!((row.started_at, row.host), (Some(claimed.at), Some(host)));
        let events = s.db.events(row.id, 1, 10).await.unwrap().rows;
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].event, events[0].attempt, events[0].fence), (ended.event(), Some(1), Some(1)));
        assert_eq!(events[0].host, Some(host));
        let attempts = s.db.attempts(row.id).await.unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!((attempts[0].ended.as_str(), attempts[0].fence), (ended.event().as_str(), 1));
        assert_eq!((attempts[0].host, attempts[0].attempt), (host, 1));
        assert_eq!((attempts[0].started_at, attempts[0].finished_at), (claimed.at, events[0].at));
        assert_eq!(attempts[0].failure.as_ref(), ended.failure());
        assert_eq!(attempts[0].usage.unwrap().wall_us, 12);
        assert_eq!(attempts[0].build.as_deref(), Some("0.1.0 (abc)"));
        if let Some(after) = ended.after() {
            let due = events[0].at + chrono::TimeDelta::from_std(after).unwrap();
            let waiting = row.waiting_for.clone().unwrap();
            assert_eq!((row.run_at, waiting.until), (Some(due), Some(due)));
            assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Done(Decision::Keep(Kept::NotDue)));
        }
        let code = row.waiting_for.map(|w| w.code);
        assert_eq!(
            code,
            match ended {
                Ended::Retrying { .. } => Some(WaitCode::Backoff),
                Ended::Snoozed { .. } => Some(WaitCode::Snoozed),
                Ended::Interrupted { .. } => Some(WaitCode::NotPublished),
                _ => None,
            }
        );
        let published = s.published().await;
        assert_eq!(published.contains(&row.id), matches!(ended, Ended::Interrupted { .. }));
        s.history(row.id).await;
    }
}

pub async fn a_retried_task_keeps_its_failure_until_it_completes(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    s.end(host, &arrival, retrying()).await;
    assert_eq!(s.row(arrival.message.id).await.failure, Some(trap()));
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.fence, claimed.standing.attempt), (2, 2));
    assert_eq!(s.row(arrival.message.id).await.failure, Some(trap()));
    s.settle(host, &settlement(&arrival, &claimed, completed())).await;
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.state, row.failure, row.attempt), (State::Completed, None, 2));
    let attempts = s.db.attempts(row.id).await.unwrap();
    assert_eq!(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>(), [1, 2]);
    let history = s.history(row.id).await;
    assert_eq!(history, [Event::Running, Event::Retrying, Event::Running, Event::Completed]);
}

pub async fn a_snooze_and_an_interruption_burn_no_attempt(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    s.end(host, &arrival, Ended::Snoozed { message: "early".into(), after: Duration::ZERO }).await;
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.fence, claimed.standing.attempt, claimed.standing.snoozes), (2, 1, 1));
    s.settle(host, &settlement(&arrival, &claimed, Ended::Interrupted { reason: "stop".into() })).await;
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.fence, claimed.standing.attempt, claimed.standing.snoozes), (3, 1, 1));
    s.settle(host, &settlement(&arrival, &claimed, failed())).await;
    let history = s.history(arrival.message.id).await;
    assert_eq!(history[..4], [Event::Running, Event::Snoozed, Event::Running, Event::Interrupted]);
    assert_eq!(history[4..], [Event::Running, Event::Failed]);
    let fences: Vec<_> = s.db.attempts(arrival.message.id).await.unwrap().iter().map(|a| a.fence).collect();
    assert_eq!(fences, [1, 2, 3]);
}

pub async fn a_settlement_is_recorded_once(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let mut once = settlement(&arrival, &claimed, completed());
    once.logs = vec![line(1, "", "said once")];
    let batch = [once.clone(), once.clone()];
    assert_eq!(s.db.settle(host, &batch).await.unwrap(), [const { SettleAnswer::Settled }; 2]);
    assert_eq!(s.settle(host, &once).await, SettleAnswer::Settled);
    assert_eq!(s.history(arrival.message.id).await, [Event::Running, Event::Completed]);
    assert_eq!(s.db.attempts(arrival.message.id).await.unwrap().len(), 1);
    assert_eq!(s.db.logs(arrival.message.id, 0, 10).await.unwrap().rows.len(), 1);
    assert!(s.db.settle(host, &[]).await.unwrap().is_empty());
}

pub async fn a_settlement_under_another_claim_is_fenced(s: &Subject) {
    let (host, stranger) = (s.host().await, s.host().await);
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let mine = settlement(&arrival, &claimed, completed());
    let later = Settlement { fence: 2, ..mine.clone() };
    let unknown = Settlement { id: id(), ..mine.clone() };
    assert_eq!(s.settle(stranger, &mine).await, SettleAnswer::Fenced);
    let answers = s.db.settle(host, &[later, unknown, mine.clone()]).await.unwrap();
    assert_eq!(answers, [SettleAnswer::Fenced, SettleAnswer::Fenced, SettleAnswer::Settled]);
    assert_eq!(s.settle(stranger, &mine).await, SettleAnswer::Fenced);
    assert_eq!(s.db.attempts(arrival.message.id).await.unwrap().len(), 1);
}

pub async fn an_earlier_settlement_is_recognised_after_another_claim(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    let first = s.run(one, &arrival).await;
    let interrupted = settlement(&arrival, &first, Ended::Interrupted { reason: "stop".into() });
    assert_eq!(s.settle(one, &interrupted).await, SettleAnswer::Settled);
    let second = s.run(other, &arrival).await;
    assert_eq!(s.settle(one, &interrupted).await, SettleAnswer::Settled);
    assert_eq!(s.row(arrival.message.id).await.state, State::Running);
    assert_eq!(s.settle(other, &settlement(&arrival, &second, completed())).await, SettleAnswer::Settled);
    assert_eq!(s.settle(one, &interrupted).await, SettleAnswer::Settled);
    assert_eq!(s.row(arrival.message.id).await.state, State::Completed);
}

pub async fn an_outcome_that_the_database_refuses_becomes_a_failure_and_its_neighbours_are_settled(s: &Subject) {
    let host = s.host().await;
    s.back_door.refuse("unwanted").await;
    let mut batch = Vec::new();
    for n in 0..8 {
        let arrival = arrival();
        let claimed = s.run(host, &arrival).await;
        let mut settlement = settlement(&arrival, &claimed, completed());
        match n {
            2 => settlement.ended = Ended::Completed { output: "\"\0\"".into() },
            5 => settlement.logs = vec![line(1, "unwanted", "x")],
            _ => {}
        }
        batch.push(settlement);
    }
    let answers = s.db.settle(host, &batch).await.unwrap();
    for (n, (settlement, answer)) in batch.iter().zip(answers).enumerate() {
        let row = s.row(settlement.id).await;
        if n == 2 || n == 5 {
            assert_eq!((answer, row.state), (SettleAnswer::Refused, State::Failed));
            assert_eq!(row.failure.unwrap().kind, FailureKind::Internal);
        } else {
            assert_eq!((answer, row.state), (SettleAnswer::Settled, State::Completed));
        }
        assert_eq!(s.history(settlement.id).await.len(), 2);
    }
    // Under an old fence it is fenced, whatever it holds.
    let mut stale = batch[2].clone();
    stale.fence = 9;
    assert_eq!(s.settle(host, &stale).await, SettleAnswer::Fenced);
}

pub async fn logs_go_on_over_all_attempts_and_are_made_storable(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    for (ended, logs) in [
        (retrying(), vec![line(1, "a\0b", "one"), line(2, "", "nul \0 here")]),
        (retrying(), vec![]),
        (completed(), vec![line(1, "", "three")]),
    ] {
        let claimed = s.run(host, &arrival).await;
        let settlement = Settlement { logs, ..settlement(&arrival, &claimed, ended) };
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled);
    }
    let logs = s.db.logs(arrival.message.id, 0, 10).await.unwrap().rows;
    let told: Vec<_> = logs.iter().map(|l| (l.seq, l.attempt, l.logger.as_str(), l.message.as_str())).collect();
    assert_eq!(told, [(1, 1, "a\u{FFFD}b", "one"), (2, 1, "", "nul \u{FFFD} here"), (3, 3, "", "three")]);
    assert_eq!((logs[0].at, logs[0].stream.as_str(), logs[0].level.as_str()), (line(1, "", "").at, "log", "info"));
}

pub async fn a_large_batch_is_settled_in_one_call(s: &Subject) {
    let host = s.host().await;
    let arrivals: Vec<_> = (0..300).map(|_| arrival()).collect();
    let claimed = s.db.claim(steady(host), &arrivals).await.unwrap();
    let mut batch: Vec<_> = arrivals
        .iter()
        .zip(&claimed)
        .enumerate()
        .map(|(n, (arrival, answer))| {
            let ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
            let ended = match n % 3 {
                0 => completed(),
                1 => failed(),
                _ => Ended::Interrupted { reason: "stop".into() },
            };
            Settlement { logs: vec![line(1, "", "x"), line(2, "", "y")], ..settlement(arrival, claimed, ended) }
        })
        .collect();
    batch.reverse();
    let answers = s.db.settle(host, &batch).await.unwrap();
    assert_eq!(answers, vec![SettleAnswer::Settled; 300]);
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_events").await, 600);
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_attempts").await, 300);
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_logs").await, 600);
    assert_eq!(s.back_door.number("SELECT count(*) FROM outbox").await, 100);
    for settlement in [&batch[0], &batch[150], &batch[299]] {
        s.history(settlement.id).await;
    }
}

pub async fn an_attempt_that_cannot_be_recorded_at_all_stops_no_other(s: &Subject) {
    let host = s.host().await;
    let mut batch = Vec::new();
    for _ in 0..5 {
        let arrival = arrival();
        let claimed = s.run(host, &arrival).await;
        batch.push(settlement(&arrival, &claimed, completed()));
    }
    // The next line of its history is there already.
    s.set(&format!(
        "INSERT INTO task_events (task_id, seq, at, event) SELECT task_id, seq + 1, at, event FROM task_events
            WHERE task_id = '{}'",
        batch[2].id
    ))
    .await;
    let answers = s.db.settle(host, &batch).await.unwrap();
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            SettleAnswer::Settled => assert_ne!(n, 2),
            SettleAnswer::Unwritten(reason) => assert!(n == 2 && !reason.is_empty(), "{n}: {reason}"),
            other => panic!("{n}: {other:?}"),
        }
    }
}
