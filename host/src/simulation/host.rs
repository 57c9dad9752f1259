//! One life of a host: as the daemon puts it together.

use super::guests::{Lane, Plugins};
use super::wire::{Wire, WireBroker, WireDb};
use super::world::{LEASE, World};
use crate::broker::Broker;
use crate::db::{Db, HostRecord, Retention};
use crate::maintenance::{self, MaintenanceConfig};
use crate::metrics::Metrics;
use crate::registry::{Catalog, MemoryBudget, Turns};
use crate::task::HostId;
use crate::task::limits::MessageLimits;
use crate::worker::lease::{Keeper, Lease};
use crate::worker::{self, Drained, Worker, WorkerConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A host that lives.
pub struct Host {
    /// Its connections, and its death.
    pub wire: Arc<Wire>,
    /// Asks it to end.
    pub end: CancellationToken,
    /// It has ended well.
    pub ended: watch::Receiver<bool>,
}

impl Host {
    /// Start. `former`: a life that ended in the same data folder, whose lease is ended first.
    pub fn start(world: &Arc<World>, place: usize, former: Option<HostId>) -> Host {
        let wire = Wire::new(world, place);
        let (end, ended) = (CancellationToken::new(), watch::Sender::new(false));
        let host = Host { wire: wire.clone(), end: end.clone(), ended: ended.subscribe() };
        world.tell(&format!("host {place} starts: {}", wire.host));
        tokio::spawn(live(wire, former, end, ended));
        host
    }
}

async fn live(wire: Arc<Wire>, former: Option<HostId>, end: CancellationToken, ended: watch::Sender<bool>) {
    let world = wire.world.clone();
    let db: Arc<dyn Db> = Arc::new(WireDb(wire.clone()));
    let broker: Arc<dyn Broker> = Arc::new(WireBroker(wire.clone()));
    let catalog: Arc<dyn Catalog> = Arc::new(Plugins::of(wire.clone()));
    let again = Duration::from_millis(300);
    if let Some(former) = former {
        while db.end_lease(former).await.is_err() {
            tokio::time::sleep(again).await;
        }
    }
    // The clock that goes on in a suspended machine is as simulated as the other.
    let began = Instant::now();
    let lease = Lease::new(began, move || Duration::from_secs(1) + began.elapsed());
    let steady = lease.clone();
    let busy = Arc::new(AtomicU32::new(0));
    let brakes = crate::brakes::InForce::default();
    let keeper = Keeper {
        db: db.clone(),
        record: record(&wire, catalog.clone()),
        ttl: LEASE,
        lease: lease.clone(),
        brakes: brakes.clone(),
    };
    while keeper.register().await.is_err() {
        tokio::time::sleep(again).await;
    }
    let memory = MemoryBudget::new(world.swarm.memory);
    // Fewer than may be in memory, so that claimed tasks wait for their turn.
    let turns = Turns::new(world.swarm.slots.div_ceil(2));
    let metrics = Arc::new(Metrics::new(world.swarm.slots, busy.clone(), memory.clone(), turns.clone()));
    let chance = world.clone();
    let parts = worker::Parts {
        broker: broker.clone(),
        db: db.clone(),
        catalog,
        isolation: Arc::new(Lane(wire.clone())),
        guests: tokio::runtime::Handle::current(),
        metrics: metrics.clone(),
        brakes: brakes.clone(),
        memory,
        turns,
        chance: Arc::new(move || chance.chance.fraction()),
    };
    let (letters, replies) = (watch::Sender::new(()), watch::Sender::new(()));
    let config = WorkerConfig {
        host: wire.host,
        queues: vec!["default".into()],
        slots: world.swarm.slots,
        queue_slots: BTreeMap::new(),
        window: world.swarm.window,
        waits: None,
        lanes: 1,
        message_limits: MessageLimits::default(),
        claim_after: world.swarm.claim_after,
        max_snoozes: 10,
        grace: worker::Grace::of(Duration::from_secs(6)),
        ack_when_claimed: BTreeSet::new(),
        spool: None,
        settled: watch::Sender::new(0),
        letters: letters.clone(),
        replies: replies.clone(),
    };
    let Ok(worker) = Worker::start(parts, config, lease, busy).await else { return };
    let (closing, lease_end) = (CancellationToken::new(), CancellationToken::new());
    let keeping = tokio::spawn(keeper.run(worker.remote(), lease_end.clone()));
    let duties = maintenance::start(
        &maintenance::Parts {
            db: db.clone(),
            broker: broker.clone(),
            outbox: Arc::default(),
            unpublished: watch::Sender::new(None),
            letters: letters.clone(),
            replies,
            brakes,
            metrics,
            queues: vec!["default".into()],
            unpublished_letters: watch::Sender::default(),
            steady: Arc::new(move || steady.is_steady()),
        },
        MaintenanceConfig { lease: LEASE, unknown_grace: Duration::from_secs(60), retention: RETENTION, pending: None },
        &closing,
    );
    end.cancelled().await;
    let drained = worker.drain().await;
    world.count(if drained == Drained::Cleanly { "drained cleanly" } else { "drained dirtily" });
    closing.cancel();
    duties.end(Duration::from_secs(5)).await;
    broker.close().await;
    lease_end.cancel();
    let _ = keeping.await;
    let _ = db.end_lease(wire.host).await; // it lapses by itself
    world.tell(&format!("host {} has ended: {}", wire.place, wire.host));
    ended.send_replace(true);
}

const RETENTION: Retention =
    Retention { completed: Duration::MAX, failed: Duration::MAX, dead: Duration::MAX, audit: Duration::MAX };

fn record(wire: &Wire, catalog: Arc<dyn Catalog>) -> Box<dyn Fn() -> HostRecord + Send + Sync> {
    let (id, place, slots) = (wire.host, wire.place, wire.world.swarm.slots);
    Box::new(move || {
        let served = catalog.served();
        HostRecord {
            id,
            name: format!("simulated/{place}"),
            build: "simulated".into(),
            settings_digest: "sha256:0".into(),
            queues: vec!["default".into()],
            plugins: served.plugins,
            broken_plugins: served.broken,
            slots,
            busy: 0,
            brakes: Some(0),
        }
    })
}
