//! Checks of the way to Postgres: a pooler that shares connections among its clients, and limits of connections.
//!
//! A daemon needs connections of its own: settings of a session, statements that were prepared, locks of a session. A pooler in session
//! mode gives them. One in transaction mode gives another one for each transaction, and settings would reach its other clients. So this
//! is found out before anything is set, on two connections that change nothing.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::flight::Line;
use super::connect::{BESIDES, OF_LEASE};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres, Row, raw_sql};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Connections below which a daemon cannot work: for its lease, its path, its reads and its guests.
const LEAST: i64 = 6;
/// Rounds of the comparison: a pooler may give the same connection by chance.
const ROUNDS: usize = 4;

/// Checks the way to the database; `path` leads there.
pub(super) async fn check(path: &Line<Postgres>, patience: Duration) -> Result<(), Fault> {
    let (options, place) = (path.pool.connect_options(), &path.place);
    let needed = path.pool.options().get_max_connections() + OF_LEASE + 2 * BESIDES;
    let mut one = connect(&options, place, patience).await?;
    let mut other = connect(&options, place, patience).await?;
    limits(&mut one, needed).await?;
    let shared = is_shared(&mut one, &mut other, patience).await;
    // They are closed either way.
    let _ = one.close().await;
    let _ = other.close().await;
    match shared? {
        false => Ok(()),
        true => Err(Fault::Refused(format!(
            "database.url leads to a pooler in transaction mode (at {place}), which gives each transaction another connection; use one in \
             session mode (PgBouncer: pool_mode = session), or the address of the database itself"
        ))),
    }
}

async fn connect(options: &PgConnectOptions, place: &Arc<str>, patience: Duration) -> Result<PgConnection, Fault> {
    match timeout(patience, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Fault::Connect(place.clone(), error)),
        Err(_) => Err(Fault::Busy(format!(
            "{place} gave no connection within {patience:?}; if that is a pooler, its pool may be exhausted"
        ))),
    }
}

/// Whether one connection is served by several of the server.
async fn is_shared(one: &mut PgConnection, other: &mut PgConnection, patience: Duration) -> Result<bool, Fault> {
    let mut servers = Vec::new();
    for _ in 0..ROUNDS {
        servers.push(server(other).await?);
        // What was used last is taken first: in transaction mode this takes the connection that the other had.
        raw_sql("BEGIN").execute(&mut *one).await?;
        let after = timeout(patience, server(other)).await;
        raw_sql("ROLLBACK").execute(&mut *one).await?;
        servers.push(
            after.map_err(|_| Fault::Busy("a second connection waits for the first one's transaction".into()))??,
        );
    }
    Ok(servers.iter().any(|server| *server != servers[0]))
}

/// The process of the server that answers. No statement is prepared.
async fn server(connection: &mut PgConnection) -> Result<i32, Fault> {
    Ok(raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)?)
}

/// Rejects a limit of connections that is below what this daemon may open.
async fn limits(connection: &mut PgConnection, needed: u32) -> Result<(), Fault> {
    let row = raw_sql(
        "SELECT current_user::text AS role, current_database()::text AS database, r.rolsuper AS superuser,
            r.rolconnlimit::bigint AS of_role, d.datconnlimit::bigint AS of_database,
            current_setting('max_connections')::bigint AS of_server
        FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
        WHERE r.rolname = current_user AND d.datname = current_database()",
    )
    .fetch_optional(connection)
    .await?;
    // A service that only resembles Postgres may not have it.
    let Some(row) = row else { return Ok(()) };
    let superuser: bool = row.try_get("superuser")?;
    let (role, database) = (row.text("role")?.unwrap_or_default(), row.text("database")?.unwrap_or_default());
    let limit = |name| need(row.int(name)?, name);
    for (limit, what, remedy) in [
        (if superuser { -1 } else { limit("of_role")? }, format!("role {role:?}"), "ALTER ROLE … CONNECTION LIMIT"),
        (
            if superuser { -1 } else { limit("of_database")? },
            format!("database {database:?}"),
            "ALTER DATABASE … CONNECTION LIMIT",
        ),
        (limit("of_server")?, "the server".to_owned(), "max_connections"),
    ] {
        if (0..i64::from(needed)).contains(&limit) {
            let text = format!(
                "{what} allows {limit} connections, and a daemon opens up to {needed} (database.pool and 10 more); raise it \
                 ({remedy}) to {needed} for each daemon, or lower database.pool"
            );
            // Connections are opened as they are needed: with more than these few it works for as long as there is little to do.
            if limit < LEAST {
                return Err(Fault::Refused(text));
            }
            tracing::warn!("{text}");
        }
    }
    Ok(())
}
