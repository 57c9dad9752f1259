//! SQLite: the same tables and the same answers for one process. One writer, in the order of arrival; many readers.

mod buckets;
mod claim;
mod connect;
mod dead;
mod duties;
mod embedded;
mod erase;
mod examine;
mod hosts;
mod labelled;
mod log;
mod many;
mod memories;
mod outbox;
mod outgoing;
mod prune;
mod queue;
mod read;
mod record;
mod redrive;
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
mod writer;

use super::flight::{Trust, fly};
use super::*;
use std::sync::Arc;

pub use connect::SqliteDb;

/// How long migrating may take, the wait for another process that migrates included.
const MIGRATION: Duration = Duration::from_secs(600);

#[async_trait]
impl Db for SqliteDb {
    async fn migrate(&self) -> Result<Migrated, DbError> {
        fly(&self.writer.line, MIGRATION, ("migrate", Trust::Repeatable), |c| Box::pin(version::migrate(c))).await
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
        self.browse("list hosts", |c| Box::pin(hosts::list(c))).await
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
        let db = self.clone();
        self.write_then("settle", move |c| {
            let (batch, mut outgoing) = (batch.clone(), db.outgoing());
            Box::pin(async move {
                let answers = settle::settle(c, host, &batch, &mut outgoing).await?;
                Ok((answers, outgoing.after()))
            })
        })
        .await
    }

    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        let batch: Arc<[Recording]> = batch.into();
        let db = self.clone();
        self.write_then("record", move |c| {
            let (batch, mut outgoing) = (batch.clone(), db.outgoing());
            Box::pin(async move {
                let answers = record::record(c, host, &batch, &mut outgoing).await?;
                Ok((answers, outgoing.after()))
            })
        })
        .await
    }

    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError> {
        let letters: Arc<[DeadLetter]> = letters.into();
        self.write("record dead letters", move |c| {
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
        self.write("park unusable tasks", move |c| {
            let tasks = tasks.clone();
            Box::pin(async move { unusable::park(c, me, &tasks, again).await })
        })
        .await
    }

    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError> {
        let queue: Arc<str> = queue.into();
        self.write("take dead letters", move |c| {
            let queue = queue.clone();
            Box::pin(async move { dead::take(c, &queue, limit, hold).await })
        })
        .await
    }

    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError> {
        let ids: Arc<[i64]> = ids.into();
        self.write("mark dead letters as published", move |c| {
            let ids = ids.clone();
            Box::pin(async move { dead::published(c, &ids).await })
        })
        .await
    }

    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError> {
        let ids: Arc<[i64]> = ids.into();
        self.write("defer dead letters", move |c| {
            let ids = ids.clone();
            Box::pin(async move { dead::defer(c, &ids, delay).await })
        })
        .await
    }

    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        let batch: Arc<[NewTask]> = batch.into();
        let db = self.clone();
        self.write_then("submit", move |c| {
            let (batch, mut outgoing) = (batch.clone(), db.outgoing());
            Box::pin(async move {
                let answers = submit::submit(c, &batch, &mut outgoing).await?;
                Ok((answers, outgoing.after()))
            })
        })
        .await
    }

    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.write("cancel", move |c| Box::pin(submit::cancel(c, id))).await
    }

    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        let db = self.clone();
        self.write_then("wake what is due", move |c| {
            let mut outgoing = db.outgoing();
            Box::pin(async move { Ok((duties::wake_due(c, limit, &mut outgoing).await?, outgoing.after())) })
        })
        .await
    }

    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        self.write("end what has expired", move |c| Box::pin(duties::fail_expired(c, limit))).await
    }

    async fn rescue(&self, steady: bool, again: Duration, _thorough: bool, limit: u32) -> Result<u64, DbError> {
        let db = self.clone();
        self.write_then("rescue", move |c| {
            let mut outgoing = db.outgoing();
            Box::pin(
                async move { Ok((duties::rescue(c, steady, again, limit, &mut outgoing).await?, outgoing.after())) },
            )
        })
        .await
    }

    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        self.write("end what nobody serves", move |c| Box::pin(duties::fail_unknown(c, grace, limit))).await
    }

    async fn waiting(&self, look: WaitingLook) -> Result<WaitingNow, DbError> {
        self.browse("look for waiting tasks", move |c| Box::pin(waiting::waiting(c, look))).await
    }

    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError> {
        let look = Arc::new(look.clone());
        self.read("read what is parked", move |c| {
            let look = look.clone();
            Box::pin(async move { read::parked(c, &look).await })
        })
        .await
    }

    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError> {
        let take = Arc::new(take.clone());
        self.write("take from the outbox", move |c| {
            let take = take.clone();
            Box::pin(async move { outbox::take(c, &take).await })
        })
        .await
    }

    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.write("hold in the outbox", move |c| {
            let ids = ids.clone();
            Box::pin(async move { outbox::hold(c, token, &ids, ttl).await })
        })
        .await
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
        self.browse("read what was asked", move |c| Box::pin(retry::asked(c, id))).await
    }

    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        let task = Arc::new(task.clone());
        let db = self.clone();
        self.write_then("retry", move |c| {
            let (task, mut outgoing) = (task.clone(), db.outgoing());
            Box::pin(async move {
                let answer = retry::retry(c, &task, once, &mut outgoing).await?;
                Ok((answer, outgoing.after()))
            })
        })
        .await
    }

    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.write("erase", move |c| Box::pin(erase::erase(c, id))).await
    }

    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError> {
        let key = key.to_owned();
        self.browse("count labelled tasks", move |c| {
            let key = key.clone();
            Box::pin(async move { labelled::values(c, &key, limit).await })
        })
        .await
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

    fn pools(&self) -> Vec<PoolFacts> {
        vec![self.writer.line.facts("writer"), self.readers.facts("readers"), self.browsers.facts("browsers")]
    }

    fn stores(&self) -> &dyn Stores {
        self
    }

    fn steering(&self) -> &dyn Steering {
        self
    }

    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.browse("read a task", move |c| Box::pin(read::task(c, id, fields))).await
    }

    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError> {
        let any: Arc<[TaskFilter]> = any.into();
        self.browse("list tasks", move |c| {
            let any = any.clone();
            Box::pin(async move { read::tasks_of_any(c, &any, fields).await })
        })
        .await
    }

    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        let ids: Arc<[TaskId]> = ids.into();
        self.browse("look for ends", move |c| {
            let ids = ids.clone();
            Box::pin(async move { read::terminal(c, &ids).await })
        })
        .await
    }

    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError> {
        self.browse("read a history", move |c| Box::pin(read::events(c, id, after, limit))).await
    }

    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError> {
        self.browse("read logs", move |c| Box::pin(read::logs(c, id, after, limit))).await
    }

    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError> {
        self.browse("read calls", move |c| Box::pin(read::calls(c, id, after, limit, bodies))).await
    }

    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.browse("read attempts", move |c| Box::pin(read::attempts(c, id))).await
    }

    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError> {
        let filter = Arc::new(filter.clone());
        self.browse("list dead letters", move |c| {
            let filter = filter.clone();
            Box::pin(async move { read::dead_letters(c, &filter).await })
        })
        .await
    }
}

#[cfg(test)]
pub(in crate::db) mod tests;
