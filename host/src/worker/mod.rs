//! The path of a task: receive → claim → execute → settle → acknowledge.
//!
//! ```text
//!   receive    a delivery is decoded, its plugin found, slot and memory taken (unusable: dead letter)
//!   claim      arrivals are claimed in batches: one fence each                (database first)
//!   execute    the guest runs, once, in a fresh sandbox, within its limits
//!   settle     ends are recorded in batches, each under its fence             (commit)
//!   acknowledge  only now does the broker hear of it
//! ```
//!
//! Each step is a file of its own and hands its value to the next through a channel. What runs in this process is in
//! [`flights`]: there a redelivery finds its task and is re-attached instead of run again. The worker reaches broker,
//! database, plugins, clock and randomness only through [`Parts`] and tokio's clock, so that faults can be simulated; every
//! `select!` is biased, so that a simulation repeats from its seed.

mod acknowledge;
mod batch;
mod candidate;
mod claim;
mod dead;
mod execute;
mod flights;
mod grace;
pub mod lease;
mod owed;
mod parked;
mod receive;
mod record;
mod reply;
mod reserve;
mod room;
mod settle;
pub mod spool;
mod stops;
mod unclaimed;
mod window;

pub use grace::Grace;
pub use window::WindowConfig;

use crate::brakes::InForce;
use crate::broker::{Broker, Delivery, Source};
use crate::db::Db;
use crate::metrics::{Leg, Metrics, Step};
use crate::registry::{Catalog, Isolation, MemoryBudget, Turns};
use crate::task::limits::MessageLimits;
use crate::task::settle::StopReason;
use crate::task::{Arrival, HostId};
use lease::Lease;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the worker is given.
#[derive(Clone)]
pub struct Parts {
    /// Where deliveries come from.
    pub broker: Arc<dyn Broker>,
    /// Where everything is recorded.
    pub db: Arc<dyn Db>,
    /// Which plugins there are.
    pub catalog: Arc<dyn Catalog>,
    /// Where tasks run that are suspected of killing their hosts.
    pub isolation: Arc<dyn Isolation>,
    /// The runtime on which guests run, so that none of them holds up the host's own work.
    pub guests: tokio::runtime::Handle,
    /// Memory for all guests together: `worker.memory_mib`.
    pub memory: MemoryBudget,
    /// Turns to compute: `worker.computing`.
    pub turns: Turns,
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
    /// The brakes that this host heeds.
    pub brakes: InForce,
    /// Uniform in 0..1, for jitter.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// What the worker is told.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// This process.
    pub host: HostId,
    /// Logical queues to consume.
    pub queues: Vec<String>,
    /// Guests that may be in memory at once.
    pub slots: u32,
    /// Of these, at most so many for tasks of a queue: `[queues.NAME] slots`.
    pub queue_slots: BTreeMap<String, u32>,
    /// How many deliveries are in hand.
    pub window: WindowConfig,
    /// The longest time in hand of a delivery that has not begun; `None`: it has no bound. The broker takes back what is
    /// unacknowledged for longer than its `consumer_timeout`: half of that is for waiting, the other half for running.
    pub waits: Option<Duration>,
    /// Tasks that may run in the isolation lane at once, each in a process of its own.
    pub lanes: u32,
    /// What a message is checked against.
    pub message_limits: MessageLimits,
    /// How long a first attempt without effects may run before it is claimed; zero: every task is claimed before it runs.
    pub claim_after: Duration,
    /// Snoozes of a task before it fails.
    pub max_snoozes: u32,
    /// The time of a shutdown.
    pub grace: Grace,
    /// Queues whose deliveries are acknowledged once their tasks are claimed: `[queues.NAME] ack = "claimed"`. The row has the
    /// payload then, and the lease tells of a crash.
    pub ack_when_claimed: BTreeSet<String>,
    /// Where results wait on disk while the database is away; `None`: in memory alone.
    pub spool: Option<PathBuf>,
    /// Ticked after every settled batch, for those who wait for a task's end.
    pub settled: watch::Sender<u64>,
    /// Marked as changed when dead letters were recorded, for those who publish them.
    pub letters: watch::Sender<()>,
    /// Marked as changed when a task may have ended whose producer waits for a reply.
    pub replies: watch::Sender<()>,
}

impl WorkerConfig {
    /// Guests of a queue that may run at once.
    fn slots_of(&self, queue: &str) -> u32 {
        self.queue_slots.get(queue).copied().unwrap_or(self.slots).min(self.slots)
    }

    /// Deliveries of a queue that are in hand whatever happens: as many as can run if the other queues are empty. A smaller part of each
    /// queue would leave the slots of the others unused.
    pub fn prefetch(&self, queue: &str) -> u16 {
        let can_run = u32::from(self.window.least / 2).min(self.slots_of(queue));
        u16::try_from(can_run.max(1)).unwrap_or(u16::MAX)
    }

