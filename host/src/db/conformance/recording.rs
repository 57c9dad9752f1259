//! First attempts that ran without a claim.

use super::subject::*;
use crate::db::{ClaimAnswer, Fields, RecordAnswer, Recording, SettleAnswer};
use crate::task::claim::Kept;
use crate::task::settle::Ended;
use crate::task::{Arrival, Decision, Event, HostId, State, TaskId};
use std::time::Duration;

/// How long the attempts here took.
const RAN: Duration = Duration::from_millis(40);

fn recording(arrival: &Arrival, ended: Ended) -> Recording {
    let claimed = crate::db::Claimed {
        fence: 1,
        standing: crate::task::settle::Standing {
            attempt: 1,
            max_attempts: 3,
            snoozes: 0,
            child_losses: 0,
            isolated: false,
        },
        at: at("2030-01-01T00:00:00Z"),
    };
    Recording { arrival: arrival.clone(), settlement: settlement(arrival, &claimed, ended), ran: RAN }
}

async fn record(s: &Subject, host: HostId, recording: &Recording) -> RecordAnswer {
    let mut answers = s.db.record(host, std::slice::from_ref(recording)).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// The same task, published by a relay.
fn relayed(arrival: &Arrival) -> Arrival {
    Arrival { relayed: Some(0), ..arrival.clone() }
}

/// A submitted task, and its arrival as the relay publishes it.
async fn submitted(s: &Subject, id: TaskId) -> Arrival {
    let task = new_task(id, Default::default());
    s.db.submit(std::slice::from_ref(&task)).await.unwrap();
    relayed(&arrival_of(task.message, here()))
}

async fn check(s: &Subject, host: HostId, arrival: &Arrival, ended: &Ended, born: &[Event]) {
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.state, row.attempt, row.host), (ended.state(), 1, Some(host)));
    assert_eq!((row.version.as_deref(), row.digest.as_deref()), (Some("0.1.0"), Some(DIGEST)));
    assert_eq!(row.input.as_deref(), Some(&*arrival.message.input));
    assert_eq!(row.failure.as_ref(), ended.failure());
    assert_eq!(row.finished_at.is_some(), ended.state().is_terminal());
    assert_eq!(row.output.is_some(), row.state == State::Completed);
    let started = row.started_at.unwrap();
    assert!(row.created_at <= started);
    let events = s.db.events(row.id, born.len() as i64, 10).await.unwrap().rows;
    assert_eq!(events.iter().map(|e| e.event).collect::<Vec<_>>(), [Event::Running, ended.event()]);
    assert_eq!(events[0].at, started);
    assert!(events[0].at <= events[1].at);
    for event in &events {
        assert_eq!((event.attempt, event.fence, event.host), (Some(1), Some(1), Some(host)));
        assert_eq!(event.digest.as_deref(), Some(DIGEST));
    }
    let attempts = s.db.attempts(row.id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].ended.as_str(), attempts[0].fence), (ended.event().as_str(), 1));
    assert_eq!((attempts[0].started_at, attempts[0].finished_at), (started, events[1].at));
    assert_eq!(attempts[0].failure.as_ref(), ended.failure());
    assert_eq!(attempts[0].usage.unwrap().wall_us, 12);
    assert_eq!(attempts[0].build.as_deref(), Some("0.1.0 (abc)"));
    if let Some(after) = ended.after() {
        assert_eq!(row.run_at, Some(events[1].at + chrono::TimeDelta::from_std(after).unwrap()));
    }
    assert_eq!(s.history(row.id).await[..born.len()], *born);
}

fn ends() -> [Ended; 4] {
    let hour = Duration::from_secs(3600);
    [
        completed(),
        failed(),
        Ended::Retrying { failure: trap(), after: hour },
        Ended::Snoozed { message: "too early".into(), after: hour },
    ]
}

pub async fn a_first_attempt_is_recorded_from_its_birth_to_its_end(s: &Subject) {
    let host = s.host().await;
    for ended in ends() {
        let arrival = arrival();
        let recording = recording(&arrival, ended.clone());
        assert_eq!(record(s, host, &recording).await, RecordAnswer::Recorded);
        check(s, host, &arrival, &ended, &[]).await;
        let row = s.row(arrival.message.id).await;
        let events = s.db.events(row.id, 0, 10).await.unwrap().rows;
        let ran = events[1].at - events[0].at;
        assert_eq!(ran, chrono::TimeDelta::from_std(RAN).unwrap(), "it began when it began, not when it was recorded");
        assert!(s.published().await.is_empty());
    }
}

pub async fn a_submitted_task_is_recorded_in_its_row(s: &Subject) {
    let host = s.host().await;
    for ended in ends() {
        let arrival = submitted(s, id()).await;
        let recording = recording(&arrival, ended.clone());
        assert_eq!(record(s, host, &recording).await, RecordAnswer::Recorded);
        check(s, host, &arrival, &ended, &[Event::Pending]).await;
    }
}

pub async fn a_recorded_attempt_is_followed_by_the_next(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    assert_eq!(record(s, host, &recording(&arrival, retrying())).await, RecordAnswer::Recorded);
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.fence, claimed.standing.attempt), (2, 2));
    let answer = s.settle(host, &settlement(&arrival, &claimed, completed())).await;
    assert_eq!(answer, SettleAnswer::Settled);
    let history = s.history(arrival.message.id).await;
    assert_eq!(history, [Event::Running, Event::Retrying, Event::Running, Event::Completed]);
}

