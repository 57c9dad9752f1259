//! What the command line does without a daemon: one plugin, one migration.

use super::{connect, data_folder};
use crate::config::{Services, Settings};
use crate::db::{Db, DbError, Migrated};
use crate::registry::{Registry, Runner};
use std::path::Path;
use std::sync::Arc;

/// One plugin for an author: a folder or a component, under this machine's settings. Traps tell source lines; what it
/// remembers is in `memory`, or gone with the answer's second part.
pub async fn plugin(
    settings: &Settings,
    path: &Path,
    memory: Option<&Path>,
) -> Result<(Arc<dyn Runner>, Option<tempfile::TempDir>), super::DaemonError> {
    let folder = match memory {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(super::configuration)?),
    };
    let file = match (memory, &folder) {
        (Some(file), _) => file.to_owned(),
        (None, Some(folder)) => folder.path().join(connect::FILE),
        (None, None) => return Err(super::configuration("there is no place for its memories")),
    };
    let db = connect::file(settings, &file)?;
    db.migrate().await?;
    Ok((open(settings, path, true, db).await?, folder))
}

/// One plugin for the isolation lane, whose compiled code and whose database are the daemon's own.
pub async fn isolated(settings: &Settings, path: &Path) -> Result<Arc<dyn Runner>, super::DaemonError> {
    let db = connect::database(settings, &settings.data.dir, &super::build::host_name()).await?;
    open(settings, path, false, db).await
}

async fn open(
    settings: &Settings,
    path: &Path,
    source_lines: bool,
    db: Arc<dyn Db>,
) -> Result<Arc<dyn Runner>, super::DaemonError> {
    // The compiled code is kept beside the daemon's, if that folder exists: nothing is made that was not asked for.
    let cache = settings.data.dir.is_dir().then(|| settings.data.dir.join("compiled"));
    let reach = connect::reach(settings, Some(db))?;
    let config = connect::registry(settings, cache, 1, source_lines, reach)?;
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
            DbError::Unavailable(text) | DbError::TimedOut(text) => MigrateError::Unavailable(text),
            other => MigrateError::Configuration(other.to_string()),
        }
    }
}

/// Bring the schema that the settings name up to date.
pub async fn migrate(settings: &Settings) -> Result<Migrated, MigrateError> {
    if let Services::Embedded = settings.services() {
        data_folder::make(&settings.data.dir).map_err(|e| MigrateError::Configuration(e.to_string()))?;
    }
    let db = connect::database(settings, &settings.data.dir, &super::build::host_name()).await?;
    db.check_service().await?;
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
    db.check_service().await?;
    db.check_schema().await?;
    Ok(db)
}
