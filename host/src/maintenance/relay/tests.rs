//! The relay over a database in memory and a broker that refuses queues.

use super::*;
use crate::broker::{Acknowledged, Broker, BrokerError, Health, QueueFacts, Receipt, Source, Subscription};
use crate::db::memory::MemoryDb;
use crate::db::{Db, NewTask};
use crate::metrics::Metrics;
use crate::registry::{MemoryBudget, Turns};
use crate::task::{Options, TaskMessage};
use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// A broker that accepts messages for some queues only, after a while.
#[derive(Default)]
pub(in crate::maintenance) struct Picky {
    pub refused: Mutex<BTreeSet<String>>,
    pub accepted: Mutex<Vec<String>>,
    attempts: Mutex<usize>,
    pub takes: Mutex<Duration>,
    blocked: Mutex<bool>,
}

#[async_trait]
impl Broker for Picky {
    async fn declare(&self, _: &[String]) -> Result<(), BrokerError> {
        panic!("a relay declares nothing")
    }
    async fn subscribe(&self, _: Source, _: u16) -> Result<Subscription, BrokerError> {
        panic!("a relay consumes nothing")
    }
    async fn acknowledge(&self, _: Vec<Receipt>) -> Acknowledged {
        panic!("a relay acknowledges nothing")
    }
    async fn give_back(&self, _: Vec<Receipt>) -> Acknowledged {
        panic!("a relay gives nothing back")
    }
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let takes = *self.takes.lock().unwrap();
        sleep(takes.max(Duration::from_millis(1))).await;
        *self.attempts.lock().unwrap() += batch.len();
        let one = |publication: Publication| {
            let (Target::Tasks(queue) | Target::Dead(queue)) = publication.target else { panic!("a reply") };
            if self.refused.lock().unwrap().contains(&queue) {
                return Err(PublishError::Unconfirmed("it is full".into()));
            }
            self.accepted.lock().unwrap().push(publication.message.message_id.unwrap());
            Ok(())
        };
        batch.into_iter().map(one).collect()
    }
    async fn facts(&self, _: Source) -> Result<QueueFacts, BrokerError> {
        panic!("a relay asks for no facts")
    }
    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Up(Utc::now())).1
    }
    fn refusal(&self) -> Option<String> {
        self.blocked.lock().unwrap().then(|| "it is blocked".into())
    }
    fn describe(&self) -> String {
        "picky".into()
    }
    async fn close(&self) {}
}

pub(in crate::maintenance) struct World {
    pub db: MemoryDb,
    pub broker: Arc<Picky>,
    pub parts: Parts,
}

/// Metrics of a host without guests.
fn metrics() -> Metrics {
    Metrics::new(1, Arc::default(), MemoryBudget::new(0), Turns::new(1))
}

impl World {
    pub fn new() -> World {
        let (base, began) = (Utc::now(), Instant::now());
        let db = MemoryDb::new(Arc::new(move || base + TimeDelta::from_std(began.elapsed()).unwrap()));
        let broker = Arc::new(Picky::default());
        let parts = Parts {
            db: Arc::new(db.clone()),
            broker: broker.clone(),
            outbox: Arc::new(Notify::new()),
            unpublished: watch::Sender::new(None),
            letters: watch::Sender::new(()),
            replies: watch::Sender::new(()),
            brakes: Default::default(),
            metrics: Arc::new(metrics()),
            queues: Vec::new(),
            unpublished_letters: watch::Sender::default(),
            steady: Arc::new(|| true),
        };
        World { db, broker, parts }
    }

    async fn submit(&self, queue: &str, count: usize) {
        let task = |_| NewTask {
            message: TaskMessage::assemble(
                Some(uuid::Uuid::now_v7()),
                "p",
                "1",
                Options::default(),
                &Default::default(),
            )
            .unwrap(),
            queue: queue.into(),
            retry_of: None,
            max_attempts: 3,
        };
        self.db.submit(&(0..count).map(task).collect::<Vec<_>>()).await.unwrap();
        self.parts.outbox.notify_one();
    }

    fn relay(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let closing = CancellationToken::new();
        (closing.clone(), tokio::spawn(run(self.parts.clone(), closing)))
    }

    pub fn refuse(&self, queue: &str) {
        self.broker.refused.lock().unwrap().insert(queue.into());
    }

    pub fn accepted(&self) -> usize {
        self.broker.accepted.lock().unwrap().len()
    }

    pub fn attempts(&self) -> usize {
        *self.broker.attempts.lock().unwrap()
    }

