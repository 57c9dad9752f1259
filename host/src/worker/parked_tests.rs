//! Tasks that cannot run do not stand before those that can.

use super::*;
use crate::db::memory::MemoryDb;
use crate::db::{Claimant, Db};
use crate::registry::{Catalog, PluginInfo, Served};
use crate::task::{Arrival, Options, PluginRef, TaskMessage};
use crate::worker::execute::tests::{Prompt, shared};
use crate::worker::lease::Lease;
use crate::worker::{Parts, WorkerConfig};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Every plugin is served.
struct All;

impl Catalog for All {
    fn resolve(&self, _: &PluginRef) -> Resolved {
        Resolved::Ready(Prompt::new())
    }
    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
    fn list(&self) -> Vec<PluginInfo> {
        Vec::new()
    }
    fn served(&self) -> Served {
        Served { plugins: vec!["prompt@1.0.0".into()], broken: Vec::new() }
    }
}

/// A worker whose queue `narrow` has one slot.
fn world() -> (MemoryDb, Arc<Shared>) {
    let (db, some) = (MemoryDb::new(Arc::new(chrono::Utc::now)), shared());
    let parts = Parts { db: Arc::new(db.clone()), catalog: Arc::new(All), ..some.parts.clone() };
    let config = WorkerConfig { queue_slots: BTreeMap::from([("narrow".into(), 1)]), ..some.config.clone() };
    (db, Shared::new(parts, config, Lease::new(Instant::now(), || Duration::ZERO), Arc::default()))
}

async fn park(db: &MemoryDb, queue: &str, priority: u8, count: usize) -> Vec<TaskId> {
    let options = Options { priority: Some(priority), ..Options::default() };
    let arrival = |_| {
        let id = Some(uuid::Uuid::now_v7());
        let message = TaskMessage::assemble(id, "prompt", "1", options.clone(), &Default::default()).unwrap();
        let runnable = Runnable::NotHere { code: WaitCode::NoSlot, detail: serde_json::Value::Null };
        Arrival { message: Arc::new(message), queue: queue.into(), runnable, relayed: None }
    };
    let arrivals: Vec<Arrival> = (0..count).map(arrival).collect();
    let me = Claimant { host: uuid::Uuid::now_v7(), steady: true };
    db.claim(me, &arrivals).await.unwrap();
    arrivals.iter().map(|arrival| arrival.message.id).collect()
}

/// The first task that is offered.
async fn first(shared: &Arc<Shared>) -> TaskId {
    let (claims, mut offered) = mpsc::channel(1);
    let offering = tokio::spawn(run(shared.clone(), claims));
    let candidate = tokio::time::timeout(Duration::from_secs(60), offered.recv()).await;
    offering.abort();
    candidate.expect("a task that can run is offered").unwrap().arrival.message.id
}

#[tokio::test(start_paused = true)]
async fn tasks_that_this_build_cannot_read_do_not_stand_before_others() {
    for count in [300, 5_000] {
        let (db, shared) = world();
        for id in park(&db, "default", 9, count).await {
            db.look().tasks.get_mut(&id).unwrap().options = r#"{"of_a_newer_build": 1}"#.into();
        }
        let readable = park(&db, "default", 0, 1).await;
        assert_eq!(first(&shared).await, readable[0], "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_of_a_queue_without_a_free_slot_do_not_stand_before_others() {
    let (db, shared) = world();
    let _taken = shared.room.slot("narrow").await;
    park(&db, "narrow", 9, 300).await;
    let other = park(&db, "default", 0, 1).await;
    assert_eq!(first(&shared).await, other[0]);
}

#[tokio::test(start_paused = true)]
async fn task_that_the_database_refuses_is_not_offered_again_at_once() {
    let (db, shared) = world();
    let id = park(&db, "default", 0, 1).await[0];
    let (claims, mut offered) = mpsc::channel(1);
    let offering = tokio::spawn(run(shared.clone(), claims));
    assert_eq!(offered.recv().await.unwrap().arrival.message.id, id);
    shared.refused.add(id);
    let next = tokio::time::timeout(REFUSED - LOOK, offered.recv()).await;
    assert!(next.is_err(), "it is offered once a second");
    let next = tokio::time::timeout(3 * LOOK, offered.recv()).await;
    assert_eq!(next.expect("it is offered again").unwrap().arrival.message.id, id);
    offering.abort();
}
