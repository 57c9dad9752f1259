//! Where the database is, and ways to run an operation: on which connection, and whether that is tried before.

use super::super::fault::Fault;
use super::super::flight::{Trust, fly};
use super::super::{DbError, DbOptions, Migrated};
use super::connect::{self, Lines};
use super::{PostgresDb, blockers::Blockers, migrate};
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long migrating may take. Waits for locks and for other processes have bounds of their own, and the build of an index takes as long
/// as its table is large: one that were cut off would be begun again and again.
const MIGRATION: Duration = Duration::from_secs(24 * 3600);

impl PostgresDb {
    /// Prepare connections to `url` (`postgres://user:password@host:port/database`). Nothing is connected yet: an address
    /// that is away is told by the first operation. Refuses an address that does not say where to go.
    pub fn connect(url: &str, options: &DbOptions) -> Result<PostgresDb, DbError> {
        let lines = connect::lines(url, options)?;
        let recordings = Arc::new(Semaphore::new(options.max_connections.saturating_sub(1).max(1) as usize));
        let scans = Arc::new(Semaphore::new(connect::BESIDES as usize / 2));
        let (timeout, schema) = (options.timeout, options.schema.clone());
        Ok(PostgresDb { lines, recordings, scans, timeout, schema, waiting: Arc::default(), unserved: Arc::default() })
    }

    /// `user@host:port/database, schema name`: where it leads, for people; without secrets.
    pub fn place(&self) -> String {
        format!("{}, schema {}", self.lines.path.place, self.schema)
    }

    /// Close every connection, once what is under way has ended.
    pub async fn close(&self) {
        let Lines { path, lease, reads, stores } = &self.lines;
        for line in [path, reads, stores, lease] {
            line.pool.close().await;
        }
    }

    /// Migrates on a connection of the path, which holds a lock for as long as its session lasts.
    pub(super) async fn migrate_with(&self, patience: migrate::Patience) -> Result<Migrated, DbError> {
        let (schema, reads) = (self.schema.clone(), self.lines.reads.pool.clone());
        fly(&self.lines.path, MIGRATION, ("migrate", Trust::Once), move |c| {
            let (schema, blockers) = (schema.clone(), Blockers::new(reads.clone()));
            Box::pin(async move { migrate::migrate(c, &schema, &blockers, patience).await })
        })
        .await
    }

    /// On a connection of the path that answers.
    pub(super) async fn run<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.lines.path, self.timeout, (what, Trust::Tested), operation).await
    }

    /// The same on the lease's own connection.
    pub(super) async fn run_lease<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.lines.lease, self.timeout, (what, Trust::Tested), operation).await
    }

    /// The same for reads of the API.
    pub(super) async fn read<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.lines.reads, connect::shorter(self.timeout), (what, Trust::Tested), operation).await
    }

    /// The same for lists, which may read many rows. They take at most half of these connections, so that reads of single rows find
    /// one.
    pub(super) async fn scan<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        let limit = connect::shorter(self.timeout);
        // A caller that times out releases its permit when the server cancels the statement too: both have the same time.
        let Ok(Ok(_turn)) = tokio::time::timeout(limit, self.scans.acquire()).await else {
            return Err(DbError::Unavailable(format!("{what}: other lists occupy the connections of lists; retry")));
        };
        self.read(what, operation).await
    }

    /// The same for stores and budgets of guests.
    pub(super) async fn run_stores<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.lines.stores, connect::shorter(self.timeout), (what, Trust::Tested), operation).await
    }

    /// The same for what gives the right answer when it is repeated, and is called under load.
    pub(super) async fn run_again<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        fly(&self.lines.path, self.timeout, (what, Trust::Repeatable), operation).await
    }

    /// The same for one that may write tasks which wait for a time, whatever its result.
    pub(super) async fn run_writing<T, F>(&self, what: &'static str, operation: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        let result = self.run_again(what, operation).await;
        self.waiting.notify_one();
        result
    }
}
