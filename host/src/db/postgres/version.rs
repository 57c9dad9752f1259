//! The schema's version: applied in one transaction, by one process at a time, and read back.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::schema::{self, Applied, BUILD, POSTGRES};
use super::super::{Migrated, SchemaName, SchemaVersion};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, query, raw_sql};

statements! {
    /// Ends with the transaction. One key per schema, so that two schemas of one database do not wait for each other.
    LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('agentry migrates ' || $1, 0))";
    /// A migration may take longer than an operation; the caller bounds it.
    PATIENCE = "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '300000', true)";
    ENCODING = "SELECT current_database()::text AS name, current_setting('server_encoding') AS encoding";
    SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    TABLES = "SELECT c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
    CREATE_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (
        version    bigint      NOT NULL PRIMARY KEY,
        name       text        NOT NULL,
        checksum   text        NOT NULL,
        min_build  text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        applied_by text        NOT NULL)";
}

/// Statements that need the version table.
pub(super) mod versions {
    statements! {
        READ = "SELECT version, name, checksum, min_build FROM schema_version ORDER BY version";
        WRITE = "INSERT INTO schema_version (version, name, checksum, min_build, applied_by) VALUES ($1, $2, $3, $4, $5)";
    }
}

/// Refuse a database that does not store every text: a task or a message with another character would be rejected, and
/// `SQL_ASCII` stores bytes without a meaning.
async fn expect_utf8(connection: &mut PgConnection) -> Result<(), Fault> {
    let row = query(ENCODING).fetch_one(connection).await?;
    let (name, encoding) = (need(row.text("name")?, "name")?, need(row.text("encoding")?, "encoding")?);
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(Fault::Schema(format!(
        "the database {name} has the encoding {encoding}, and agentry needs UTF8: create another one with `CREATE DATABASE \
         NAME ENCODING 'UTF8' TEMPLATE template0`, with LOCALE 'C.UTF-8' if the server's locale has another encoding, and \
         name it in database.url"
    )))
}

pub(super) async fn migrate(connection: &mut PgConnection, schema: &SchemaName) -> Result<Migrated, Fault> {
    expect_utf8(connection).await?;
    let mut tx = connection.begin().await?;
    query(PATIENCE).execute(&mut *tx).await?;
    query(LOCK).bind(schema.as_str()).execute(&mut *tx).await?;
    // Asked first, since CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even if it exists.
    let exists: bool = query(SCHEMA_EXISTS).bind(schema.as_str()).fetch_one(&mut *tx).await?.try_get(0)?;
    if !exists {
        // A name of lower-case letters, digits and underscores.
        raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\""))).execute(&mut *tx).await?;
    }
    let applied = applied(&mut tx, schema).await?;
    let pending = schema::pending(POSTGRES, &applied, BUILD)?;
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
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    let to = check(connection, schema).await?;
    Ok(Migrated { from: schema::version(&applied), to })
}

pub(super) async fn check(connection: &mut PgConnection, schema: &SchemaName) -> Result<SchemaVersion, Fault> {
    expect_utf8(connection).await?;
    let applied = applied(connection, schema).await?;
    let version = schema::check(POSTGRES, &applied, BUILD)?;
    schema::expect_tables(&place(schema), &tables(connection, schema).await?)?;
    Ok(version)
}

async fn applied(connection: &mut PgConnection, schema: &SchemaName) -> Result<Vec<Applied>, Fault> {
    let tables = tables(connection, schema).await?;
    if !tables.iter().any(|table| table == schema::VERSION_TABLE) {
        schema::refuse_foreign(&place(schema), &tables)?;
        return Ok(Vec::new());
    }
    let rows = query(versions::READ).fetch_all(connection).await.map_err(|error| match error {
        sqlx::Error::Database(_) => {
            Fault::Schema(format!("{} holds a table {} that is not Agentry's", place(schema), schema::VERSION_TABLE))
        }
        other => other.into(),
    })?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: need(row.int("version")?, "version")?,
                name: need(row.text("name")?, "name")?,
                checksum: need(row.text("checksum")?, "checksum")?,
                min_build: need(row.text("min_build")?, "min_build")?,
            })
        })
        .collect()
}

async fn tables(connection: &mut PgConnection, schema: &SchemaName) -> Result<Vec<String>, Fault> {
    let rows = query(TABLES).bind(schema.as_str()).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.text("name")?, "name")).collect()
}

fn place(schema: &SchemaName) -> String {
    format!("the schema {schema}")
}
