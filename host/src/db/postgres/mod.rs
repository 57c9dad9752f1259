//! Postgres. One statement per transition; batches travel as arrays.
mod address;
mod blockers;
mod buckets;
mod claim;
mod connect;
mod dead;
mod duties;
mod erase;
mod examine;
mod hosts;
mod labelled;
mod memories;
mod migrate;
mod outbox;
mod pooling;
mod prune;
mod read;
mod record;
mod redrive;
mod replies;
mod retry;
mod settle;
mod sizes;
mod spending;
mod steering;
mod stores;
mod submit;
mod transition;
mod unusable;
mod version;
mod waiting;
mod ways;
pub use address::{check, with_host};

use super::*;
use connect::Lines;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// The database in Postgres. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct PostgresDb {
    lines: Lines,
    /// See [`Db::record`]: recordings leave a connection of the path for the rest, however long they take.
    recordings: Arc<Semaphore>,
    /// Permits of [`PostgresDb::scan`].
    scans: Arc<Semaphore>,
    timeout: Duration,
    schema: SchemaName,
    /// See [`Db::waiting_written`].
    waiting: Arc<Notify>,
    /// Name of a plugin behind which [`Db::fail_unknown`] looks next.
    unserved: Arc<Mutex<String>>,
}

#[async_trait]
impl Db for PostgresDb {
    async fn check_service(&self) -> Result<(), DbError> {
        Ok(pooling::check(&self.lines.path, self.timeout / 2).await?)
    }

    async fn migrate(&self) -> Result<Migrated, DbError> {
        self.migrate_with(migrate::Patience::default()).await
    }

    async fn check_schema(&self) -> Result<SchemaVersion, DbError> {
        let schema = self.schema.clone();
        self.run("check the schema", move |c| {
            let schema = schema.clone();
            Box::pin(async move { version::check(c, &schema).await })
        })
        .await
    }

    async fn ping(&self) -> Result<DateTime<Utc>, DbError> {
        self.run("ping", |c| Box::pin(hosts::clock(c))).await
    }

    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError> {
        self.renew_lease(host, ttl).await.map(drop)
    }

    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError> {
        let host = Arc::new(host.clone());
        self.run_lease("renew the lease", move |c| {
            let host = host.clone();
            Box::pin(async move { hosts::renew(c, &host, ttl).await })
        })
        .await
    }

    async fn end_lease(&self, host: HostId) -> Result<(), DbError> {
        self.run_lease("end a lease", move |c| Box::pin(hosts::end(c, host))).await
    }