    fn unpublished(&self) -> Option<String> {
        self.parts.unpublished.borrow().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_accepts_nothing_is_tried_seldom_and_drained_at_once_when_it_does() {
    let w = World::new();
    w.refuse("full");
    w.submit("full", 20_000).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(60)).await;
    assert!(w.attempts() < 1_500, "{} messages were published in vain", w.attempts());
    let why = w.unpublished().unwrap();
    assert!(why.contains("queue full") && why.contains("it is full"), "{why}");
    w.broker.refused.lock().unwrap().clear();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(w.accepted(), 20_000);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.unpublished(), None);
    closing.cancel();
    relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_accepts_only_now_and_then_is_reported_once() {
    let w = World::new();
    let mut unpublished = w.parts.unpublished.subscribe();
    let (closing, relay) = w.relay();
    let mut changes = 0;
    for _ in 0..30 {
        w.refuse("full");
        w.submit("full", 100).await;
        sleep(Duration::from_secs(2)).await;
        w.broker.refused.lock().unwrap().clear();
        sleep(Duration::from_secs(6)).await;
        changes += usize::from(unpublished.has_changed().unwrap());
        unpublished.mark_unchanged();
        assert!(w.unpublished().is_some());
    }
    assert_eq!(w.accepted(), 3_000);
    assert_eq!(changes, 1);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.unpublished(), None);
    closing.cancel();
    relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn other_queues_are_published_while_one_accepts_nothing() {
    let w = World::new();
    w.refuse("full");
    w.submit("full", 30_000).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(30)).await;
    w.submit("free", 1_000).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(w.accepted(), 1_000, "whatever waits for the other queue");
    assert!(w.attempts() < 3_000, "{} messages were published in vain", w.attempts());
    closing.cancel();
    relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_relay_ends_between_two_full_rounds() {
    let w = World::new();
    *w.broker.takes.lock().unwrap() = Duration::from_millis(100);
    w.submit("default", 20_000).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_millis(350)).await;
    closing.cancel();
    let ended = Instant::now();
    relay.await.unwrap();
    assert!(ended.elapsed() < Duration::from_millis(200), "{:?}", ended.elapsed());
    assert!(w.accepted() < 5_000);
}

#[tokio::test(start_paused = true)]
async fn rows_are_held_for_as_long_as_the_broker_takes_to_confirm() {
    let w = World::new();
    *w.broker.takes.lock().unwrap() = Duration::from_secs(29);
    w.submit("default", 10).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(1)).await;
    let other = World { parts: w.parts.clone(), db: w.db.clone(), broker: w.broker.clone() };
    let (_, second) = other.relay();
    sleep(Duration::from_secs(40)).await;
    let accepted = w.broker.accepted.lock().unwrap().clone();
    assert_eq!(accepted.iter().collect::<HashSet<_>>().len(), 10);
    assert_eq!(accepted.len(), 10, "published by both relays");
    closing.cancel();
    relay.await.unwrap();
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_the_broker_is_blocked() {
    let w = World::new();
    *w.broker.blocked.lock().unwrap() = true;
    w.submit("default", 1_000).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(w.attempts(), 0);
    *w.broker.blocked.lock().unwrap() = false;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(w.accepted(), 1_000);
    closing.cancel();
    relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_are_looked_for_from_the_first_that_was_due_and_without_bound_each_minute() {
    let (mut bound, due) = (Bound::default(), Utc::now());
    let behind = |due: DateTime<Utc>| Some(due - MARGIN);
    assert_eq!(bound.from(), None);
    bound.found(None);
    assert_eq!(bound.from(), None);
    bound.found(Some(due));
    assert_eq!(bound.from(), behind(due));
    bound.found(None);
    bound.found(Some(due - TimeDelta::seconds(5)));
    assert_eq!(bound.from(), behind(due));
    sleep(WHOLE).await;
    assert_eq!(bound.from(), None, "rows that others held are found now");
    bound.found(Some(due - TimeDelta::hours(1)));
    assert_eq!(bound.from(), behind(due - TimeDelta::hours(1)));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_waits_and_its_neighbours_are_published() {
    let w = World::new();
    w.submit("default", 10).await;
    let spoilt = *w.db.look().tasks.keys().next().unwrap();
    w.db.look().tasks.get_mut(&spoilt).unwrap().options = r#"{"of_a_newer_build": 1}"#.into();
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(w.accepted(), 9);
    assert_eq!(w.db.look().outbox.len(), 1, "it stays, for a host that can read it");
    w.db.look().tasks.get_mut(&spoilt).unwrap().options = "{}".into();
    sleep(Duration::from_secs(61)).await;
    assert_eq!(w.accepted(), 10);
    closing.cancel();
    relay.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_read_do_not_stand_before_others() {
    let w = World::new();
    w.submit("default", 1_200).await;
    let spoilt: Vec<_> = w.db.look().tasks.keys().copied().collect();
    for id in spoilt {
        w.db.look().tasks.get_mut(&id).unwrap().options = r#"{"of_a_newer_build": 1}"#.into();
    }
    w.submit("default", 10).await;
    let (closing, relay) = w.relay();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(w.accepted(), 10);
    closing.cancel();
    relay.await.unwrap();
}
