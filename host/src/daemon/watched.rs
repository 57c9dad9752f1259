//! Where metrics and warnings look: the parts of a running daemon, as those layers see them.

use super::BUILD;
use crate::api::readiness::Readiness;
use crate::broker::Broker;
use crate::config::Settings;
use crate::db::Db;
use crate::explain::{Places, Responding};
use crate::maintenance::PendingConfig;
use crate::metrics::{ReadyFacts, Sources};
use crate::task::HostId;
use crate::telemetry;
use crate::worker::Remote;
use crate::worker::lease::Lease;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// The parts.
pub struct Watched {
    pub db: Arc<dyn Db>,
    pub broker: Arc<dyn Broker>,
    pub readiness: watch::Receiver<Readiness>,
}

impl Watched {
    /// Levels of the metrics.
    pub fn sources(&self, lease: Lease, worker: Arc<OnceLock<Remote>>, folder: &Path) -> Sources {
        let (db, health, readiness) = (self.db.clone(), self.broker.health(), self.readiness.clone());
        Sources {
            build: BUILD.into(),
            pools: Box::new(move || db.pools()),
            lease: Box::new(move || lease.facts()),
            ready: Box::new(move || {
                let readiness = readiness.borrow();
                let reasons = readiness.reasons.iter().map(|reason| reason.code.clone()).collect();
                ReadyFacts { ready: readiness.ready, reasons }
            }),
            broker_up: Box::new(move || health.borrow().is_up()),
            window: Box::new(move || worker.get().map_or(0, Remote::window)),
            dropped_lines: Box::new(|| telemetry::dropped() as u64),
            spool: folder.join("spool"),
        }
    }

    /// The look at what waits. It explains as `GET /v1/tasks/{id}/explain` does.
    pub fn pending(&self, host: HostId, settings: &Settings) -> PendingConfig {
        let (db, broker, readiness) = (self.db.clone(), self.broker.clone(), self.readiness.clone());
        let queues = settings.broker.queues.clone();
        let places = move || {
            let readiness = readiness.borrow().clone();
            let reasons = readiness.reasons.into_iter().map(|reason| (reason.code, reason.message));
            Places {
                db: Ok(db.clone()),
                broker: Ok(broker.clone()),
                queues: queues.clone(),
                daemon: Some(Responding { ready: readiness.ready, reasons: reasons.collect() }),
                embedded: false,
            }
        };
        PendingConfig { host, warn_after: settings.log.warn_pending_after, places: Arc::new(places) }
    }
}
