//! One operation on one connection, bounded in time and never cancelled half-way.
//!
//! A future that is dropped inside `begin` or a statement leaves its connection in a state that nobody knows. So an
//! operation runs in a task of its own, and the caller's time-out is around that task's handle. What still runs long
//! after is dropped together with its connection, which is closed and not used again.

use super::fault::Fault;
use super::{DbError, PoolFacts};
use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Pool};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
    /// Operations that wait for a connection.
    pub waiting: Arc<AtomicU32>,
}

/// Counts an operation that waits, until it is dropped.
struct InLine<'w>(&'w AtomicU32);

impl<'w> InLine<'w> {
    fn of(waiting: &'w AtomicU32) -> InLine<'w> {
        waiting.fetch_add(1, Ordering::Relaxed);
        InLine(waiting)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<DB: Database> Clone for Line<DB> {
    fn clone(&self) -> Self {
        Line { pool: self.pool.clone(), place: self.place.clone(), waiting: self.waiting.clone() }
    }
}

impl<DB: Database> Line<DB> {
    /// Its use under this name.
    pub fn facts(&self, name: &'static str) -> PoolFacts {
        let open = self.pool.size();
        PoolFacts {
            name,
            max: self.pool.options().get_max_connections(),
            open,
            used: open.saturating_sub(u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX)),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Returns a connection after a ping. Drops those that the server closed, and those whose ping times out, as after a failover:
    /// TCP itself gives up only after many minutes, and the connection would occupy its place in the pool.
    async fn tested(&self, limit: Duration) -> Result<PoolConnection<DB>, Fault> {
        loop {
            let mut connection = self.acquire(limit).await?;
            match tokio::time::timeout(limit / 4, connection.ping()).await {
                Ok(Ok(())) => return Ok(connection),
                // The pool shrinks with each of these, and a new connection proves itself when it is made.
                Ok(Err(_)) | Err(_) => drop(connection.detach()),
            }
        }
    }

    pub async fn acquire(&self, limit: Duration) -> Result<PoolConnection<DB>, Fault> {
        let acquired = {
            let _in_line = InLine::of(&self.waiting);
            self.pool.acquire().await
        };
        match acquired {
            Ok(connection) => Ok(connection),
            // The pool keeps trying while nobody listens, and then knows no reason. One more attempt tells it.
            Err(sqlx::Error::PoolTimedOut) => {
                let options = self.pool.connect_options();
                match tokio::time::timeout(limit / 8, DB::Connection::connect_with(&options)).await {
                    Ok(Ok(connection)) => {
                        drop(connection);
                        Err(Fault::Busy(format!(
                            "every connection to {} is in use (raise database.pool, or the pool of a pooler in between)",
                            self.place
                        )))
                    }
                    Ok(Err(error)) => Err(Fault::Connect(self.place.clone(), error)),
                    Err(_) => Err(Fault::Busy(format!("no answer from {}", self.place))),
                }
            }
            Err(error) => Err(Fault::Connect(self.place.clone(), error)),
        }
    }
}

/// Whether a connection is tried before an operation is given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is: the operation may not be repeatable, and a server that restarted is not to cost it.
    Tested,
    /// It is, and it is closed afterwards, however the operation ends: what its session holds is not to stay behind in the pool.
    Once,
    /// It is not: the operation is called again and again, a round trip each time would show, and it gives the right answer
    /// when it is repeated. If the connection turns out to be gone, it is repeated on one that was tried.
    Repeatable,
}

/// Run `operation` on a connection of `line` within `limit`. `what` names it in errors.
pub(super) async fn fly<DB, T, F>(
    line: &Line<DB>,
    limit: Duration,
    (what, trust): (&'static str, Trust),
    operation: F,
) -> Result<T, DbError>
where
    DB: Database,
    T: Send + 'static,
    F: for<'c> Fn(&'c mut DB::Connection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
{
    let line = line.clone();
    let flight = tokio::spawn(async move {
        let mut connection = match trust {
            Trust::Tested | Trust::Once => line.tested(limit).await?,
            Trust::Repeatable => line.acquire(limit).await?,
        };
        if trust == Trust::Once {
            connection.close_on_drop();
        }
        let mut tries = 1;
        loop {
            match tokio::time::timeout(limit * 2, operation(&mut connection)).await {
                Ok(Err(fault)) if fault.is_contention() && tries < TRIES => {
                    tracing::debug!(what, tries, reason = %fault.reason(), "somebody was in the way, trying again");
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..20u64 << tries))).await;
                    tries += 1;
                }
                Ok(Err(fault)) if fault.is_connection_lost() && trust == Trust::Repeatable && tries == 1 => {
                    tracing::debug!(what, reason = %fault.reason(), "the connection was gone; repeated on another");
                    drop(connection.detach());
                    connection = line.tested(limit).await?;
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
        Err(_) => Err(DbError::TimedOut(format!("{what} took longer than {limit:?} (database.timeout_seconds)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Sqlite;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    /// One connection to a file that goes away with the folder.
    fn line() -> (tempfile::TempDir, Line<Sqlite>) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("x.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options);
        (folder, Line { pool, place: "x.db".into(), waiting: Arc::default() })
    }

    async fn one(line: &Line<Sqlite>) -> Result<(), DbError> {
        fly(line, Duration::from_secs(10), ("ask", Trust::Tested), |c| {
            Box::pin(async move { Ok(sqlx::query("SELECT 1").execute(c).await.map(drop)?) })
        })
        .await
    }

    #[tokio::test]
    async fn an_operation_that_never_ends_gives_its_caller_and_its_place_in_the_pool_back() {
        let (_folder, line) = line();
        let error = fly(&line, Duration::from_millis(50), ("hang", Trust::Tested), |_| {
            Box::pin(std::future::pending::<Result<(), _>>())
        })
        .await
        .unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("hang"), "{error}");
        // Waits until the hung connection is closed: there is only one.
        one(&line).await.unwrap();
    }

    #[tokio::test]
    async fn an_operation_that_panics_is_a_defect_and_harms_no_other() {
        let (_folder, line) = line();
        let error = fly(&line, Duration::from_secs(10), ("trip", Trust::Tested), |_| {
            Box::pin(async { if true { panic!("tripped") } else { Ok(()) } })
        })
        .await
        .unwrap_err();
        assert!(matches!(&error, DbError::Defect(text) if text.contains("trip")), "{error:?}");
        one(&line).await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_without_a_free_connection_says_so() {
        let (_folder, line) = line();
        let held = line.pool.acquire().await.unwrap();
        let hasty = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(30))
            .connect_lazy_with(line.pool.connect_options().as_ref().clone());
        let hasty = Line { pool: hasty, place: "x.db".into(), waiting: Arc::default() };
        let kept = hasty.pool.acquire().await.unwrap();
        let error = one(&hasty).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("every connection to x.db is in use"), "{error}");
        drop((held, kept));
    }
}
