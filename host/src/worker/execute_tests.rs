//! What a claimed task waits for before its guest runs, and what it does not.

use super::*;
use crate::broker::memory::{MemoryBroker, Server};
use crate::db::memory::MemoryDb;
use crate::metrics::Metrics;
use crate::registry::{Catalog, Isolation, MemoryBudget, PluginInfo, Resolved, Served, Turns};
use crate::task::limits::MessageLimits;
use crate::task::{Ended, Options, PluginRef, RetryPolicy};
use crate::worker::lease::Lease;
use crate::worker::{Parts, WindowConfig, WorkerConfig};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokio::sync::watch;

/// A plugin whose runs complete at once, in the isolation lane too.
pub(in crate::worker) struct Prompt {
    name: Arc<str>,
    retry: RetryPolicy,
}

impl Prompt {
    pub(in crate::worker) fn new() -> Arc<Prompt> {
        Arc::new(Prompt { name: "prompt".into(), retry: RetryPolicy::default() })
    }
}

#[async_trait]
impl Runner for Prompt {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn version(&self) -> &Arc<str> {
        &self.name
    }
    fn digest(&self) -> &Arc<str> {
        &self.name
    }
    fn queue(&self) -> &str {
        "default"
    }
    fn retry(&self) -> &RetryPolicy {
        &self.retry
    }
    fn concurrency(&self) -> Option<u32> {
        None
    }
    fn has_effects(&self) -> bool {
        true
    }
    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn place(&self) -> &Path {
        Path::new("/")
    }
    fn memory_reserve(&self) -> u64 {
        0
    }
    fn memory_limit(&self) -> u64 {
        0
    }
    async fn run(&self, _: Job) -> Report {
        unentered(Verdict::Output("1".into()))
    }
}

#[async_trait]
impl Isolation for Prompt {
    async fn run(&self, _: &dyn Runner, _: Job) -> Report {
        unentered(Verdict::Output("1".into()))
    }
}

impl Catalog for Prompt {
    fn resolve(&self, _: &PluginRef) -> Resolved {
        Resolved::Unknown { known: Vec::new() }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
    fn list(&self) -> Vec<PluginInfo> {
        Vec::new()
    }
    fn served(&self) -> Served {
        Served::default()
    }
}

/// A worker without its steps, with two slots and one place in the isolation lane.
pub(in crate::worker) fn shared() -> Arc<Shared> {
    let (memory, turns) = (MemoryBudget::new(1 << 20), Turns::new(2));
    let parts = Parts {
        broker: Arc::new(MemoryBroker::connect(&Server::new(20, Arc::new(|_| 0)))),
        db: Arc::new(MemoryDb::new(Arc::new(chrono::Utc::now))),
        catalog: Prompt::new(),
        isolation: Prompt::new(),
        guests: tokio::runtime::Handle::current(),
        metrics: Arc::new(Metrics::new(2, Arc::default(), memory.clone(), turns.clone())),
        brakes: crate::brakes::InForce::default(),
        memory,
        turns,
        chance: Arc::new(|| 0.5),
    };
    let config = WorkerConfig {
        host: uuid::Uuid::now_v7(),
        queues: vec!["default".into()],
        slots: 2,
        queue_slots: BTreeMap::new(),
        window: WindowConfig::of(2),
        waits: None,
        lanes: 1,
        message_limits: MessageLimits::default(),
        claim_after: Duration::ZERO,
        max_snoozes: 10,
        grace: crate::worker::Grace::of(Duration::ZERO),
        ack_when_claimed: BTreeSet::new(),
        spool: None,
        settled: watch::Sender::new(0),
        letters: watch::Sender::default(),
        replies: watch::Sender::default(),
    };
    Shared::new(parts, config, Lease::new(Instant::now(), || Duration::ZERO), Arc::default())
}

pub(in crate::worker) async fn ready(shared: &Shared) -> Ready {
    let runner = Prompt::new();
    let slot = shared.room.slot("default").await;
    let place = shared.room.place(slot, &runner.name, None).unwrap();
    let memory = Arc::new(shared.room.memory().reserve(0).await);
    let turn = Arc::new(shared.room.turns().admit().await);
    Ready { runner, place, memory, turn }
}

fn isolated() -> Claimed {
    let standing = Standing { attempt: 1, max_attempts: 3, snoozes: 0, child_losses: 0, isolated: true };
    Claimed { fence: 3, standing, at: chrono::Utc::now() }
}

#[tokio::test(start_paused = true)]
async fn a_claimed_task_does_not_wait_for_a_place_in_the_isolation_lane() {
    let shared = shared();
    let (ends, mut ended) = mpsc::channel::<End>(2);
    let message =
        || Arc::new(TaskMessage::assemble(None, "prompt", "1", Options::default(), &Default::default()).unwrap());
    let mut next = async || {
        // The lane stays taken for longer than any attempt may run.
        let end = tokio::time::timeout(Duration::from_secs(3_600), ended.recv()).await;
        end.expect("it waits for the lane").unwrap().settlement
    };
    let lane = shared.room.try_lane().unwrap();
    spawn(&shared, ends.clone(), message(), isolated(), ready(&shared).await, CancellationToken::new());
    let settlement = next().await;
    assert_eq!(settlement.ended, Ended::Interrupted { reason: "the isolation lane is full".into() });
    assert_eq!((settlement.fence, settlement.attempt, shared.room.free()), (3, 1, 2), "it holds no slot any more");
    drop(lane);
    spawn(&shared, ends.clone(), message(), isolated(), ready(&shared).await, CancellationToken::new());
    assert_eq!(next().await.ended, Ended::Completed { output: "1".into() });
    assert_eq!(shared.room.free_lanes(), 1);
}
