//! The duty over a database in memory and a broker that refuses queues.

use super::super::relay::tests::World;
use super::super::{MaintenanceConfig, start};
use super::*;
use crate::db::{Db, DeadLetter, Retention};
use std::collections::HashSet;
use tokio::task::JoinHandle;
use tokio::time::sleep;

async fn record(w: &World, queue: &str, count: usize) {
    let letter = |_| DeadLetter {
        reason: "not_json".into(),
        detail: "line 1".into(),
        queue: queue.into(),
        task_id: None,
        plugin: None,
        body: b"{"[..].into(),
        properties: serde_json::json!({"message_id": uuid::Uuid::now_v7()}),
        redelivered: false,
    };
    w.db.record_dead(&(0..count).map(letter).collect::<Vec<_>>()).await.unwrap();
    w.parts.letters.send_replace(());
}

fn begin(w: &World, queue: &str) -> (CancellationToken, JoinHandle<()>) {
    let closing = CancellationToken::new();
    (closing.clone(), tokio::spawn(run(w.parts.clone(), queue.into(), closing, CancellationToken::new())))
}

fn unpublished(w: &World) -> usize {
    w.db.look().dead.values().filter(|row| row.publish_at.is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn letters_of_a_queue_that_refuses_wait_and_none_is_lost() {
    let w = World::new();
    w.refuse("full");
    record(&w, "full", 2_000).await;
    let duties = [begin(&w, "full"), begin(&w, "free")];
    sleep(Duration::from_secs(60)).await;
    assert!(w.attempts() < 2_000, "{} letters were published in vain", w.attempts());
    let why = w.parts.unpublished_letters.borrow().clone();
    assert!(why.len() == 1 && why["full"].contains("dead letters of queue full"), "{why:?}");
    record(&w, "free", 100).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((w.accepted(), unpublished(&w)), (100, 2_000));
    w.broker.refused.lock().unwrap().clear();
    sleep(Duration::from_secs(10)).await;
    assert_eq!((w.accepted(), unpublished(&w)), (2_100, 0));
    sleep(Duration::from_secs(10)).await;
    assert!(w.parts.unpublished_letters.borrow().is_empty());
    for (closing, duty) in duties {
        closing.cancel();
        duty.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn letters_are_held_for_as_long_as_the_broker_takes_to_confirm() {
    let w = World::new();
    *w.broker.takes.lock().unwrap() = Duration::from_secs(29);
    record(&w, "q", 10).await;
    let duties = [begin(&w, "q"), begin(&w, "q")];
    sleep(Duration::from_secs(60)).await;
    let accepted = w.broker.accepted.lock().unwrap().clone();
    assert_eq!((accepted.len(), accepted.iter().collect::<HashSet<_>>().len()), (10, 10));
    duties.into_iter().for_each(|(_, duty)| duty.abort());
}

#[tokio::test(start_paused = true)]
async fn letters_that_were_recorded_last_are_published_at_the_end() {
    let w = World::new();
    let (closing, duty) = begin(&w, "q");
    sleep(Duration::from_secs(1)).await;
    record(&w, "q", 1_200).await;
    closing.cancel();
    duty.await.unwrap();
    assert_eq!((w.accepted(), unpublished(&w)), (1_200, 0));
    record(&w, "q", 10).await;
    w.refuse("q");
    let (closing, duty) = begin(&w, "q");
    closing.cancel();
    duty.await.unwrap();
    assert_eq!(unpublished(&w), 10, "a queue that refuses does not keep the host from ending");
}

#[tokio::test(start_paused = true)]
async fn backlog_does_not_use_up_the_end_of_a_shutdown() {
    let w = World::new();
    *w.broker.takes.lock().unwrap() = Duration::from_millis(100);
    record(&w, "q", 20_000).await;
    let parts = Parts { queues: vec!["q".into()], ..w.parts.clone() };
    let day = Duration::from_secs(86_400);
    let config = MaintenanceConfig {
        lease: Duration::from_secs(30),
        unknown_grace: day,
        retention: Retention { completed: day, failed: day, dead: day, audit: day },
        pending: None,
    };
    let closing = CancellationToken::new();
    let duties = start(&parts, config, &closing);
    closing.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(2), duties.end(Duration::from_secs(1))).await;
    assert_eq!(ended, Ok(false), "it ends in its time, and what is left is known");
    let left = unpublished(&w);
    assert!((1..20_000).contains(&left), "{left}");
    // The batch in flight is the last one.
    sleep(Duration::from_secs(60)).await;
    assert!(unpublished(&w) >= left - BATCH as usize, "{} of {left}", unpublished(&w));
}
