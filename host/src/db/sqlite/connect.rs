//! Connections to the file, and the two ways to use them: one writer, many readers.

use super::super::fault::Fault;
use super::super::flight::{Line, Trust, acquire_timeout, fly};
use super::super::queue_table::Arrivals;
use super::super::{DbError, DbOptions};
use super::outgoing::Outgoing;
use super::writer::{After, Writer};
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Statements kept prepared on a connection; there are fewer.
const STATEMENTS: usize = 256;
/// Connections for reads of the API.
const BROWSERS: u32 = 4;
/// Rows that SQLite's thread hands over without waiting for their reader: those of the largest batch.
const ROWS: usize = 512;

/// The database in a SQLite file. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct SqliteDb {
    pub(super) writer: Arc<Writer>,
    pub(super) readers: Line<Sqlite>,
    /// Reads of the API, apart from those of the host and its guests.
    pub(super) browsers: Line<Sqlite>,
    timeout: Duration,
    /// The embedded queue, if its tables are in this file.
    pub(super) queues: Arc<OnceLock<Arc<dyn Arrivals>>>,
}

impl std::fmt::Debug for SqliteDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteDb").field("place", &self.writer.line.place).finish_non_exhaustive()
    }
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
            .pragma("wal_autocheckpoint", "4000") // 16 MiB: a page that is written often is copied into the file less often
            .pragma("temp_store", "MEMORY") // what savepoints keep for undoing needs no file
            .row_buffer_size(ROWS)
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
        let line = Line { pool: pool(1).connect_lazy_with(writing), place: place.clone(), waiting: Arc::default() };
        Ok(SqliteDb {
            writer: Arc::new(Writer::new(line, options.timeout)),
            readers: Line {
                pool: pool(options.max_connections).connect_lazy_with(reading.clone()),
                place: place.clone(),
                waiting: Arc::default(),
            },
            browsers: Line { pool: pool(BROWSERS).connect_lazy_with(reading), place, waiting: Arc::default() },
            timeout: options.timeout,
            queues: Arc::default(),
        })
    }

    /// The file, for people.
    pub fn place(&self) -> String {
        self.writer.line.place.to_string()
    }

    /// Close every connection, once what is under way has ended.
    pub async fn close(&self) {
        self.readers.pool.close().await;
        self.browsers.pool.close().await;
        self.writer.line.pool.close().await;
    }

    pub(super) async fn write<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        self.writer
            .write(what, move |c| {
                let result = operation(c);
                Box::pin(async move { Ok((result.await?, None)) })
            })
            .await
    }

    /// The same, with something that follows the commit.
    pub(super) async fn write_then<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(T, Option<After>), Fault>>
            + Send
            + Sync
            + 'static,
    {
        self.writer.write(what, operation).await
    }

    /// Nothing sent yet.
    pub(super) fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.queues.get().cloned())
    }

    pub(super) async fn read<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.readers, self.timeout, (what, Trust::Repeatable), operation).await
    }

    /// The same for reads of the API: those that take long leave readers to the host and its guests.
    pub(super) async fn browse<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.browsers, self.timeout, (what, Trust::Repeatable), operation).await
    }
}
