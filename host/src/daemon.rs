//! The daemon's whole life on one screen, and the one place that names concrete brokers and databases.
//!
//! Settings, the data folder, the port and the plugins are settled first: what is wrong there cannot mend itself, and ends
//! the process at once. The API is up before plugins are compiled, which may take minutes. A broker or database that does not
//! answer is waited for, loudly. `/readyz` says what is missing.

mod again;
mod build;
mod connect;
mod data_folder;
mod examine;
mod exposed;
mod files;
mod grants;
pub mod isolation;
mod private;
mod readiness;
mod single;
mod stalled;
mod threads;
mod watched;

pub use again::program;
pub use build::BUILD;
pub use connect::{check, publisher, reach};
pub use data_folder::{DataFolder, DataFolderError};
pub use examine::{Examined, amqp, examined, grants, installed};
pub use exposed::warnings as exposed;
pub use files::{needed as needed_files, raised as raised_files};
pub use private::{drop_capabilities, protect};
pub use single::{MigrateError, database, migrate, plugin};

use crate::api;
use crate::brakes::InForce;
use crate::broker::Broker;
use crate::config::{Ack, Settings};
use crate::db::{DbError, HostRecord};
use crate::maintenance::{self, MaintenanceConfig};
use crate::metrics::{Counted, Metrics};
use crate::registry::{Catalog, Late, MemoryBudget, Registry, Turns};
use crate::shutdown::Requests;
use crate::telemetry;
use crate::worker::lease::{Keeper, Lease};
use crate::worker::{self, Drained, Grace, Remote, WindowConfig, Worker, WorkerConfig};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Time that is kept at the end of a shutdown for threads that cannot be stopped.
pub const LAST: Duration = Duration::from_millis(500);

/// The longest that a shutdown waits for its duties, and half of what is left of it at most: the lease and the connections need some.
const DUTIES: Duration = Duration::from_secs(2);

/// Why the daemon did not start, or how it ended if not well.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Settings, credentials, topology, plugins, the data folder, the port: exit code 2.
    #[error("{0}")]
    Configuration(String),
    /// The schema does not fit: exit code 4.
    #[error("{0}")]
    Schema(String),
    /// It ended without having recorded everything that ran: exit code 5. Nothing is lost: see [`worker::spool`].
    #[error(
        "drained dirtily: {0} tasks that ran could not be recorded; the next start with this data.dir records them from the \
         spool, and otherwise the broker delivers them again, as whatever else was not acknowledged"
    )]
    Dirty(usize),
    /// It was told to end twice: exit code 5.
    #[error("ended at once by a second {0}; what ran is delivered again")]
    Hurried(&'static str),
}

impl DaemonError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Configuration(_) => 2,
            DaemonError::Schema(_) => 4,
            DaemonError::Dirty(_) | DaemonError::Hurried(_) => 5,
        }
    }
}

impl From<DbError> for DaemonError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Schema(text) => DaemonError::Schema(text),
            other => DaemonError::Configuration(other.to_string()),
        }
    }
}

fn configuration(error: impl std::fmt::Display) -> DaemonError {
    DaemonError::Configuration(error.to_string())
}

/// An error that reads after "failed to".
fn failed(error: impl std::fmt::Display) -> DaemonError {
    DaemonError::Configuration(format!("failed to {error}"))
}

