//! One operation on one connection, bounded in time and never cancelled half-way.
//!
//! A future that is dropped inside `begin` or a statement leaves its connection in a state that nobody knows. So an
//! operation runs in a task of its own, and the caller's time-out is around that task's handle. What still runs long
//! after is dropped together with its connection, which is closed and not used again.

use super::DbError;
use super::fault::Fault;
use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Pool};
use std::sync::Arc;
use std::time::Duration;

/// Times an operation is tried when others are in its way.
const TRIES: u32 = 4;

/// How long the wait for a connection may be, of an operation's time: what is left is for telling why there was none.
pub(super) fn acquire_timeout(limit: Duration) -> Duration {
    limit * 3 / 4
}

/// Connections, and the place they lead to, as errors name it.
#[derive(Debug)]
pub(super) struct Line<DB: Database> {
    pub pool: Pool<DB>,
    pub place: Arc<str>,
}

impl<DB: Database> Clone for Line<DB> {
    fn clone(&self) -> Self {
        Line { pool: self.pool.clone(), place: self.place.clone() }
    }
}

impl<DB: Database> Line<DB> {
    async fn acquire(&self, limit: Duration) -> Result<PoolConnection<DB>, Fault> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            // The pool keeps trying while nobody listens, and then knows no reason. One more attempt tells it.
            Err(sqlx::Error::PoolTimedOut) => {
                let options = self.pool.connect_options();
                match tokio::time::timeout(limit / 8, DB::Connection::connect_with(&options)).await {
                    Ok(Ok(connection)) => {
                        drop(connection);
                        Err(Fault::Busy(format!("every connection to {} is in use", self.place)))
                    }
                    Ok(Err(error)) => Err(Fault::Connect(self.place.clone(), error)),
                    Err(_) => Err(Fault::Busy(format!("no answer from {}", self.place))),
                }
            }
            Err(error) => Err(Fault::Connect(self.place.clone(), error)),
        }
    }
}

/// Run `operation` on a connection of `line` within `limit`. `what` names it in errors.
pub(super) async fn fly<DB, T, F>(
    line: &Line<DB>,
    limit: Duration,
    what: &'static str,
    operation: F,
) -> Result<T, DbError>
where
    DB: Database,
    T: Send + 'static,
    F: for<'c> Fn(&'c mut DB::Connection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
{
    let line = line.clone();
    let flight = tokio::spawn(async move {
        let mut connection = line.acquire(limit).await?;
        let mut tries = 1;
        loop {
            match tokio::time::timeout(limit * 2, operation(&mut connection)).await {
                Ok(Err(fault)) if fault.is_contention() && tries < TRIES => {
                    tracing::debug!(what, tries, reason = %fault.reason(), "somebody was in the way, trying again");
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..20u64 << tries))).await;
                    tries += 1;
                }
                Ok(result) => return result,
                Err(_) => {
                    drop(connection.detach());
                    return Err(Fault::Busy(format!(
                        "{what} did not end within {limit:?} and its connection was closed"
                    )));
                }
            }
        }
    });
    match tokio::time::timeout(limit, flight).await {
        Ok(Ok(result)) => result.map_err(DbError::from),
        Ok(Err(panicked)) => Err(DbError::Defect(format!("{what}: {panicked}"))),
        Err(_) => Err(DbError::Unavailable(format!("{what} took longer than {limit:?} (database.timeout_seconds)"))),
    }
}
