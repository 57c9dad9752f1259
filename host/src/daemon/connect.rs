//! From settings to running parts: which database, which broker, which plugins.

use super::data_folder::DataFolder;
use super::readiness::Readiness;
use super::{DaemonError, configuration};
use crate::broker::amqp::{AmqpBroker, AmqpOptions};
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::{Broker, BrokerError};
use crate::config::{Services, Settings};
use crate::db::postgres::PostgresDb;
use crate::db::sqlite::SqliteDb;
use crate::db::{Db, DbError};
use crate::registry::Registry;
use crate::task::HostId;
use std::sync::Arc;
use std::time::Duration;

/// The two seams, as settings chose them.
pub struct Connections {
    /// Where everything is recorded.
    pub db: Arc<dyn Db>,
    /// Where deliveries come from.
    pub broker: Arc<dyn Broker>,
}

/// Open both. What does not answer yet is no error here: see [`prepare`].
pub async fn open(settings: &Settings, folder: &DataFolder, name: &str) -> Result<Connections, DaemonError> {
    match settings.services() {
        Services::Embedded => {
            let db = SqliteDb::connect(&folder.path().join("agentry.sqlite"), settings.database.timeout).await?;
            let broker = EmbeddedBroker::open(&folder.path().join("queue.sqlite")).await.map_err(configuration)?;
            Ok(Connections { db: Arc::new(db), broker: Arc::new(broker) })
        }
        Services::External { broker, database } => {
            let db = PostgresDb::open(database.expose(), &settings.database)?;
            let options = AmqpOptions {
                url: broker.clone(),
                prefix: settings.broker.prefix.clone(),
                declare: settings.broker.declare,
                name: name.to_owned(),
            };
            Ok(Connections { db: Arc::new(db), broker: Arc::new(AmqpBroker::start(options)) })
        }
    }
}

/// Until both answer: the schema fits, the former owner's lease is over, the topology stands.
pub async fn prepare(
    settings: &Settings,
    db: &dyn Db,
    broker: &dyn Broker,
    former: Option<HostId>,
    readiness: &Readiness,
) -> Result<(), DaemonError> {
    if settings.database.migrate {
        let migrated = until_answered(readiness, "bring the schema up to date", || db.migrate()).await?;
        if migrated.from != migrated.to {
            tracing::info!(from = migrated.from, to = migrated.to, "schema brought up to date");
        }
    }
    until_answered(readiness, "check the schema", || db.check_schema()).await?;
    if let Some(former) = former {
        // This process has the data folder's lock: its former owner is dead, however long its lease still runs.
        until_answered(readiness, "end the former owner's lease", || db.end_lease(former)).await?;
    }
    let mut pause = Duration::from_millis(100);
    loop {
        match broker.declare(&settings.broker.queues).await {
            Ok(()) => return Ok(()),
            Err(BrokerError::Unavailable(why)) => waiting(readiness, "broker", &why, &mut pause).await,
            Err(BrokerError::Refused(why)) => return Err(DaemonError::Configuration(why)),
        }
    }
}

/// Call the database until it answers, or says what cannot mend itself.
pub async fn until_answered<T, F>(readiness: &Readiness, what: &str, call: impl Fn() -> F) -> Result<T, DaemonError>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match call().await {
            Err(DbError::Unavailable(why)) => {
                waiting(readiness, "database", &format!("failed to {what}: {why}"), &mut pause).await;
            }
            answer => return Ok(answer?),
        }
    }
}

async fn waiting(readiness: &Readiness, code: &'static str, why: &str, pause: &mut Duration) {
    tracing::warn!("waiting for the {code}: {why}");
    readiness.not(code, why);
    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
    *pause = (*pause * 2).min(Duration::from_secs(5));
}

/// The runtime on which guests run: as many threads as cores, apart from the host's own, so that the kernel shares the
/// processors fairly between the two.
pub fn guest_runtime(_settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_name("guests").enable_all().build()
}
