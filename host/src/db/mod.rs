//! What is remembered: all SQL. Postgres and SQLite behind one trait, one conformance suite for both.
//!
//! No business rule lives here: deciding is in [`crate::task`]. A method is one transaction; where the answer to a
//! commit is lost, calling it again with the same arguments gives the right answer (claims and settlements are fenced).
//! Only the database's clock decides leases and due times.

#[macro_use]
mod by_statements;
#[macro_use]
mod statements;
#[macro_use]
mod steering;

mod bisect;
mod cells;
#[cfg(test)]
mod conformance;
mod examine;
mod fault;
mod flight;
mod halving;
mod lists;
#[cfg(test)]
pub mod memory;
mod options;
mod parked;
mod plan;
pub mod postgres;
pub mod queue_table;
mod rows;
mod schema;
mod shown;
pub mod sqlite;
mod steered;
mod storable;
mod stores;
mod types;
mod waiting;

pub use examine::Examiner;
pub use halving::Halving;
pub use options::{DbOptions, SchemaName};
pub use shown::ShownTask;
pub use steering::Steering;
pub use stores::Stores;
pub use types::*;

use crate::task::{Arrival, HostId, Settlement, TaskId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::sync::Notify;

/// The one seam to the database. Every operation is bounded by the implementation (`database.timeout_seconds`); none is
/// to be cancelled in flight by its caller: put a time-out around a spawned task instead.
#[async_trait]
pub trait Db: Send + Sync + 'static {
    // ── the schema ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Check that the service can be used at all, without changing anything there.
    async fn check_service(&self) -> Result<(), DbError> {
        Ok(())
    }
    /// Bring an empty or older schema up to date, one process at a time; or say why it does not fit.
    async fn migrate(&self) -> Result<Migrated, DbError>;
    /// Check that the schema fits this build: same version, or newer and still supporting this build.
    async fn check_schema(&self) -> Result<SchemaVersion, DbError>;
    /// Answers if the database does.
    async fn ping(&self) -> Result<DateTime<Utc>, DbError>;

    // ── hosts and leases ────────────────────────────────────────────────────────────────────────────────────────────

    /// Enter this process with a lease of `ttl` from now.
    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError>;
    /// Renew the lease and update what the host says of itself. Answers what its owner must know. It reads no tasks: nothing that grows
    /// keeps a lease from being renewed.
    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError>;
    /// End a host's lease now: a clean exit, or an owner known to be dead. Unknown hosts are fine.
    async fn end_lease(&self, host: HostId) -> Result<(), DbError>;
    /// Every host with its lease, newest first; ended ones of the last day included.
    async fn hosts(&self) -> Result<Vec<HostRow>, DbError>;

    // ── the path ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Decide each arrival by [`crate::task::decide`] under lock, write what was decided with its event, and answer in
    /// the same order. Of several arrivals with one id the first is claimed and the others see its row. A row that the
    /// database refuses (a NUL byte, an over-long value) fails alone.
    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError>;
    /// Record how attempts ended, each only while its task is running under its fence: state, event, attempt, logs, calls
    /// and (for an interrupted one) its outbox row, in one transaction. Answers in the same order.
    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError>;
    /// Record first attempts that ran without a claim, each only if its task has no row, or one that was submitted and waits
    /// for its first attempt: the row, its `running` event, how it ended, attempt and logs, in one transaction. Answers in the
    /// same order. Called again after a lost answer it returns [`RecordAnswer::Exists`], and the claim finds the end.
    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError>;
    /// Record unusable messages in one transaction, each once, also if it is delivered again before it was acknowledged. With
    /// an id that has no row, it is a `failed(rejected)` task too. Each is due to be published: see [`Db::take_letters`].
    /// Answers in the same order. A letter that the database refuses fails alone.
    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError>;

    /// Take back tasks that a relay published and whose messages this host cannot use, so that none waits for a message that is gone: a row
    /// that is due is parked as `held`. One that cannot be read or written is put into the outbox, due after `again`: a host of another
    /// build may publish it, and another one take it. Answers in the same order.
    async fn park_unusable(
        &self,
        me: Claimant,
        tasks: &[Unusable],
        again: Duration,
    ) -> Result<Vec<UnusableAnswer>, DbError>;

    // ── submission ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Insert tasks as `pending` with an outbox row each (or `scheduled`, without), all or nothing. One whose id exists
    /// with the same fingerprint is answered with [`Submitted::Exists`]; with another, [`Submitted::Conflict`], and then
    /// nothing of the batch is written, whatever the others are answered.
    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError>;
    /// Ask for a task's end: a waiting one is cancelled, a running one is marked for its owner.
    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError>;

    // ── duties ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The next time at which something is due, and the last change by operators. An implementation that cannot tell says that something is due now.
    async fn next_due(&self) -> Result<Due, DbError> {
        Ok(Due { within: Some(Duration::ZERO), brakes: None })
    }
    /// Notified when this process may have written a task that waits for a time; `None`: never notified.
    fn waiting_written(&self) -> Option<&Notify> {
        None
    }
    /// `scheduled` and `retrying` rows that are due become `pending`, with an outbox row. Answers how many.
    async fn wake_due(&self, limit: u32) -> Result<u64, DbError>;
    /// Waiting rows past their deadline become `failed(expired)`, and those whose end was asked for while they ran become
    /// `cancelled`. Answers how many.
    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError>;
    /// `running` rows whose owner is lost get an outbox row (once in `again`, a lease time), so that somebody takes them over: its
    /// lease has ended, or, if whoever asks is `steady` (see [`Claimant`]), has lapsed, or the attempt is past its hard
    /// deadline. Answers how many. Unless it is `thorough`, an implementation may pass over owners that were lost more than ten minutes ago or
    /// have no row, and attempts past their hard deadline: to find them, every running task is read.
    async fn rescue(&self, steady: bool, again: Duration, thorough: bool, limit: u32) -> Result<u64, DbError>;
    /// Rows parked for `no_plugin` or `plugin_broken` longer than `grace`, whose plugin no host has served for as long (in a version
    /// that will do) and that were under no brake for as long, become `failed(plugin_broken)`, with the cause in the detail, if a host has it broken, and otherwise
    /// `failed(unknown_plugin)`, with the known names. Answers how many.
    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError>;
    /// Tasks that are due and wait, and the outbox, as far as the bounds of the look reach: a task that waits for a time of its own is not
    /// among them. An implementation that cannot tell returns none.
    async fn waiting(&self, look: WaitingLook) -> Result<WaitingNow, DbError> {
        let _ = look;
        Ok(WaitingNow::default())
    }
    /// Parked rows by priority, then age, and no more than [`BATCH_BYTES`] but for the first. Only read: they are claimed like deliveries.
    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError>;
    /// Claim outbox rows, oldest first (`FOR UPDATE SKIP LOCKED`), with what is to be published.
    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError>;
    /// Hold rows for `ttl` from now; only those still held under the token.
    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError>;
    /// Delete published rows; only those still held under the token.
    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError>;
    /// Give rows back with the reason why they could not be published; they are due again after `delay`.
    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError>;
    /// Replies of ended tasks whose messages name a queue for it, each due again after `hold`: at most `limit`. A database that no
    /// message reaches has none.
    async fn take_replies(&self, limit: u32, hold: Duration) -> Result<Vec<Reply>, DbError> {
        let _ = (limit, hold);
        Ok(Vec::new())
    }
    /// The replies of these tasks are at the broker, or are given up.
    async fn replied(&self, ids: &[TaskId]) -> Result<(), DbError> {
        let _ = ids;
        Ok(())
    }
    /// These replies were taken, and are due after `delay`, unless they have been published meanwhile.
    async fn defer_replies(&self, ids: &[TaskId], delay: Duration) -> Result<(), DbError> {
        let _ = (ids, delay);
        Ok(())
    }
    /// Dead letters of a queue that are due to be published, oldest first: at most `limit`, and no more than [`BATCH_BYTES`] but
    /// for the first. They are due again after `hold`, so that those of a host that dies meanwhile are published by another.
    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError>;
    /// These dead letters are at the broker.
    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError>;
    /// These were taken, and are due after `delay`, unless they have been published meanwhile.
    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError>;
    /// Delete terminal tasks and dead letters older than they are kept, in one small batch: at most `limit`, and fewer if
    /// they have many lines of history and logs. Answers how many; 0: nothing is left.
    async fn prune(&self, keep: &Retention, limit: u32) -> Result<u64, DbError>;

    // ── operators ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// What a task was asked, to be asked again.
    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError>;
    /// Insert the task that repeats `task.retry_of`, with its outbox row, if that one has ended, its data are there, and no
    /// retry of it is under way; `once`: or has been. A repeat under the same new id is recognised.
    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError>;
    /// Take away what an ended task holds of its producer and its guest: input, output, logs, the words of its failures and
    /// of its calls, the bodies of its dead letters. What remains tells that it was, and recognises its duplicates. What it
    /// put into its plugin's buckets and memories is the plugin's, and stays.
    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError>;
    /// The tasks that carry a label, counted by the label's value: at most `limit` values, the last active first.
    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError>;
    /// Delete ended tasks that carry a label, at most `limit`, newest first, with everything that belongs to them. Returns
    /// how many were deleted, and labelled tasks that have not ended (at most `limit`), which are left alone.
    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError>;
    /// Write down under which id a dead letter is delivered again, before it is published. The same id is answered until
    /// [`Db::end_redrive`] has seen it through; afterwards the letter is left alone, unless `again`.
    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError>;
    /// Mark a dead letter as delivered again under this id, after the broker has confirmed it.
    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError>;
    /// What [`Db::prune`] would delete by now.
    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError>;
    /// How large each table is, the largest first.
    async fn sizes(&self) -> Result<Vec<TableSize>, DbError>;

    /// Connections by their use.
    fn pools(&self) -> Vec<PoolFacts> {
        Vec::new()
    }

    /// What plugins keep and spend.
    fn stores(&self) -> &dyn Stores;
    /// Brakes of operators, and the record of what operators changed.
    fn steering(&self) -> &dyn Steering;

    // ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────
    // What a page leaves out is not read: its large columns stay where they are.

    /// One task. Input and output are read only if asked.
    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError>;
    /// Tasks that fit one of the filters, in the order of [`TaskCursor`], behind the cursor. The filters exclude each other, and have the
    /// same limit; several are read from one snapshot.
    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError>;
    /// Which of these are terminal by now.
    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError>;
    /// A task's history after `seq`, oldest first.
    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError>;
    /// A task's logs after `seq` (of the task, over all attempts), oldest first.
    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError>;
    /// The calls of a task's ended attempts after a cursor, in the order in which they began. Bodies are read only if asked.
    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError>;
    /// A task's ended attempts, oldest first.
    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError>;
    /// Dead letters, newest first, below the cursor.
    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError>;
}

/// Records one unusable message.
#[cfg(test)]
pub async fn record_dead(db: &dyn Db, letter: &DeadLetter) -> Result<DeadRecorded, DbError> {
    match db.record_dead(std::slice::from_ref(letter)).await?.remove(0) {
        DeadAnswer::Recorded(recorded) => Ok(recorded),
        DeadAnswer::Refused(reason) => Err(DbError::Defect(reason)),
    }
}
