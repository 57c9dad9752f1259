//! SQLite: the same tables and the same answers for one process. One writer, in the order of arrival; many readers.

mod buckets;
mod claim;
mod dead;
mod duties;
mod erase;
mod hosts;
mod labelled;
mod memories;
mod outbox;
mod prune;
mod read;
mod record;
mod redrive;
mod retry;
mod settle;
mod sizes;
mod spending;
mod stores;
mod submit;
mod transition;
mod version;

use super::fault::Fault;
use super::flight::{Line, Trust, acquire_timeout, fly};
use super::*;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection};
use std::path::Path;
use std::sync::Arc;

/// How long migrating may take, the wait for another process that migrates included.
const MIGRATION: Duration = Duration::from_secs(600);
/// Statements kept prepared on a connection; there are fewer.
const STATEMENTS: usize = 256;

/// The database in a SQLite file. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct SqliteDb {
    writer: Line<Sqlite>,
    readers: Line<Sqlite>,
    timeout: Duration,
}

impl SqliteDb {
    /// Prepare connections to the file, which is made with the first operation if it is missing; its folder must exist.
    pub fn connect(path: &Path, options: &DbOptions) -> Result<SqliteDb, DbError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            return Err(DbError::Refused(format!(
                "the folder {} of the database file does not exist",
                folder.display()
            )));
        }
        // Every commit is on the disk before it is told: WAL alone would lose the last ones with the power.
        let writing = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.timeout)
            .pragma("cache_size", "-16384") // 16 MiB per connection
            .pragma("secure_delete", "ON") // what is erased or forgotten does not stay in free pages
            .statement_cache_capacity(STATEMENTS);
        let reading = writing.clone().pragma("query_only", "ON");
        let pool = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections.max(1))
                .acquire_timeout(acquire_timeout(options.timeout))
                .idle_timeout(None)
                .max_lifetime(None)
                // A file does not go away as a server does.
                .test_before_acquire(false)
        };
        let place: Arc<str> = path.display().to_string().into();
        Ok(SqliteDb {
            writer: Line { pool: pool(1).connect_lazy_with(writing), place: place.clone() },
            readers: Line { pool: pool(options.max_connections).connect_lazy_with(reading), place },
            timeout: options.timeout,
        })
    }

    /// The file, for people.
    pub fn place(&self) -> String {
        self.writer.place.to_string()
    }

    /// Close every connection, once what is under way has ended.
    pub async fn close(&self) {
        self.readers.pool.close().await;
        self.writer.pool.close().await;
    }

    async fn write<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.writer, self.timeout, (what, Trust::Repeatable), operation).await
    }

    async fn read<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.readers, self.timeout, (what, Trust::Repeatable), operation).await
    }
}

#[async_trait]
impl Db for SqliteDb {
    async fn migrate(&self) -> Result<Migrated, DbError> {
        fly(&self.writer, MIGRATION, ("migrate", Trust::Repeatable), |c| Box::pin(version::migrate(c))).await
    }

    async fn check_schema(&self) -> Result<SchemaVersion, DbError> {
        self.read("check the schema", |c| Box::pin(version::check(c))).await
    }

    async fn ping(&self) -> Result<DateTime<Utc>, DbError> {
        self.read("ping", |c| Box::pin(hosts::ping(c))).await
    }

    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError> {
        self.renew_lease(host, ttl).await.map(drop)
    }

    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError> {
        let host = Arc::new(host.clone());
        self.write("renew the lease", move |c| {
            let host = host.clone();
            Box::pin(async move { hosts::renew(c, &host, ttl).await })
        })
        .await
    }

    async fn end_lease(&self, host: HostId) -> Result<(), DbError> {
        self.write("end a lease", move |c| Box::pin(hosts::end(c, host))).await
    }

