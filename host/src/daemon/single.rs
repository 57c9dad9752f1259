//! What the command line does without a daemon: one plugin, one migration.

use super::connect;
use crate::config::{Services, Settings};
use crate::db::{Db, DbError, Migrated};
use crate::registry::{Registry, Runner};
use std::path::Path;
use std::sync::Arc;

/// One plugin: a folder or a component, under this machine's settings. An author wants to see source lines; otherwise the
/// compiled code is the daemon's own.
pub async fn plugin(
    settings: &Settings,
    path: &Path,
    source_lines: bool,
) -> Result<Arc<dyn Runner>, super::DaemonError> {
    // The compiled code is kept beside the daemon's, if that folder exists: nothing is made that was not asked for.
    let cache = settings.data.dir.is_dir().then(|| settings.data.dir.join("compiled"));
    let config = connect::registry(settings, cache, 1, source_lines)?;
    Ok(Registry::open(config, path).await.map_err(super::failed)?)
}

/// Why the database could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The schema does not fit this build.
    #[error("{0}")]
    Schema(String),
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Anything that cannot mend itself.
    #[error("{0}")]
    Configuration(String),
}

impl From<DbError> for MigrateError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Schema(text) => MigrateError::Schema(text),
            DbError::Unavailable(text) => MigrateError::Unavailable(text),
            other => MigrateError::Configuration(other.to_string()),
        }
    }
}

/// Bring the schema that the settings name up to date.
pub async fn migrate(settings: &Settings) -> Result<Migrated, MigrateError> {
    if let Services::Embedded = settings.services() {
        std::fs::create_dir_all(&settings.data.dir).map_err(|e| {
            MigrateError::Configuration(format!("data folder {}: {e}; check data.dir", settings.data.dir.display()))
        })?;
    }
    let db = connect::database(settings, &settings.data.dir, &super::build::host_name()).await?;
    let migrated = db.migrate().await?;
    db.check_schema().await?;
    Ok(migrated)
}

/// The database that the settings name, if its schema fits.
pub async fn database(settings: &Settings) -> Result<Arc<dyn Db>, MigrateError> {
    if let Services::Embedded = settings.services()
        && !settings.data.dir.join(connect::FILE).is_file()
    {
        // Opening it would make it.
        let place = settings.data.dir.display();
        return Err(MigrateError::Configuration(format!("there is no database in {place}; check data.dir")));
    }
    let db = connect::database(settings, &settings.data.dir, &super::build::host_name()).await?;
    db.check_schema().await?;
    Ok(db)
}