    async fn hosts(&self) -> Result<Vec<HostRow>, DbError> {
        self.read("list hosts", |c| Box::pin(hosts::list(c))).await
    }

    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError> {
        let batch: Arc<[Arrival]> = batch.into();
        self.run_writing("claim", move |c| {
            let batch = batch.clone();
            Box::pin(async move { claim::claim(c, me, &batch).await })
        })
        .await
    }

    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError> {
        let batch: Arc<[Settlement]> = batch.into();
        self.run_writing("settle", move |c| {
            let batch = batch.clone();
            Box::pin(async move { settle::settle(c, host, &batch).await })
        })
        .await
    }

    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        let batch: Arc<[Recording]> = batch.into();
        let _permit = self.recordings.acquire().await.map_err(|_| DbError::Defect("recordings are closed".into()))?;
        self.run_writing("record", move |c| {
            let batch = batch.clone();
            Box::pin(async move { record::record(c, host, &batch).await })
        })
        .await
    }

    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError> {
        let letters: Arc<[DeadLetter]> = letters.into();
        self.run("record dead letters", move |c| {
            let letters = letters.clone();
            Box::pin(async move { dead::record(c, &letters).await })
        })
        .await
    }

    async fn park_unusable(
        &self,
        me: Claimant,
        tasks: &[Unusable],
        again: Duration,
    ) -> Result<Vec<UnusableAnswer>, DbError> {
        let tasks: Arc<[Unusable]> = tasks.into();
        self.run("park unusable tasks", move |c| {
            let tasks = tasks.clone();
            Box::pin(async move { unusable::park(c, me, &tasks, again).await })
        })
        .await
    }

    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError> {
        let queue: Arc<str> = queue.into();
        self.run("take dead letters", move |c| {
            let queue = queue.clone();
            Box::pin(async move { dead::take(c, &queue, limit, hold).await })
        })
        .await
    }

    async fn take_replies(&self, limit: u32, hold: Duration) -> Result<Vec<Reply>, DbError> {
        self.run("take replies", move |c| Box::pin(replies::take(c, limit, hold))).await
    }

    async fn replied(&self, ids: &[TaskId]) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.run("mark replies as published", move |c| Box::pin(replies::replied(c, ids.clone()))).await
    }

    async fn defer_replies(&self, ids: &[TaskId], delay: Duration) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.run("defer replies", move |c| Box::pin(replies::defer(c, ids.clone(), delay))).await
    }

    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError> {
        let ids: Arc<[i64]> = ids.into();
        self.run("mark dead letters as published", move |c| Box::pin(dead::published(c, ids.clone()))).await
    }

    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError> {
        let ids: Arc<[i64]> = ids.into();
        self.run("defer dead letters", move |c| Box::pin(dead::defer(c, ids.clone(), delay))).await
    }

    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        let batch: Arc<[NewTask]> = batch.into();
        self.run_writing("submit", move |c| {
            let batch = batch.clone();
            Box::pin(async move { submit::submit(c, &batch).await })
        })
        .await
    }

    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.run("cancel", move |c| Box::pin(submit::cancel(c, id))).await
    }

    async fn next_due(&self) -> Result<Due, DbError> {
        self.run("look for what is due", |c| Box::pin(duties::next_due(c))).await
    }

    fn waiting_written(&self) -> Option<&Notify> {
        Some(&self.waiting)
    }

    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        self.run("wake what is due", move |c| Box::pin(duties::wake_due(c, limit))).await
    }

    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        self.run("end what has expired", move |c| Box::pin(duties::fail_expired(c, limit))).await
    }

    async fn rescue(&self, steady: bool, again: Duration, thorough: bool, limit: u32) -> Result<u64, DbError> {
        self.run("rescue", move |c| Box::pin(duties::rescue(c, steady, again, thorough, limit))).await
    }

    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        let after = self.unserved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fail = self.run("end what nobody serves", move |c| {
            let after = after.clone();
            Box::pin(duties::fail_unknown(c, grace, limit, after))
        });
        let (failed, next) = fail.await?;
        *self.unserved.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(failed)
    }

    async fn waiting(&self, look: WaitingLook) -> Result<WaitingNow, DbError> {
        self.scan("look for waiting tasks", move |c| Box::pin(waiting::waiting(c, look))).await
    }

    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError> {
        let look = Arc::new(look.clone());
        self.run("read what is parked", move |c| {
            let look = look.clone();
            Box::pin(async move { read::parked(c, &look).await })
        })
        .await
    }

    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError> {
        let take = Arc::new(take.clone());
        self.run("take from the outbox", move |c| {
            let take = take.clone();
            Box::pin(async move { outbox::take(c, &take).await })
        })
        .await
    }

    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.run("hold in the outbox", move |c| Box::pin(outbox::hold(c, token, ids.clone(), ttl))).await
    }

    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.run("drop from the outbox", move |c| Box::pin(outbox::drop_rows(c, token, ids.clone()))).await
    }

    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.run("defer in the outbox", move |c| {
            let ids = ids.clone();
            Box::pin(async move { outbox::defer(c, token, &ids, reason, delay).await })
        })
        .await
    }

    async fn prune(&self, keep: &Retention, limit: u32) -> Result<u64, DbError> {
        let keep = *keep;
        self.run("prune", move |c| Box::pin(prune::prune(c, keep, limit))).await
    }

    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError> {
        self.read("read what was asked", move |c| Box::pin(retry::asked(c, id))).await
    }

    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        let task = Arc::new(task.clone());
        self.run("retry", move |c| {
            let task = task.clone();
            Box::pin(async move { retry::retry(c, &task, once).await })
        })
        .await
    }

    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.run("erase", move |c| Box::pin(erase::erase(c, id))).await
    }

    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError> {
        let key = key.to_owned();
        self.scan("count labelled tasks", move |c| {
            let key = key.clone();
            Box::pin(async move { labelled::values(c, &key, limit).await })
        })
        .await
    }

    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError> {
        let label = label.clone();
        self.run("delete labelled tasks", move |c| {
            let label = label.clone();
            Box::pin(async move { labelled::delete(c, &label, limit).await })
        })
        .await
    }

    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError> {
        self.run("begin a redrive", move |c| Box::pin(redrive::begin_redrive(c, letter, again))).await
    }

    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError> {
        self.run("end a redrive", move |c| Box::pin(redrive::end_redrive(c, letter, id))).await
    }

    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError> {
        let keep = *keep;
        self.run("count what is past its time", move |c| Box::pin(prune::prunable(c, keep))).await
    }

    async fn sizes(&self) -> Result<Vec<TableSize>, DbError> {
        self.run("measure the tables", |c| Box::pin(sizes::sizes(c))).await
    }

    fn pools(&self) -> Vec<PoolFacts> {
        self.lines.facts()
    }

    fn stores(&self) -> &dyn Stores {
        self
    }

    fn steering(&self) -> &dyn Steering {
        self
    }

    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.read("read a task", move |c| Box::pin(read::task(c, id, fields))).await
    }

    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError> {
        let any: Arc<[TaskFilter]> = any.into();
        self.scan("list tasks", move |c| {
            let any = any.clone();
            Box::pin(async move { read::tasks_of_any(c, &any, fields).await })
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

    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError> {
        self.read("read a history", move |c| Box::pin(read::events(c, id, after, limit))).await
    }

    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError> {
        self.read("read logs", move |c| Box::pin(read::logs(c, id, after, limit))).await
    }

    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError> {
        self.read("read calls", move |c| Box::pin(read::calls(c, id, after, limit, bodies))).await
    }

    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.read("read attempts", move |c| Box::pin(read::attempts(c, id))).await
    }

    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError> {
        let filter = Arc::new(filter.clone());
        self.scan("list dead letters", move |c| {
            let filter = filter.clone();
            Box::pin(async move { read::dead_letters(c, &filter).await })
        })
        .await
    }
}

#[cfg(test)]
pub(in crate::db) mod tests;