    /// Deliveries of a queue that are in hand as well while none waits for long: as many again. A memory bound too, since an AMQP client's buffer has none. [`window`] adds to it.
    pub fn reserve(&self, queue: &str) -> u16 {
        let slots = u16::try_from(self.slots_of(queue).saturating_mul(2)).unwrap_or(u16::MAX);
        slots.clamp(2, self.window.least.max(2)).saturating_sub(self.prefetch(queue)).max(1)
    }
}

/// The running path.
pub struct Worker {
    shared: Arc<Shared>,
    pipeline: TaskTracker,
    consuming: Vec<Consuming>,
}

/// A queue, and since when the broker has confirmed its consumer.
type Consuming = (String, watch::Receiver<Option<chrono::DateTime<chrono::Utc>>>);

/// What readiness looks at.
#[derive(Clone)]
pub struct Watched {
    /// Whether each queue's consume is confirmed.
    pub consuming: Vec<Consuming>,
    /// `Some(why)` while the database does not answer the path.
    pub database_trouble: watch::Receiver<Option<String>>,
    /// Whether this host may act on what it claimed.
    pub lease: Lease,
    /// The brakes that this host heeds.
    pub brakes: InForce,
    /// This process.
    pub host: HostId,
}

/// What the steps share.
pub(crate) struct Shared {
    pub parts: Parts,
    pub config: WorkerConfig,
    pub lease: Lease,
    pub flights: flights::Flights,
    pub room: room::Room,
    pub refused: parked::Refused,
    pub window: window::Window,
    /// How each subscription is held while the database is away.
    pub flows: receive::Flows,
    /// What takes deliveries in; closed when the worker is.
    pub receivers: TaskTracker,
    /// Cancelled: nothing new is taken in.
    pub closing: CancellationToken,
    /// Cancelled: what still waits for the database gives up.
    pub hurry: CancellationToken,
    /// The database's last answer to the path: `Some(why)` while it does not answer.
    pub database_trouble: watch::Sender<Option<String>>,
    /// Whether a message named a queue for its reply.
    pub replies_expected: AtomicBool,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that ran was recorded and acknowledged.
    Cleanly,
    /// Something could not be recorded or acknowledged: what ran is in the spool, and the broker will deliver all of it again.
    Dirtily {
        /// How many tasks that ran.
        unsettled: usize,
    },
}

impl Shared {
    fn new(parts: Parts, config: WorkerConfig, lease: Lease, busy: Arc<AtomicU32>) -> Arc<Shared> {
        Arc::new(Shared {
            flights: flights::Flights::default(),
            room: room::Room::new(config.slots, &config.queue_slots, config.lanes, busy, parts.memory.clone())
                .with_turns(parts.turns.clone()),
            refused: parked::Refused::default(),
            window: window::Window::of(&config.queues),
            flows: receive::Flows::default(),
            receivers: TaskTracker::new(),
            closing: CancellationToken::new(),
            hurry: CancellationToken::new(),
            database_trouble: watch::Sender::new(None),
            replies_expected: AtomicBool::new(false),
            lease,
            parts,
            config,
        })
    }

    /// A batch of ends was recorded: wakes those who wait for a task's end.
    fn recorded(&self) {
        self.config.settled.send_modify(|n| *n += 1);
        if self.replies_expected.load(Ordering::Relaxed) {
            self.config.replies.send_replace(());
        }
    }

    /// A delivery's run, or its claim, begins.
    fn begun(&self, arrival: &Arrival, delivery: &Delivery) {
        let waited = delivery.arrived.elapsed();
        self.parts.metrics.leg(Leg::Wait, waited);
        if arrival.is_first() && !delivery.redelivered {
            self.parts.metrics.begun(&arrival.queue, &arrival.message);
        }
        self.window.begun(waited, delivery.message.body.len());
    }
}