    async fn hosts(&self) -> Result<Vec<HostRow>, DbError> {
        self.read("list hosts", |c| Box::pin(hosts::list(c))).await
    }

    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError> {
        let batch: Arc<[Arrival]> = batch.into();
        self.write("claim", move |c| {
            let batch = batch.clone();
            Box::pin(async move { claim::claim(c, me, &batch).await })
        })
        .await
    }

    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError> {
        let batch: Arc<[Settlement]> = batch.into();
        self.write("settle", move |c| {
            let batch = batch.clone();
            Box::pin(async move { settle::settle(c, host, &batch).await })
        })
        .await
    }

    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        let batch: Arc<[Recording]> = batch.into();
        self.write("record", move |c| {
            let batch = batch.clone();
            Box::pin(async move { record::record(c, host, &batch).await })
        })
        .await
    }

    async fn record_dead(&self, letter: &DeadLetter) -> Result<DeadRecorded, DbError> {
        let letter = Arc::new(letter.clone());
        self.write("record a dead letter", move |c| {
            let letter = letter.clone();
            Box::pin(async move { dead::record(c, &letter).await })
        })
        .await
    }

    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        let batch: Arc<[NewTask]> = batch.into();
        self.write("submit", move |c| {
            let batch = batch.clone();
            Box::pin(async move { submit::submit(c, &batch).await })
        })
        .await
    }

    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.write("cancel", move |c| Box::pin(submit::cancel(c, id))).await
    }

    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        self.write("wake what is due", move |c| Box::pin(duties::wake_due(c, limit))).await
    }

    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        self.write("end what has expired", move |c| Box::pin(duties::fail_expired(c, limit))).await
    }

    async fn rescue(&self, steady: bool, again: Duration, limit: u32) -> Result<u64, DbError> {
        self.write("rescue", move |c| Box::pin(duties::rescue(c, steady, again, limit))).await
    }

    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        self.write("end what nobody serves", move |c| Box::pin(duties::fail_unknown(c, grace, limit))).await
    }

    async fn parked(
        &self,
        plugins: &[String],
        except: &[String],
        lane: bool,
        limit: u32,
    ) -> Result<Vec<ParkedTask>, DbError> {
        let (plugins, except): (Arc<[String]>, Arc<[String]>) = (plugins.into(), except.into());
        self.read("read what is parked", move |c| {
            let (plugins, except) = (plugins.clone(), except.clone());
            Box::pin(async move { read::parked(c, &plugins, &except, lane, limit).await })
        })
        .await
    }

    async fn take_outbox(&self, limit: u32, ttl: Duration) -> Result<OutboxBatch, DbError> {
        self.write("take from the outbox", move |c| Box::pin(outbox::take(c, limit, ttl))).await
    }

    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.write("drop from the outbox", move |c| {
            let ids = ids.clone();
            Box::pin(async move { outbox::drop_rows(c, token, &ids).await })
        })
        .await
    }

    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.write("defer in the outbox", move |c| {
            let ids = ids.clone();
            Box::pin(async move { outbox::defer(c, token, &ids, reason, delay).await })
        })
        .await
    }

    async fn prune(&self, keep: &Retention, limit: u32) -> Result<u64, DbError> {
        let keep = *keep;
        self.write("prune", move |c| Box::pin(prune::prune(c, keep, limit))).await
    }

    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError> {
        self.read("read what was asked", move |c| Box::pin(retry::asked(c, id))).await
    }

    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        let task = Arc::new(task.clone());
        self.write("retry", move |c| {
            let task = task.clone();
            Box::pin(async move { retry::retry(c, &task, once).await })
        })
        .await
    }

    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.write("erase", move |c| Box::pin(erase::erase(c, id))).await
    }

    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError> {
        let label = label.clone();
        self.write("delete labelled tasks", move |c| {
            let label = label.clone();
            Box::pin(async move { labelled::delete(c, &label, limit).await })
        })
        .await
    }

    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError> {
        self.write("begin a redrive", move |c| Box::pin(redrive::begin_redrive(c, letter, again))).await
    }

    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError> {
        self.write("end a redrive", move |c| Box::pin(redrive::end_redrive(c, letter, id))).await
    }

    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError> {
        let keep = *keep;
        self.read("count what is past its time", move |c| Box::pin(prune::prunable(c, keep))).await
    }

    async fn sizes(&self) -> Result<Vec<TableSize>, DbError> {
        self.read("measure the tables", |c| Box::pin(sizes::sizes(c))).await
    }

    fn stores(&self) -> &dyn Stores {
        self
    }

    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.read("read a task", move |c| Box::pin(read::task(c, id, fields))).await
    }

    async fn tasks(&self, filter: &TaskFilter, fields: Fields) -> Result<Vec<TaskRow>, DbError> {
        let filter = Arc::new(filter.clone());
        self.read("list tasks", move |c| {
            let filter = filter.clone();
            Box::pin(async move { read::tasks(c, &filter, fields).await })
        })
        .await
    }

    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.read("look for ends", move |c| {
            let ids = ids.clone();
            Box::pin(async move { read::terminal(c, &ids).await })
        })
        .await
    }

    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Vec<EventRow>, DbError> {
        self.read("read a history", move |c| Box::pin(read::events(c, id, after, limit))).await
    }

    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Vec<LogRow>, DbError> {
        self.read("read logs", move |c| Box::pin(read::logs(c, id, after, limit))).await
    }

    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Vec<CallRow>, DbError> {
        self.read("read calls", move |c| Box::pin(read::calls(c, id, after, limit, bodies))).await
    }

    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.read("read attempts", move |c| Box::pin(read::attempts(c, id))).await
    }

    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Vec<DeadRow>, DbError> {
        let filter = Arc::new(filter.clone());
        self.read("list dead letters", move |c| {
            let filter = filter.clone();
            Box::pin(async move { read::dead_letters(c, &filter).await })
        })
        .await
    }
}

#[cfg(test)]
pub(in crate::db) mod tests;
