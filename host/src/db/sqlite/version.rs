//! The schema's version: applied in one transaction, by one process at a time, and read back.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::schema::{self, Applied, BUILD, SQLITE};
use super::super::{Migrated, SchemaVersion, rows};
use super::transition::now;
use sqlx::{Connection, SqliteConnection, query, raw_sql};

/// How errors name the file.
const PLACE: &str = "the database file";

statements! {
    TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')";
    CREATE_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (
        version    integer NOT NULL PRIMARY KEY,
        name       text    NOT NULL,
        checksum   text    NOT NULL,
        min_build  text    NOT NULL,
        applied_at text    NOT NULL,
        applied_by text    NOT NULL) STRICT";
}

/// Statements that need the version table.
pub(super) mod versions {
    statements! {
        READ = "SELECT version, name, checksum, min_build FROM schema_version ORDER BY version";
        WRITE = "INSERT INTO schema_version (version, name, checksum, min_build, applied_by, applied_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    }
}

pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<Migrated, Fault> {
    let mut tx = connection.begin_with("BEGIN EXCLUSIVE").await.map_err(|error| match Fault::from(error) {
        fault if fault.is_outage() => {
            Fault::Busy(format!("{PLACE} is locked by another process ({}); end it and migrate again", fault.reason()))
        }
        fault => fault,
    })?;
    let applied = applied(&mut tx).await?;
    let pending = schema::pending(SQLITE, &applied, BUILD)?;
    if !pending.is_empty() {
        query(CREATE_VERSIONS).execute(&mut *tx).await?;
    }
    for migration in pending {
        raw_sql(migration.sql).execute(&mut *tx).await?;
        query(versions::WRITE)
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .bind(migration.min_build()?)
            .bind(BUILD)
            .bind(stamp(now()))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    let to = check(connection).await?;
    Ok(Migrated { from: schema::version(&applied), to })
}

pub(super) async fn check(connection: &mut SqliteConnection) -> Result<SchemaVersion, Fault> {
    let applied = applied(connection).await?;
    let version = schema::check(SQLITE, &applied, BUILD)?;
    schema::expect_tables(PLACE, &tables(connection).await?)?;
    Ok(version)
}

pub(super) async fn applied(connection: &mut SqliteConnection) -> Result<Vec<Applied>, Fault> {
    let tables = tables(connection).await?;
    if !tables.iter().any(|table| table == schema::VERSION_TABLE) {
        schema::refuse_foreign(PLACE, &tables)?;
        return Ok(Vec::new());
    }
    let rows = query(versions::READ).fetch_all(connection).await.map_err(|error| match error {
        sqlx::Error::Database(_) => {
            Fault::Schema(format!("{PLACE} holds a table {} that is not Agentry's", schema::VERSION_TABLE))
        }
        other => other.into(),
    })?;
    rows.iter().map(rows::applied).collect()
}

async fn tables(connection: &mut SqliteConnection) -> Result<Vec<String>, Fault> {
    let rows = query(TABLES).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.text("name")?, "name")).collect()
}
