//! A database in memory, for simulations: the third implementation of [`Db`], which passes the suite of the others.
//!
//! What is decided and written comes from [`crate::task`] and [`super::plan`], as for the others; the statements are Rust. Its
//! clock is given, so that it can stand still. Every operation is done when it is first polled, all or nothing.

mod duties;
mod letters;
mod operators;
mod path;
mod reading;
mod steering;
mod stores;
mod tables;
#[cfg(test)]
pub(in crate::db) mod tests;

pub use tables::{Tables, Task};

use super::fault::Fault;
use super::plan;
use super::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The database. A clone is another connection to it.
#[derive(Clone)]
pub struct MemoryDb {
    tables: Arc<Mutex<Tables>>,
    clock: Clock,
}

impl MemoryDb {
    /// An empty one.
    pub fn new(clock: Clock) -> MemoryDb {
        MemoryDb { tables: Arc::default(), clock }
    }

    /// Everything that is in it.
    pub fn look(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// One transaction, at one time. What can fail fails before anything is written.
    fn at_once<T>(&self, operation: impl FnOnce(&mut Tables, DateTime<Utc>) -> Result<T, Fault>) -> Result<T, DbError> {
        let now = self.now();
        Ok(operation(&mut self.look(), now)?)
    }
}

#[async_trait]
impl Db for MemoryDb {
    async fn migrate(&self) -> Result<Migrated, DbError> {
        Ok(Migrated { from: 0, to: 0 })
    }
    async fn check_schema(&self) -> Result<SchemaVersion, DbError> {
        Ok(0)
    }
    async fn ping(&self) -> Result<DateTime<Utc>, DbError> {
        Ok(self.now())
    }
    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError> {
        self.at_once(|tables, now| tables.renew(host, ttl, now)).map(drop)
    }
    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError> {
        self.at_once(|tables, now| tables.renew(host, ttl, now))
    }
    async fn end_lease(&self, host: HostId) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.end_lease(host, now);
            Ok(())
        })
    }
    async fn hosts(&self) -> Result<Vec<HostRow>, DbError> {
        self.at_once(|tables, now| Ok(tables.hosts_at(now)))
    }
    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError> {
        self.at_once(|tables, now| batch.iter().map(|arrival| tables.claim(me, arrival, now)).collect())
    }
    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError> {
        self.at_once(|tables, now| batch.iter().map(|settlement| tables.settle(host, settlement, now)).collect())
    }
    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        self.at_once(|tables, now| batch.iter().map(|recording| tables.record(host, recording, now)).collect())
    }
    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError> {
        self.at_once(|tables, now| letters.iter().map(|letter| tables.record_dead(letter, now)).collect())
    }
    async fn park_unusable(
        &self,
        me: Claimant,
        tasks: &[Unusable],
        again: Duration,
    ) -> Result<Vec<UnusableAnswer>, DbError> {
        self.at_once(|tables, now| tasks.iter().map(|task| tables.park_unusable(me, task, again, now)).collect())
    }
    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError> {
        self.at_once(|tables, now| Ok(tables.take_letters(queue, limit, now + plan::bounded(hold), now)))
    }
    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError> {
        self.at_once(|tables, _| {
            tables.letters_published(ids);
            Ok(())
        })
    }
    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.defer_letters(ids, now + plan::bounded(delay));
            Ok(())
        })
    }
    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        self.at_once(|tables, now| tables.submit(batch, now))
    }
    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.at_once(|tables, now| tables.cancel(id, now))
    }
    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| tables.wake_due(limit, now))
    }
    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| tables.fail_expired(limit, now))
    }
    async fn rescue(&self, steady: bool, again: Duration, _thorough: bool, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| Ok(tables.rescue(steady, again, limit, now)))
    }
    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| tables.fail_unknown(grace, limit, now))
    }
    async fn waiting(&self, _: WaitingLook) -> Result<WaitingNow, DbError> {
        self.at_once(|tables, now| Ok(tables.waiting_now(now)))
    }
    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError> {
        self.at_once(|tables, _| tables.parked(look))
    }
    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError> {
        self.at_once(|tables, now| tables.take_outbox(take, now))
    }
    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.hold_outbox(token, ids, now + plan::bounded(ttl));
            Ok(())
        })
    }
    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError> {
        self.at_once(|tables, _| {
            tables.drop_outbox(token, ids);
            Ok(())
        })
    }
    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.defer_outbox(token, ids, reason, now + plan::bounded(delay));
            Ok(())
        })
    }
    async fn prune(&self, keep: &Retention, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| Ok(tables.prune(keep, limit, now)))
    }
    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError> {
        self.at_once(|tables, _| tables.asked(id))
    }
    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        self.at_once(|tables, now| tables.retry(task, once, now))
    }
    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.at_once(|tables, now| tables.erase(id, now))
    }
    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError> {
        self.at_once(|tables, _| Ok(tables.labelled(key, limit)))
    }

    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError> {
        self.at_once(|tables, _| Ok(tables.delete_labelled(label, limit)))
    }
    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError> {
        self.at_once(|tables, _| Ok(tables.begin_redrive(letter, again)))
    }
    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.end_redrive(letter, id, now);
            Ok(())
        })
    }
    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError> {
        self.at_once(|tables, now| Ok(tables.prunable(keep, now)))
    }
    async fn sizes(&self) -> Result<Vec<TableSize>, DbError> {
        self.at_once(|tables, _| Ok(tables.sizes()))
    }
    fn stores(&self) -> &dyn Stores {
        self
    }
    fn steering(&self) -> &dyn Steering {
        self
    }
    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.at_once(|tables, _| tables.row(id, fields))
    }
    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError> {
        self.at_once(|tables, _| tables.rows_of_any(any, fields))
    }
    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        self.at_once(|tables, _| Ok(tables.terminal(ids)))
    }
    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.events_after(id, after, limit)))
    }
    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.logs_after(id, after, limit)))
    }
    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.calls_after(id, after, limit, bodies)))
    }
    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.attempts_of(id)))
    }
    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.dead_letters(filter)))
    }
}
