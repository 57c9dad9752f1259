//! Group commit: the one connection that writes, and the operations that wait for it.
//!
//! SQLite has one writer at a time, and a commit costs a flush to the disk. So operations that have gathered share one
//! transaction: each runs in a savepoint of its own, in the order of arrival, all are committed together, and only then
//! does any caller get its result. An operation that fails undoes its own savepoint and nothing else. A single operation
//! is committed at once; nothing waits for company.

use super::super::DbError;
use super::super::fault::Fault;
use super::super::flight::Line;
use super::log::Log;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection, Sqlite, SqliteConnection};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Operations of one commit.
const MOST: usize = 64;
/// Times a transaction is begun when another process is writing.
const TRIES: u32 = 4;

/// Runs after the commit, before its caller continues.
pub(super) type After = Box<dyn FnOnce() + Send>;

/// Runs operations that write, one after the other.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) line: Line<Sqlite>,
    limit: Duration,
    work: Mutex<Work>,
    log: Log,
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<Box<dyn Job>>,
    /// A task is running that takes from `waiting`.
    running: bool,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("waiting", &self.waiting.len()).field("running", &self.running).finish()
    }
}

/// One operation.
trait Job: Send {
    /// Names it in errors.
    fn what(&self) -> &'static str;
    /// Run it in the transaction and keep its result.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, ()>;
    /// Whether it ended as only a failing disk or connection ends it: SQLite may have rolled the whole transaction back.
    fn broke(&self) -> bool;
    /// Return the result to the caller, or why the transaction was not committed.
    fn end(self: Box<Self>, committed: &Result<(), DbError>);
}

struct Operation<T, F> {
    what: &'static str,
    run: F,
    result: Option<Result<(T, Option<After>), Fault>>,
    caller: oneshot::Sender<Result<T, DbError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(T, Option<After>), Fault>> + Send + Sync + 'static,
{
    fn what(&self) -> &'static str {
        self.what
    }

    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> BoxFuture<'c, ()> {
        Box::pin(async move { self.result = Some((self.run)(connection).await) })
    }

    fn broke(&self) -> bool {
        matches!(&self.result, Some(Err(fault)) if fault.is_outage())
    }

    fn end(self: Box<Self>, committed: &Result<(), DbError>) {
        let result = match (self.result, committed) {
            (Some(Err(fault)), _) => Err(fault.into()),
            (_, Err(error)) => Err(error.again()),
            (Some(Ok((value, after))), Ok(())) => {
                if let Some(after) = after {
                    after();
                }
                Ok(value)
            }
            (None, Ok(())) => Err(DbError::Defect(format!("{}: it was not run", self.what))),
        };
        // The caller may have stopped waiting (`database.timeout_seconds`).
        let _ = self.caller.send(result);
    }
}

