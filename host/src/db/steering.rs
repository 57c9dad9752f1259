//! Brakes of operators, and the record of what operators changed.

use super::*;

/// The part of the database that is the operators'. Like [`Db`], and of the same database.
#[async_trait]
pub trait Steering: Send + Sync {
    /// The tasks of a host that are to end, and the brakes: one statement, which a host that runs tasks sends several times a second.
    async fn news(&self, host: HostId) -> Result<News, DbError>;
    /// The brakes that hold.
    async fn brakes(&self) -> Result<Brakes, DbError> {
        Ok(self.news(HostId::nil()).await?.brakes)
    }
    /// Set or release a brake, and record that it was, in one transaction. One that is set already gets the new reason, if there is another one;
    /// one that does not hold is not released again.
    async fn set_brake(&self, change: &BrakeChange) -> Result<BrakeAnswer, DbError>;
    /// Record a change by an operator.
    async fn audit(&self, entry: &AuditEntry) -> Result<(), DbError>;
    /// Recorded changes, newest first, below the cursor.
    async fn audited(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, DbError>;
    /// Delete recorded changes, and brakes that were released, longer than `keep` ago: at most `limit` of each. Answers how many.
    async fn prune_audit(&self, keep: Duration, limit: u32) -> Result<u64, DbError>;
    /// Tasks that wait, by queue: at most `limit` are counted.
    async fn waiting(&self, limit: u32) -> Result<WaitingByQueue, DbError>;
}

/// Implement [`Steering`] for a database whose module has `steering`, by its ways to read and to write.
macro_rules! steering_by_statements {
    ($db:ty, news: $news:ident, read: $read:ident, write: $write:ident) => {
        #[async_trait]
        impl Steering for $db {
            async fn news(&self, host: HostId) -> Result<News, DbError> {
                self.$news("look for news", move |c| Box::pin(news(c, host))).await
            }

            async fn set_brake(&self, change: &BrakeChange) -> Result<BrakeAnswer, DbError> {
                let change = Arc::new(change.clone());
                self.$write("set a brake", move |c| {
                    let change = change.clone();
                    Box::pin(async move { set_brake(c, &change).await })
                })
                .await
            }

            async fn audit(&self, entry: &AuditEntry) -> Result<(), DbError> {
                let entry = Arc::new(entry.clone());
                self.$write("record a change", move |c| {
                    let entry = entry.clone();
                    Box::pin(async move { audit(c, &entry).await })
                })
                .await
            }

            async fn audited(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, DbError> {
                let filter = Arc::new(filter.clone());
                self.$read("list changes", move |c| {
                    let filter = filter.clone();
                    Box::pin(async move { audited(c, &filter).await })
                })
                .await
            }

            async fn prune_audit(&self, keep: Duration, limit: u32) -> Result<u64, DbError> {
                self.$write("prune recorded changes", move |c| Box::pin(prune_audit(c, keep, limit))).await
            }

            async fn waiting(&self, limit: u32) -> Result<WaitingByQueue, DbError> {
                self.$read("count what waits", move |c| Box::pin(waiting(c, limit))).await
            }
        }
    };
}