pub async fn an_attempt_is_recorded_once(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let recording = recording(&arrival, completed());
    assert_eq!(record(s, host, &recording).await, RecordAnswer::Recorded);
    assert_eq!(record(s, host, &recording).await, RecordAnswer::Exists, "its answer was lost");
    assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Done(Decision::Keep(Kept::Terminal)));
    assert_eq!(s.history(arrival.message.id).await, [Event::Running, Event::Completed]);
    assert_eq!(s.db.attempts(arrival.message.id).await.unwrap().len(), 1);
}

pub async fn nothing_is_recorded_over_a_row_that_does_not_await_its_first_attempt(s: &Subject) {
    let (host, other) = (s.host().await, s.host().await);
    // Running elsewhere.
    let running = arrival();
    let claimed = s.run(other, &running).await;
    // It ran before, and is to run again.
    let retried = arrival();
    s.end(other, &retried, retrying()).await;
    // Called off while it waited.
    let cancelled = submitted(s, id()).await;
    s.db.cancel(cancelled.message.id).await.unwrap();
    // Parked: it has never run, and waits for another reason.
    let parked = arrival();
    s.claim(other, &again(&parked, elsewhere(crate::task::WaitCode::NoPlugin))).await;
    // Another message.
    let taken = submitted(s, id()).await;
    let conflict =
        relayed(&conflicting(&arrival_of(message(taken.message.id, "word-count", "3", Default::default()), here())));
    for arrival in [&running, &retried, &cancelled, &parked, &conflict] {
        for arrival in [Arrival { relayed: None, ..arrival.clone() }, relayed(arrival)] {
            let before = s.row(arrival.message.id).await;
            assert_eq!(record(s, host, &recording(&arrival, completed())).await, RecordAnswer::Exists);
            assert_eq!(s.row(arrival.message.id).await.state, before.state);
            s.history(arrival.message.id).await;
        }
    }
    let answer = s.settle(other, &settlement(&running, &claimed, completed())).await;
    assert_eq!(answer, SettleAnswer::Settled, "the owner's claim holds");
}

pub async fn a_batch_of_records_is_answered_in_its_order(s: &Subject) {
    let host = s.host().await;
    let known = submitted(s, id()).await;
    let exists = arrival();
    s.end(host, &exists, completed()).await;
    let gone = relayed(&arrival());
    let mut logged = recording(&arrival(), completed());
    logged.settlement.logs = vec![line(1, "a", "first"), line(2, "b", "nul \0")];
    let mut known_logged = recording(&known, failed());
    known_logged.settlement.logs = vec![line(1, "a", "only")];
    let batch = [
        recording(&exists, completed()),
        logged.clone(),
        known_logged,
        recording(&gone, completed()),
        recording(&arrival(), completed()),
    ];
    let answers = s.db.record(host, &batch).await.unwrap();
    assert_eq!(answers[..3], [RecordAnswer::Exists, RecordAnswer::Recorded, RecordAnswer::Recorded]);
    // Its row was pruned: whether it is recorded all the same is the database's own affair, and the claim finds out.
    let pruned = s.db.task(gone.message.id, Fields::ALL).await.unwrap().is_some();
    assert_eq!(answers[3] == RecordAnswer::Recorded, pruned);
    assert_eq!(answers[4], RecordAnswer::Recorded);
    let logs = s.db.logs(logged.settlement.id, 0, 10).await.unwrap().rows;
    assert_eq!(logs.iter().map(|l| (l.seq, l.attempt)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    assert_eq!(logs[0].message, "first");
    assert_eq!(s.db.logs(known.message.id, 0, 10).await.unwrap().rows.len(), 1);
}

pub async fn a_record_that_the_database_rejects_fails_alone(s: &Subject) {
    let host = s.host().await;
    let mut batch: Vec<Recording> = (0..5).map(|_| recording(&arrival(), completed())).collect();
    batch[2].settlement.ended = Ended::Completed { output: "\"\0\"".into() };
    let answers = s.db.record(host, &batch).await.unwrap();
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(matches!(answer, RecordAnswer::Refused(_)), index == 2, "{answer:?}");
    }
}

pub async fn of_a_record_and_a_claim_of_one_task_one_wins(s: &Subject) {
    let (host, other) = (s.host().await, s.host().await);
    for _ in 0..10 {
        let arrival = arrival();
        let (recording, arrivals) = (recording(&arrival, completed()), [arrival.clone()]);
        let (recorded, claimed) =
            tokio::join!(s.db.record(host, std::slice::from_ref(&recording)), s.db.claim(steady(other), &arrivals));
        match (&recorded.unwrap()[0], &claimed.unwrap()[0]) {
            (RecordAnswer::Recorded, ClaimAnswer::Done(Decision::Keep(Kept::Terminal))) => {}
            (RecordAnswer::Exists, ClaimAnswer::Run(_)) => {}
            both => panic!("{both:?}"),
        }
        s.history(arrival.message.id).await;
    }
}
