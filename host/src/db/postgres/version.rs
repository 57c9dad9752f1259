//! The schema's version, as it is read.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::schema::{self, Applied, BUILD, POSTGRES};
use super::super::{SchemaName, SchemaVersion, rows};
use sqlx::{PgConnection, query};

statements! {
    ENCODING = "SELECT current_database()::text AS name, current_setting('server_encoding') AS encoding";
    TABLES = "SELECT c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
}

/// Statements that need the version table.
pub(super) mod versions {
    statements! {
        READ = "SELECT version, name, checksum, min_build FROM schema_version ORDER BY version";
    }
}

/// Refuse a database that does not store every text: a task or a message with another character would be rejected, and
/// `SQL_ASCII` stores bytes without a meaning.
pub(super) async fn expect_utf8(connection: &mut PgConnection) -> Result<(), Fault> {
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

pub(super) async fn check(connection: &mut PgConnection, schema: &SchemaName) -> Result<SchemaVersion, Fault> {
    expect_utf8(connection).await?;
    let applied = applied(connection, schema).await?;
    let version = schema::check(POSTGRES, &applied, BUILD)?;
    schema::expect_tables(&place(schema), &tables(connection, schema).await?)?;
    Ok(version)
}

pub(super) async fn applied(connection: &mut PgConnection, schema: &SchemaName) -> Result<Vec<Applied>, Fault> {
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
    rows.iter().map(rows::applied).collect()
}

async fn tables(connection: &mut PgConnection, schema: &SchemaName) -> Result<Vec<String>, Fault> {
    let rows = query(TABLES).bind(schema.as_str()).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.text("name")?, "name")).collect()
}

fn place(schema: &SchemaName) -> String {
    format!("the schema {schema}")
}