/// Run until asked to end.
pub async fn run(settings: Settings, again: isolation::Again) -> Result<(), DaemonError> {
    let born = Instant::now();
    for line in settings.startup_lines() {
        tracing::info!("{line}");
    }
    for warning in settings.warnings.iter().cloned().chain(exposed::warnings(&settings)) {
        tracing::warn!("{warning}");
    }
    files::raise(settings.worker.slots, settings.api.connections);
    let mut requests = Requests::listen().map_err(configuration)?;
    let host = uuid::Uuid::now_v7();
    let name = build::host_name();

    // What cannot mend itself.
    let mut folder = DataFolder::open(&settings.data.dir).map_err(configuration)?;
    let certificate = settings.api.tls.as_ref().map(|tls| api::Certificate::load(&tls.certificate, &tls.key));
    let certificate = certificate.transpose().map_err(failed)?;
    // Dropped last: connections to the database that a request opened belong to it.
    let front = threads::Threads::start().map_err(configuration)?;
    let listener = api::Listener::bind(settings.api.listen, settings.api.connections, certificate.clone());
    let listener = front.handle().spawn(listener).await.map_err(configuration)?.map_err(failed)?;
    let url = listener.url().map_err(configuration)?;
    let tokens = api::Tokens::load(settings.api.tokens_file.as_deref()).map_err(failed)?;
    let connections = connect::open(&settings, &folder, &name).await?;
    let (db, broker) = (connections.db, connections.broker);
    let reach = connect::reach(&settings, Some(db.clone()))?;
    let tools = reach.tools.clone();
    let compiled = folder.path().join("compiled");
    let plugins = connect::registry(&settings, Some(compiled), settings.worker.slots, false, reach)?;

    // The front door, from now on: it says what is missing.
    let closing = CancellationToken::new();
    let readiness = readiness::Readiness::loading();
    let late = Arc::new(Late::default());
    let wake = Arc::new(tokio::sync::Notify::new());
    let settled = tokio::sync::watch::Sender::new(0);
    let remote: Arc<OnceLock<Remote>> = Arc::default();
    let memory = MemoryBudget::measured(settings.worker.memory_mib << 20);
    let turns = Turns::new(settings.worker.computing);
    let busy = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let brakes = InForce::default();
    let metrics = Arc::new(Metrics::knowing(
        settings.worker.slots,
        busy.clone(),
        memory.clone(),
        turns.clone(),
        &settings.broker.queues,
        settings.prices.clone(),
    ));
    let broker: Arc<dyn Broker> = Arc::new(Counted::new(broker, metrics.clone()));
    let lease = Lease::of_this_machine();
    let watched = watched::Watched { db: db.clone(), broker: broker.clone(), readiness: readiness.subscribe() };
    metrics.watch(watched.sources(lease.clone(), remote.clone(), folder.path()));
    let state = api::ApiState::new(api::Parts {
        path: tokio::runtime::Handle::current(),
        db: db.clone(),
        catalog: late.clone(),
        broker: broker.clone(),
        metrics: metrics.clone(),
        brakes: brakes.clone(),
        readiness: readiness.subscribe(),
        queues: settings.broker.queues.clone(),
        message_limits: settings.message_limits(),
        body_bytes: settings.api.body_bytes,
        connections: settings.api.connections,
        max_attempts: settings.retry.policy.max_attempts,
        outbox: wake.clone(),
        settled: settled.subscribe(),
        tokens: tokens.clone(),
    })
    .stopping_with({
        let remote = remote.clone();
        Arc::new(move |id| remote.get().into_iter().for_each(|worker| worker.stop(id)))
    });
    let door = front.handle().spawn(api::serve(listener, state, closing.clone().cancelled_owned()));

    let registry = tokio::select! {
        started = Registry::start(plugins) => started.map_err(failed)?,
        signal = requests.next() => {
            tracing::info!(signal, "asked to end while plugins were compiled");
            return Ok(());
        }
    };
    tracing::info!(took = ?born.elapsed(), "plugins loaded");
    let catalog: Arc<dyn Catalog> = Arc::new(registry.clone());
    #[cfg(feature = "failpoints")]
    let catalog = crate::failpoints::catalog(catalog);
    late.load(catalog.clone());
    readiness.loaded();

    // Broker and database, for as long as it takes.
    let prepare = connect::prepare(&settings, &*db, &*broker, &folder, &readiness);
    tokio::select! {
        prepared = prepare => prepared?,
        signal = requests.next() => {
            tracing::info!(signal, "asked to end before anything began");
            return Ok(());
        }
    }
    folder.own(host).map_err(configuration)?;

    // The path, the lease that it acts under, and the duties.
    let guests = connect::Guests::start().map_err(configuration)?;
    let steady = lease.clone();
    let parts = worker::Parts {
        broker: broker.clone(),
        db: db.clone(),
        catalog: catalog.clone(),
        isolation: Arc::new(isolation::Children::new(again)),
        guests: guests.handle.clone(),
        memory,
        turns,
        metrics: metrics.clone(),
        brakes: brakes.clone(),
        chance: Arc::new(rand::random::<f64>),
    };
    let (letters, replies) = (tokio::sync::watch::Sender::new(()), tokio::sync::watch::Sender::new(()));
    let config = WorkerConfig {
        host,
        queues: settings.broker.queues.clone(),
        slots: settings.worker.slots,
        queue_slots: settings.queues.iter().filter_map(|(name, q)| Some((name.clone(), q.slots?))).collect(),
        ack_when_claimed: settings
            .queues
            .iter()
            .filter(|(_, queue)| queue.ack == Ack::Claimed)
            .map(|(name, _)| name.clone())
            .collect(),
        spool: Some(folder.path().join("spool")),
        window: WindowConfig::of(settings.worker.computing.min(settings.worker.slots)),
        waits: settings.broker.url.is_some().then_some(settings.broker.consumer_timeout / 2),
        lanes: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        message_limits: settings.message_limits(),
        claim_after: settings.worker.claim_after,
        max_snoozes: settings.retry.max_snoozes,
        grace: Grace::of(settings.shutdown.grace),
        settled,
        letters: letters.clone(),
        replies: replies.clone(),
    };
    let keeper = Keeper {
        db: db.clone(),
        record: record(host, name, &settings, catalog.clone(), busy.clone(), brakes.clone()),
        ttl: settings.lease.ttl,
        lease: lease.clone(),
        brakes: brakes.clone(),
    };
    let grace = config.grace;
    let starting = async {
        connect::until_answered(&readiness, "read the brakes", || keeper.heed()).await?;
        connect::until_answered(&readiness, "register this host", || keeper.register()).await?;
        Worker::start(parts, config, lease, busy).await.map_err(configuration)
    };
    let worker = tokio::select! {
        started = starting => started?,
        signal = requests.next() => {
            tracing::info!(signal, "asked to end before anything began");
            return Ok(());
        }
    };
    let _ = remote.set(worker.remote());
    let lease_end = CancellationToken::new();
    let keeping = tokio::spawn(keeper.run(worker.remote(), lease_end.clone()));
    let unpublished = tokio::sync::watch::Sender::new(None);
    let unpublished_letters = tokio::sync::watch::Sender::default();
    let duties = maintenance::start(
        &maintenance::Parts {
            db: db.clone(),
            broker: broker.clone(),
            outbox: wake,
            unpublished: unpublished.clone(),
            letters,
            queues: settings.broker.queues.clone(),
            unpublished_letters: unpublished_letters.clone(),
            replies,
            brakes: brakes.clone(),
            metrics: metrics.clone(),
            steady: Arc::new(move || steady.is_steady()),
        },
        MaintenanceConfig {
            lease: settings.lease.ttl,
            unknown_grace: settings.plugins.unknown_grace,
            retention: settings.retention,
            pending: Some(watched.pending(host, &settings)),
        },
        &closing,
    );
    let stalled = tokio::sync::watch::Sender::default();
    let watched = worker.watched();
    let besides = readiness::Besides {
        stalled: stalled.subscribe(),
        tokens,
        certificate,
        tools: tools.clone(),
        broker: broker.clone(),
        unpublished: unpublished.subscribe(),
        letters: unpublished_letters.subscribe(),
    };
    let looking = stalled::watch(watched.consuming.clone(), worker.remote(), broker.clone(), stalled, closing.clone());
    tokio::spawn(looking);
    let watching = tokio::spawn(readiness::watch(readiness.clone(), broker.health(), watched, besides, move || {
        // A person and a script wait for this line; it is written once, whatever the log level.
        telemetry::say(&format!("ready {url}"));
        tracing::info!(took = ?born.elapsed(), "ready");
    }));

    let signal = requests.next().await;
    let end = Instant::now() + grace.whole - LAST;
    tracing::info!(signal, grace = ?grace.whole, "draining; a second signal ends at once");
    readiness.closing();
    let ending = async {
        let drained = worker.drain().await;
        watching.abort();
        closing.cancel();
        let closed = async {
            let left = end.saturating_duration_since(Instant::now());
            if !duties.end((left / 2).min(DUTIES)).await {
                tracing::info!(
                    "dead letters and replies that are not published yet are left to other hosts, or to the next start"
                );
            }
            broker.close().await;
            if let Some(tools) = tools {
                tools.close().await;
            }
            lease_end.cancel();
            let _ = keeping.await;
            if let Err(error) = db.end_lease(host).await {
                tracing::warn!(%error, "failed to end the lease; it expires by itself");
            }
            let _ = tokio::time::timeout(Duration::from_secs(2), door).await;
        };
        if tokio::time::timeout_at(end.into(), closed).await.is_err() {
            tracing::warn!("shutdown.grace_seconds is over: connections are closed without a farewell");
        }
        drained
    };
    let drained = tokio::select! {
        drained = ending => drained,
        signal = requests.next() => return Err(DaemonError::Hurried(signal)),
    };
    drop(guests);
    drop(registry);
    match drained {
        Drained::Cleanly => {
            tracing::info!("drained cleanly");
            Ok(())
        }
        Drained::Dirtily { unsettled } => Err(DaemonError::Dirty(unsettled)),
    }
}

/// What this host says of itself, asked anew at each renewal.
fn record(
    id: crate::task::HostId,
    name: String,
    settings: &Settings,
    catalog: Arc<dyn Catalog>,
    busy: Arc<std::sync::atomic::AtomicU32>,
    brakes: InForce,
) -> Box<dyn Fn() -> HostRecord + Send + Sync> {
    let (settings_digest, queues, slots) = (settings.digest(), settings.broker.queues.clone(), settings.worker.slots);
    Box::new(move || {
        let served = catalog.served();
        HostRecord {
            id,
            name: name.clone(),
            build: BUILD.into(),
            settings_digest: settings_digest.clone(),
            queues: queues.clone(),
            plugins: served.plugins,
            broken_plugins: served.broken,
            slots,
            busy: busy.load(std::sync::atomic::Ordering::Relaxed),
            brakes: Some(brakes.now().change),
        }
    })
}