impl Worker {
    /// Subscribe to every queue and begin.
    pub async fn start(
        parts: Parts,
        config: WorkerConfig,
        lease: Lease,
        busy: Arc<AtomicU32>,
    ) -> Result<Worker, crate::broker::BrokerError> {
        let shared = Shared::new(parts, config, lease, busy);
        let (receivers, pipeline) = (shared.receivers.clone(), TaskTracker::new());

        // Every channel is bounded by what the slots let in; the numbers only smooth hand-overs.
        let depth = (shared.config.slots as usize * 2).max(1_024);
        let (claims, to_claim) = mpsc::channel(depth);
        let (ends, to_settle) = mpsc::channel(depth);
        let (acks, to_acknowledge) = mpsc::channel(depth);
        let (dead, to_bury) = mpsc::channel(depth);
        let (records, to_record) = mpsc::channel(depth);

        pipeline.spawn(claim::run(shared.clone(), to_claim, ends.clone(), acks.clone(), dead.clone()));
        let recorded = record::Ways { claims: claims.clone(), ends: ends.clone(), acks: acks.clone() };
        pipeline.spawn(record::run(shared.clone(), to_record, recorded));
        let ways = unclaimed::Ways { claims: claims.clone(), records, ends };
        let spool = spool::Spool::new(shared.config.spool.clone(), shared.config.host);
        pipeline.spawn(settle::run(shared.clone(), to_settle, acks.clone(), spool));
        pipeline.spawn(dead::run(shared.clone(), to_bury, acks));
        pipeline.spawn(acknowledge::run(shared.clone(), to_acknowledge));

        let mut consuming = Vec::new();
        for queue in shared.config.queues.clone() {
            let queue: Arc<str> = queue.into();
            let prefetch = shared.config.prefetch(&queue);
            let tasks = shared.parts.broker.subscribe(Source::Tasks(queue.clone()), prefetch).await?;
            let returned = shared.parts.broker.subscribe(Source::Returned(queue.clone()), 16).await?;
            consuming.push((queue.to_string(), tasks.confirmed.clone()));
            for flow in [&tasks.flow, &returned.flow] {
                shared.flows.add(&shared, &queue, flow.clone());
            }
            receivers.spawn(receive::tasks(shared.clone(), tasks, ways.clone(), dead.clone(), shared.closing.clone()));
            receivers.spawn(receive::returned(shared.clone(), returned, claims.clone(), dead.clone()));
        }
        receivers.spawn(parked::run(shared.clone(), claims));
        receivers.spawn(receive::hold(shared.clone()));
        receivers.spawn(window::run(shared.clone(), ways, dead));
        receivers.close();
        pipeline.close();
        Ok(Worker { shared, pipeline, consuming })
    }

    /// What readiness looks at.
    pub fn watched(&self) -> Watched {
        Watched {
            consuming: self.consuming.clone(),
            database_trouble: self.shared.database_trouble.subscribe(),
            lease: self.shared.lease.clone(),
            brakes: self.shared.parts.brakes.clone(),
            host: self.shared.config.host,
        }
    }

    /// A handle that ends tasks, for the lease keeper.
    pub fn remote(&self) -> Remote {
        Remote(self.shared.clone())
    }

    /// Take nothing new, let what runs go on, interrupt the rest in time, record and acknowledge all of it. Returns before
    /// the grace period ends.
    pub async fn drain(self) -> Drained {
        let shared = self.shared;
        shared.closing.cancel();
        let Grace { guests, records, whole } = shared.config.grace;
        let began = Instant::now();
        let done = async {
            // A receiver that has a dead letter in hand waits for the database like everybody else.
            shared.receivers.wait().await;
            self.pipeline.wait().await;
        };
        tokio::pin!(done);
        if tokio::time::timeout_at(began + guests, &mut done).await.is_ok() {
            return Drained::Cleanly;
        }
        let stopped = shared.flights.stop_all(StopReason::Shutdown);
        tracing::info!(interrupted = stopped, "interrupting what still runs");
        // What the database does not take in this time is in the spool, for the next process in this data folder; and the broker
        // delivers it again to whoever comes.
        if tokio::time::timeout_at(began + records, &mut done).await.is_ok() {
            return Drained::Cleanly;
        }
        shared.hurry.cancel();
        let _ = tokio::time::timeout((whole - records) / 4, &mut done).await;
        Drained::Dirtily { unsettled: shared.flights.len() }
    }
}

/// The intake of one queue at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// Deliveries that have arrived since the start.
    pub arrived: u64,
    /// A slot is free, no delivery in hand waits for one, and so few tasks run that the broker may deliver another.
    pub open: bool,
}

/// See [`Worker::remote`].
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

impl Remote {
    /// End a task that runs here, if it does.
    pub fn stop(&self, id: crate::task::TaskId) {
        self.0.flights.stop(id, StopReason::Cancelled);
    }

    /// Whether deliveries of a queue could begin now, and how many have arrived.
    pub fn intake(&self, queue: &str) -> Intake {
        let window = &self.0.window;
        let (room, config) = (&self.0.room, &self.0.config);
        let is_held = self.0.database_trouble.borrow().is_some()
            || self.0.closing.is_cancelled()
            || self.0.stopped(queue).is_some();
        // What runs is unacknowledged: with as many as the subscription that is always there lets in, it may be full.
        let has_credit = room.busy() < u32::from(config.prefetch(queue));
        Intake {
            arrived: window.arrivals(queue),
            open: !is_held && has_credit && room.can_begin() && !window.is_delayed(queue),
        }
    }

    /// Deliveries that this host may have in hand, of all queues.
    pub fn window(&self) -> u32 {
        self.0.window.size()
    }

    /// Whether any task runs here.
    pub fn runs_any(&self) -> bool {
        self.0.flights.len() > 0
    }
}