impl Writer {
    pub(super) fn new(line: Line<Sqlite>, limit: Duration) -> Writer {
        let log = Log::beside(&line.place);
        Writer { line, limit, work: Mutex::default(), log }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Run `operation` in a transaction and return its result after the commit. `what` names it in errors.
    pub(super) async fn write<T, F>(self: &Arc<Self>, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(T, Option<After>), Fault>>
            + Send
            + Sync
            + 'static,
    {
        let (caller, result) = oneshot::channel();
        self.push(Box::new(Operation { what, run: operation, result: None, caller }));
        match tokio::time::timeout(self.limit, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(DbError::Defect(format!("{what}: it panicked"))),
            Err(_) => {
                Err(DbError::TimedOut(format!("{what} took longer than {:?} (database.timeout_seconds)", self.limit)))
            }
        }
    }

    fn push(self: &Arc<Self>, job: Box<dyn Job>) {
        let mut work = self.work();
        work.waiting.push_back(job);
        if !std::mem::replace(&mut work.running, true) {
            tokio::spawn(self.clone().run());
        }
    }

    /// The next operation of a transaction that is open.
    fn next(&self) -> Option<Box<dyn Job>> {
        self.work().waiting.pop_front()
    }

    /// The first operation of the next transaction; without one, this task ends.
    fn first(&self) -> Option<Box<dyn Job>> {
        let mut work = self.work();
        let first = work.waiting.pop_front();
        work.running = first.is_some();
        first
    }

    async fn run(self: Arc<Self>) {
        while let Some(first) = self.first() {
            let mut group = vec![first];
            let committed = self.commit(&mut group).await.map_err(DbError::from);
            for job in group {
                job.end(&committed);
            }
            if let Err(fault) = self.log.shorten(&self.line, self.limit).await {
                tracing::debug!(reason = %fault.reason(), "failed to empty the write-ahead log; retrying");
            }
        }
    }

    /// Run what waits in one transaction. `group`: what was run, the first of which is given.
    async fn commit(&self, group: &mut Vec<Box<dyn Job>>) -> Result<(), Fault> {
        let mut connection = self.line.acquire(self.limit).await?;
        let committed = self.commit_on(&mut connection, group).await;
        if committed.is_err() {
            // In an unknown state: SQLite may have rolled back, which this client does not notice. It is not used again.
            drop(connection.detach());
        }
        committed
    }

    async fn commit_on(&self, connection: &mut SqliteConnection, group: &mut Vec<Box<dyn Job>>) -> Result<(), Fault> {
        let mut tries = 1;
        let mut transaction = loop {
            match connection.begin_with("BEGIN IMMEDIATE").await.map_err(Fault::from) {
                Err(fault) if fault.is_contention() && tries < TRIES => {
                    tracing::debug!(tries, reason = %fault.reason(), "another process is writing; trying again");
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..20u64 << tries))).await;
                    tries += 1;
                }
                begun => break begun?,
            }
        };
        let mut at = 0;
        while let Some(job) = group.get_mut(at) {
            let what = job.what();
            let run = AssertUnwindSafe(job.run(&mut transaction)).catch_unwind();
            match tokio::time::timeout(self.limit * 2, run).await {
                Ok(Ok(())) if !job.broke() => {}
                // A full disk or an I/O error makes SQLite roll back by itself (sqlite.org/lang_transaction.html, section 3.1).
                // What came before in this group is gone, and what would follow would commit alone.
                Ok(Ok(())) => {
                    return Err(Fault::Busy(format!(
                        "{what} failed on the database file, and all that shared its commit"
                    )));
                }
                broken => {
                    // Its caller sees that it is gone.
                    let panicked = broken.is_ok().then(|| group.remove(at));
                    let reason = if panicked.is_some() { "panicked" } else { "did not end in time" };
                    return Err(Fault::Busy(format!("{what} {reason} and its connection was closed")));
                }
            }
            at += 1;
            if at < MOST {
                group.extend(self.next());
            }
        }
        Ok(transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::fault::Fault;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
    use sqlx::{Row, query};

    /// One connection to a file that goes away with the folder.
    async fn writer(limit: Duration) -> (tempfile::TempDir, Arc<Writer>) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("x.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options);
        query("CREATE TABLE t (n INTEGER PRIMARY KEY)").execute(&pool).await.unwrap();
        (folder, Arc::new(Writer::new(Line { pool, place: "x.db".into(), waiting: Arc::default() }, limit)))
    }

    async fn insert(writer: &Arc<Writer>, n: i64, fails: bool) -> Result<i64, DbError> {
        writer
            .write("insert", move |c| {
                Box::pin(async move {
                    let mut tx = c.begin().await?;
                    query("INSERT INTO t VALUES (?)").bind(n).execute(&mut *tx).await?;
                    if fails {
                        return Err(Fault::Defect("as asked".into()));
                    }
                    tx.commit().await?;
                    Ok((n, None))
                })
            })
            .await
    }

    async fn count(writer: &Arc<Writer>, seen: &Arc<Mutex<u32>>) -> Result<(), DbError> {
        let seen = seen.clone();
        writer
            .write("count", move |_| {
                let seen = seen.clone();
                let after: After = Box::new(move || *seen.lock().unwrap() += 1);
                Box::pin(async move { Ok(((), Some(after))) })
            })
            .await
    }

    async fn numbers(writer: &Writer) -> Vec<i64> {
        let rows = query("SELECT n FROM t ORDER BY n").fetch_all(&writer.line.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    #[tokio::test]
    async fn operations_that_wait_share_a_commit_and_a_failing_one_undoes_only_itself() {
        let (_folder, writer) = writer(Duration::from_secs(10)).await;
        let results = futures_util::future::join_all((0..100).map(|n| insert(&writer, n, n % 10 == 3))).await;
        let failed: Vec<usize> = results.iter().enumerate().filter(|(_, r)| r.is_err()).map(|(n, _)| n).collect();
        assert_eq!(failed, (3..100).step_by(10).collect::<Vec<_>>());
        assert_eq!(numbers(&writer).await, (0..100).filter(|n| n % 10 != 3).collect::<Vec<i64>>());
    }

    #[tokio::test]
    async fn an_operation_that_never_ends_fails_its_group_and_a_later_one_is_committed() {
        let (_folder, writer) = writer(Duration::from_millis(200)).await;
        let error = writer.write::<(), _>("hang", |_| Box::pin(std::future::pending())).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("hang"), "{error}");
        // The hung connection is closed after twice the limit; until then callers stop waiting.
        let mut n = 0;
        while insert(&writer, n, false).await.is_err() {
            n += 1;
        }
        assert!(numbers(&writer).await.contains(&n));
    }

    #[tokio::test]
    async fn an_operation_that_panics_is_a_defect_and_the_next_one_is_committed() {
        let (_folder, writer) = writer(Duration::from_secs(10)).await;
        let trip = writer
            .write::<(), _>("trip", |_| Box::pin(async { if true { panic!("tripped") } else { Ok(((), None)) } }));
        let error = trip.await.unwrap_err();
        assert!(matches!(&error, DbError::Defect(text) if text.contains("trip")), "{error:?}");
        insert(&writer, 1, false).await.unwrap();
        assert_eq!(numbers(&writer).await, [1]);
    }

    #[tokio::test]
    async fn what_follows_the_commit_runs_only_after_a_commit() {
        let (_folder, writer) = writer(Duration::from_secs(10)).await;
        let seen = Arc::new(Mutex::new(0));
        count(&writer, &seen).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), 1);
        writer.line.pool.close().await;
        assert!(count(&writer, &seen).await.is_err());
        assert_eq!(*seen.lock().unwrap(), 1);
    }
}
