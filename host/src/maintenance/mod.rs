//! What must happen even if nobody asks. Each duty is a definition that a reader can check against the database:
//!
//! - [`relay`]: a row stands in `outbox` if and only if its task is to be handed to the broker.
//! - [`letters`]: a dead letter has a `publish_at` if and only if it is to be handed to its dead-letter queue.
//! - [`replies`]: a task that has ended has a `reply_due` if and only if its producer is still to get its reply.
//! - [`scheduler`]: no task is `scheduled` or `retrying` past its `run_at`, and none waits past its deadline.
//! - [`rescuer`]: no task is `running` under a dead owner for longer than a lease and a sweep.
//! - [`undertaker`]: no task waits for a plugin that nobody serves for longer than the grace period.
//! - `pending`: nothing waits for long without a warning.
//! - [`pruner`]: no terminal task is kept longer than `retention.*` says.
//!
//! Any number of hosts may run them at once: every statement takes its rows with `FOR UPDATE SKIP LOCKED`.

pub mod letters;
mod pending;
pub mod pruner;
mod refusals;
pub mod relay;
pub mod replies;
pub mod rescuer;
pub mod scheduler;
pub mod undertaker;

pub use pending::PendingConfig;

use crate::brakes::InForce;
use crate::broker::{Broker, Publication, PublishError};
use crate::db::{Db, DbError, Retention};
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Rows a duty takes at a time.
const BATCH: u32 = 500;

/// How long rows are held that are being published, again and again until the broker has answered: as long as one waits whose host died.
/// After it another host may publish them; should both, the claim recognises a task.
const HELD: Duration = Duration::from_secs(10);

/// What the duties are given.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is recorded.
    pub db: Arc<dyn Db>,
    /// Where due tasks go.
    pub broker: Arc<dyn Broker>,
    /// Woken by whoever wrote an outbox row in this process.
    pub outbox: Arc<Notify>,
    /// Receives why tasks of the outbox are not published, for a person; `None`: they are.
    pub unpublished: watch::Sender<Option<String>>,
    /// Changed when this process has recorded dead letters.
    pub letters: watch::Sender<()>,
    /// Queues whose dead letters this host publishes: those that it consumes.
    pub queues: Vec<String>,
    /// Receives why dead letters are not published, by queue.
    pub unpublished_letters: watch::Sender<BTreeMap<String, String>>,
    /// Changed when a task may have ended whose producer waits for a reply.
    pub replies: watch::Sender<()>,
    /// Asked to look for what operators changed.
    pub brakes: InForce,
    /// Counts replies.
    pub metrics: Arc<Metrics>,
    /// Whether this host can tell hosts that died from hosts that are late (see `Claimant` in [`crate::db`]).
    pub steady: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What the duties are told.
#[derive(Clone)]
pub struct MaintenanceConfig {
    /// `lease.ttl_seconds`.
    pub lease: Duration,
    /// `plugins.unknown_grace_seconds`.
    pub unknown_grace: Duration,
    /// `retention.*`.
    pub retention: Retention,
    /// The look at what waits; `None`: there is none.
    pub pending: Option<PendingConfig>,
}

/// Begin all duties; they end when `closing` is cancelled.
pub fn start(parts: &Parts, config: MaintenanceConfig, closing: &CancellationToken) -> Duties {
    let (tracker, over) = (TaskTracker::new(), CancellationToken::new());
    tracker.spawn(relay::run(parts.clone(), closing.clone()));
    for queue in &parts.queues {
        tracker.spawn(letters::run(parts.clone(), queue.clone(), closing.clone(), over.clone()));
    }
    tracker.spawn(replies::run(parts.clone(), closing.clone()));
    tracker.spawn(scheduler::run(parts.clone(), closing.clone()));
    tracker.spawn(rescuer::run(parts.clone(), config.lease, closing.clone()));
    tracker.spawn(undertaker::run(parts.clone(), config.unknown_grace, closing.clone()));
    if let Some(pending) = config.pending {
        tracker.spawn(pending::run(parts.clone(), pending, closing.clone()));
    }
    tracker.spawn(pruner::run(parts.clone(), config.retention, closing.clone()));
    tracker.close();
    Duties { tracker, over }
}

/// Duties that run.
pub struct Duties {
    tracker: TaskTracker,
    /// Cancelled: what is left is left to other hosts, or to the next start.
    over: CancellationToken,
}

impl Duties {
    /// Waits for their end after `closing` was cancelled, no longer than `within`. Dead letters that are not published by then wait in the
    /// database. Returns whether all duties have ended.
    pub async fn end(self, within: Duration) -> bool {
        let ended = tokio::time::timeout(within, self.tracker.wait()).await.is_ok();
        self.over.cancel();
        ended
    }
}

/// Publishes, and holds the rows until the broker has answered: a confirmation may take longer than a hold.
async fn publish<F>(parts: &Parts, batch: Vec<Publication>, hold: impl Fn() -> F) -> Vec<Result<(), PublishError>>
where
    F: Future<Output = Result<(), DbError>>,
{
    let mut publishing = parts.broker.publish(batch);
    loop {
        tokio::select! {
            biased;
            answers = &mut publishing => return answers,
            () = tokio::time::sleep(HELD / 3) => {
                if let Err(error) = hold().await {
                    tracing::debug!(%error, "rows are not held while they are published; another host may publish them too");
                }
            }
        }
    }
}

/// Sweep, and again at once while a sweep was full, otherwise after a pause; an outage is said once.
async fn sweep<F>(duty: &'static str, pause: Duration, closing: &CancellationToken, mut once: impl FnMut() -> F)
where
    F: Future<Output = Result<u64, DbError>>,
{
    let mut trouble = false;
    loop {
        let rest = match once().await {
            Ok(done) => {
                if trouble {
                    tracing::info!(duty, "swept again");
                }
                trouble = false;
                if done >= u64::from(BATCH) { Duration::ZERO } else { pause }
            }
            Err(error) => {
                if !trouble {
                    tracing::warn!(duty, %error, "failed to sweep; trying on");
                }
                trouble = true;
                pause.max(Duration::from_secs(1))
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}
