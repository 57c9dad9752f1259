//! Submitting and cancelling.

use super::subject::*;
use crate::db::{CancelAnswer, NewTask, Submitted};
use crate::task::{Event, Options, State, WaitCode};
use chrono::{TimeDelta, Utc};

pub async fn a_submitted_task_is_pending_and_in_the_outbox(s: &Subject) {
    let old = id();
    let task = NewTask { retry_of: Some(old), max_attempts: 5, ..new_task(id(), Options::default()) };
    assert_eq!(s.db.submit(std::slice::from_ref(&task)).await.unwrap(), [Submitted::Created]);
    let row = s.row(task.message.id).await;
    assert_eq!((row.state, row.attempt, row.max_attempts), (State::Pending, 0, 5));
    assert_eq!((row.retry_of, row.host, row.started_at), (Some(old), None, None));
    assert_eq!(s.waits(row.id).await, Some(WaitCode::NotPublished));
    assert_eq!(s.published().await, [row.id]);
    assert_eq!(s.history(row.id).await, [Event::Pending]);
    assert!(s.db.submit(&[]).await.unwrap().is_empty());
}

pub async fn a_submitted_task_ahead_of_its_time_is_scheduled(s: &Subject) {
    let later = Options { run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Options::default() };
    let past = Options { run_at: Some(at("2020-01-01T00:00:00Z")), ..Options::default() };
    let batch = [new_task(id(), later), new_task(id(), past)];
    assert_eq!(s.db.submit(&batch).await.unwrap(), [Submitted::Created; 2]);
    assert_eq!(s.waits(batch[0].message.id).await, Some(WaitCode::Scheduled));
    assert_eq!(s.published().await, [batch[1].message.id]);
    assert_eq!(s.history(batch[0].message.id).await, [Event::Scheduled]);
}

pub async fn a_repeated_submission_is_recognised_and_a_conflict_undoes_the_batch(s: &Subject) {
    let (one, other) = (new_task(id(), Options::default()), new_task(id(), Options::default()));
    s.db.submit(std::slice::from_ref(&one)).await.unwrap();
    let both = [other.clone(), one.clone()];
    assert_eq!(s.db.submit(&both).await.unwrap(), [Submitted::Created, Submitted::Exists]);
    assert_eq!(s.history(one.message.id).await, [Event::Pending]);
    let fresh = new_task(id(), Options::default());
    let conflict = new_task(one.message.id, Options { priority: Some(1), ..Options::default() });
    let answers = s.db.submit(&[fresh.clone(), conflict]).await.unwrap();
    assert_eq!(answers[1], Submitted::Conflict);
    assert!(s.db.task(fresh.message.id, Default::default()).await.unwrap().is_none());
    let mut published = s.published().await;
    published.sort();
    assert_eq!(published, [one.message.id, other.message.id]);
}

pub async fn duplicates_in_a_submitted_batch_are_one_task(s: &Subject) {
    let task = new_task(id(), Options::default());
    let answers = s.db.submit(&[task.clone(), task.clone()]).await.unwrap();
    assert_eq!(answers, [Submitted::Created, Submitted::Exists]);
    assert_eq!(s.history(task.message.id).await, [Event::Pending]);
    let (one, other) = (id(), Options { priority: Some(1), ..Options::default() });
    let answers = s.db.submit(&[new_task(one, Options::default()), new_task(one, other)]).await.unwrap();
    assert_eq!(answers[1], Submitted::Conflict);
    assert!(s.db.task(one, Default::default()).await.unwrap().is_none());
}

pub async fn a_waiting_task_is_cancelled_and_a_running_one_is_marked_for_its_owner(s: &Subject) {
    let me = record();
    s.db.register_host(&me, LONG).await.unwrap();
    assert_eq!(s.db.cancel(id()).await.unwrap(), CancelAnswer::Unknown);

    let waiting = new_task(id(), Options::default());
    s.db.submit(std::slice::from_ref(&waiting)).await.unwrap();
    assert_eq!(s.db.cancel(waiting.message.id).await.unwrap(), CancelAnswer::Cancelled);
    assert_eq!(s.db.cancel(waiting.message.id).await.unwrap(), CancelAnswer::Terminal(State::Cancelled));
    assert_eq!(s.history(waiting.message.id).await, [Event::Pending, Event::Cancelled]);
    assert_eq!(s.back_door.number("SELECT count(*) FROM outbox").await, 0);

    let running = arrival();
    s.run(me.id, &running).await;
    assert!(s.db.steering().news(me.id).await.unwrap().to_end.is_empty());
    assert_eq!(s.db.cancel(running.message.id).await.unwrap(), CancelAnswer::Requested(me.id));
    assert_eq!(s.db.steering().news(me.id).await.unwrap().to_end, [running.message.id]);
    assert!(s.db.steering().news(id()).await.unwrap().to_end.is_empty(), "another host runs none of them");
    assert_eq!(s.history(running.message.id).await, [Event::Running]);

    let done = arrival();
    s.end(me.id, &done, completed()).await;
    assert_eq!(s.db.cancel(done.message.id).await.unwrap(), CancelAnswer::Terminal(State::Completed));
}
