//! Looks for tasks that wait.

use super::subject::*;
use crate::db::{NewTask, OutboxReason, OutboxTake, WaitingLook};
use crate::task::{Options, TaskId, WaitCode};
use chrono::{TimeDelta, Utc};
use std::collections::BTreeMap;
use std::time::Duration;

fn submitted() -> NewTask {
    new_task(id(), Options::default())
}

async fn codes(s: &Subject) -> BTreeMap<TaskId, WaitCode> {
    let found = s.db.waiting(WaitingLook::default()).await.unwrap();
    let codes: BTreeMap<_, _> = found.tasks.iter().map(|task| (task.id, task.code)).collect();
    assert_eq!(codes.len(), found.tasks.len(), "each once");
    codes
}

pub async fn due_tasks_that_wait_are_found_with_what_they_wait_for(s: &Subject) {
    let host = s.host().await;
    let (fresh, unroutable, published) = (submitted(), submitted(), submitted());
    s.db.submit(&[unroutable.clone(), published.clone()]).await.unwrap();
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    s.db.defer_outbox(batch.token, &[unroutable.message.id], OutboxReason::Unroutable, LONG).await.unwrap();
    s.db.drop_outbox(batch.token, &[published.message.id]).await.unwrap();
    s.db.submit(std::slice::from_ref(&fresh)).await.unwrap();
    let park = |code| arrival_of(message(id(), "nowhere", "1", Options::default()), elsewhere(code));
    let (parked, full) = (park(WaitCode::NoPlugin), park(WaitCode::NoSlot));
    s.db.claim(steady(host), &[parked.clone(), full.clone()]).await.unwrap();
    let expected = BTreeMap::from([
        (fresh.message.id, WaitCode::NotPublished),
        (unroutable.message.id, WaitCode::Unroutable),
        (published.message.id, WaitCode::Queued),
        (parked.message.id, WaitCode::NoPlugin),
        (full.message.id, WaitCode::NoSlot),
    ]);
    assert_eq!(codes(s).await, expected);
    let found = s.db.waiting(WaitingLook::default()).await.unwrap();
    for task in &found.tasks {
        let row = s.row(task.id).await;
        assert_eq!((&row.queue, row.waiting_for.map(|waiting| waiting.since)), (&task.queue, Some(task.since)));
        assert!((found.now - task.since).abs() < TimeDelta::minutes(5));
    }
}

pub async fn tasks_that_wait_for_a_time_or_do_not_wait_are_not_found(s: &Subject) {
    let host = s.host().await;
    let later = Options { run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Options::default() };
    s.db.submit(&[new_task(id(), later)]).await.unwrap();
    s.end(host, &arrival(), retrying()).await;
    s.end(host, &arrival(), completed()).await;
    s.run(host, &arrival()).await;
    let cancelled = submitted();
    s.db.submit(std::slice::from_ref(&cancelled)).await.unwrap();
    s.db.cancel(cancelled.message.id).await.unwrap();
    assert!(codes(s).await.is_empty());
}

pub async fn the_outbox_is_counted_with_its_first_due_time(s: &Subject) {
    let none = s.db.waiting(WaitingLook::default()).await.unwrap();
    assert_eq!((none.outbox, none.outbox_due), (0, None));
    s.db.submit(&[submitted(), submitted()]).await.unwrap();
    let found = s.db.waiting(WaitingLook::default()).await.unwrap();
    assert_eq!(found.outbox, 2);
    assert!(found.outbox_due.unwrap() <= found.now);
    s.db.take_outbox(&OutboxTake::new(10, Duration::from_secs(600))).await.unwrap();
    let held = s.db.waiting(WaitingLook::default()).await.unwrap();
    assert!(held.outbox_due.unwrap() > held.now, "a relay holds them");
}

pub async fn parked_tasks_are_found_behind_a_backlog(s: &Subject) {
    let host = s.host().await;
    let old: Vec<_> = (0..4).map(|_| submitted()).collect();
    s.db.submit(&old).await.unwrap();
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    let ids: Vec<_> = old.iter().map(|task| task.message.id).collect();
    s.db.drop_outbox(batch.token, &ids).await.unwrap();
    let park = |plugin: &str| arrival_of(message(id(), plugin, "1", Options::default()), elsewhere(WaitCode::NoPlugin));
    let parked = [park("a"), park("b")];
    s.db.claim(steady(host), &parked).await.unwrap();
    let late = submitted();
    s.db.submit(std::slice::from_ref(&late)).await.unwrap();
    let look = WaitingLook { rows: 2, plugins: 10, of_plugin: 1, outbox: 10 };
    let found = s.db.waiting(look).await.unwrap();
    let found: Vec<TaskId> = found.tasks.iter().map(|task| task.id).collect();
    assert_eq!(found.len(), 5, "two of the oldest, one of each plugin, and the outbox");
    for id in [parked[0].message.id, parked[1].message.id, late.message.id] {
        assert!(found.contains(&id));
    }
    let one = s.db.waiting(WaitingLook { plugins: 1, ..look }).await.unwrap();
    assert_eq!(one.tasks.len(), 4);
}
