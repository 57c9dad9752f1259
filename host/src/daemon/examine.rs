//! Services and plugins as a daemon with these settings would find them, for `agentry doctor`: connected to, and never changed.

use super::{DaemonError, connect, failed};
use crate::broker::BrokerError;
use crate::broker::amqp::AmqpBroker;
use crate::config::{Services, Settings};
use crate::db::postgres::PostgresDb;
use crate::db::sqlite::SqliteDb;
use crate::db::{Db, DbError, Examiner};
use crate::registry::{Catalog, PluginInfo, Registry};
use std::sync::Arc;
use std::time::Duration;

/// The time that one operation on the database may take at most.
const OPERATION: Duration = Duration::from_secs(5);

/// A database, whether its schema fits or not.
#[derive(Clone)]
pub struct Examined {
    /// Its operations.
    pub db: Arc<dyn Db>,
    /// Questions about itself.
    pub examiner: Arc<dyn Examiner>,
    /// Where it is, without secrets.
    pub place: String,
}

impl std::fmt::Debug for Examined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examined").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The database that the settings name. `None`: the embedded one, which no daemon has made yet.
///
/// # Errors
/// An address that leads nowhere.
pub fn examined(settings: &Settings) -> Result<Option<Examined>, DbError> {
    let mut options = connect::options(settings, &super::build::host_name())?;
    options.timeout = options.timeout.min(OPERATION);
    match settings.services() {
        Services::Embedded => {
            let file = settings.data.dir.join(connect::FILE);
            if !file.is_file() {
                // Opening it would make it.
                return Ok(None);
            }
            let db = Arc::new(SqliteDb::connect(&file, &options)?);
            Ok(Some(Examined { place: db.place(), db: db.clone(), examiner: db }))
        }
        Services::External { database, .. } => {
            let db = Arc::new(PostgresDb::connect(database.expose(), &options)?);
            Ok(Some(Examined { place: db.place(), db: db.clone(), examiner: db }))
        }
    }
}

/// The broker that the settings name, connected, with nothing declared or consumed. `None`: the queue is embedded.
///
/// # Errors
/// A broker that does not respond or that rejects this client.
pub async fn amqp(settings: &Settings) -> Result<Option<Arc<AmqpBroker>>, BrokerError> {
    let Services::External { broker, .. } = settings.services() else { return Ok(None) };
    let options = connect::amqp(settings, broker, &super::build::host_name());
    let options = options.map_err(|error| BrokerError::Refused(error.to_string()))?;
    Ok(Some(Arc::new(AmqpBroker::connect(options).await?)))
}

/// Every plugin of `plugins.dir`, loaded. Compiled code is kept for this call alone: another user's folder may not be used, and one that is made
/// here could not be used by the daemon's user. The record of the folders that plugins came from is read and not written.
///
/// # Errors
/// A folder that cannot be read, limits or grants that contradict each other.
pub async fn installed(settings: &Settings) -> Result<Vec<PluginInfo>, DaemonError> {
    let scratch = tempfile::tempdir().map_err(super::configuration)?;
    let compiled = scratch.path().join("compiled");
    let mut config = connect::registry(settings, Some(compiled), 1, false, connect::reach(settings, None)?)?;
    if let Some(record) = &config.origins {
        let copy = scratch.path().join("plugin-folders.json");
        let _ = std::fs::copy(record, &copy); // there is none before the first start
        config.origins = Some(copy);
    }
    Ok(Registry::start(config).await.map_err(failed)?.list())
}

/// Checks the operator's half of every grant; returns how many tables of policies there are.
///
/// # Errors
/// A name that is not configured, with those that are.
pub fn grants(settings: &Settings) -> Result<usize, DaemonError> {
    super::grants::policies(settings)?;
    connect::reach(settings, None)?;
    Ok(settings.plugins.rules.len())
}
