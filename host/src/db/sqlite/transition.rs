//! Inserting rows and changing them, each with its event. Always inside the writer's `BEGIN IMMEDIATE`: there is one
//! writer, and what it has read stays so until it commits.

use super::super::cells::{Cells, stamp};
use super::super::fault::Fault;
use super::super::plan::{Birth, Locked, Write};
use super::super::rows;
use super::many::{Many, json_ids, repeated};
use crate::task::{Event, Fence, HostId, State, TaskId, WaitCode};
use chrono::{DateTime, SubsecRound, Utc};
use sqlx::{Connection, Sqlite, SqliteConnection, Transaction, query};
use std::collections::HashMap;

/// What is selected of a row before it is changed (`?1`: now), and the statement around it.
macro_rules! locked {
    ($($rest:expr),+) => {
        concat!(
            "SELECT t.id, t.state, t.fence, t.owner, t.run_at, t.deadline, t.cancel_requested, t.fingerprint, t.burnt,
            t.max_attempts, t.host_losses, t.child_losses, t.snoozes, t.waiting_code, t.plugin, t.attempt, t.version,
            t.digest, t.started_at, t.created_at, t.last_seq, COALESCE(h.lease_until > ?1, 0) AS owner_alive,
            COALESCE(h.lease_until > ?1 OR NOT h.ended, 0) AS owner_may_live,
            t.state = 'running' AND COALESCE(t.kill_at > t.started_at AND t.kill_at <= ?1, 0) AS overdue
            FROM tasks t LEFT JOIN hosts h ON h.id = t.owner ",
            $($rest),+
        )
    };
}
pub(super) use locked;

/// Inserts new rows, of which none exists.
macro_rules! births {
    ($size:tt) => {
        concat!(
            "INSERT INTO tasks (id, plugin, plugin_name, queue, state, version, digest, input, fingerprint, failure,
            max_attempts, attempt, fence, owner, priority, labels, options, reply_to, correlation_id, traceparent, run_at,
            deadline, retry_of, waiting_code, waiting_detail, created_at, started_at, finished_at, waiting_since, kill_at)
            VALUES ",
            repeated!($size "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        )
    };
}

macro_rules! events {
    ($size:tt) => {
        concat!(
            "INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail) VALUES ",
            repeated!($size "(?, ?, ?, ?, ?, ?, ?, ?, ?)")
        )
    };
}

/// Changes rows that were read in this transaction. The index is named so that the planner never scans `tasks`.
macro_rules! writes {
    ($size:tt) => {
        concat!(
            "UPDATE tasks INDEXED BY sqlite_autoindex_tasks_1 SET state = w.column2, fence = w.column3, owner = w.column4,
            attempt = w.column5, max_attempts = w.column6, host_losses = w.column7, version = w.column8,
            digest = w.column9, failure = COALESCE(w.column10, failure), waiting_code = w.column11,
            waiting_detail = w.column12, started_at = COALESCE(w.column13, started_at), finished_at = w.column14,
            waiting_since = w.column15, rescued_at = NULL, last_seq = w.column16, kill_at = w.column17
            FROM (VALUES ",
            repeated!($size "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
            ") AS w WHERE tasks.id = w.column1"
        )
    };
}

statements! {
    BIRTHS_64 = births!(64);
    BIRTHS_16 = births!(16);
    BIRTHS_4 = births!(4);
    BIRTHS_1 = births!(1);
    EVENTS_64 = events!(64);
    EVENTS_16 = events!(16);
    EVENTS_4 = events!(4);
    EVENTS_1 = events!(1);
    WRITES_64 = writes!(64);
    WRITES_16 = writes!(16);
    WRITES_4 = writes!(4);
    WRITES_1 = writes!(1);
    /// An outbox row that is there already is made anew: its holder may be about to delete it for an earlier publication,
    /// which a fresh token-less row survives.
    QUEUE = "INSERT INTO outbox (task_id, created_at, due_at) SELECT value, ?2, ?2 FROM json_each(?1) WHERE true
        ON CONFLICT (task_id) DO UPDATE SET due_at = excluded.due_at, token = NULL, reason = NULL, deferred = 0";
    UNQUEUE = "DELETE FROM outbox WHERE task_id IN (SELECT value FROM json_each(?1))";
    LOST = "INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at, ended)
        SELECT t.id, t.fence, t.attempt, t.owner, h.build, t.version, t.digest, t.started_at, ?2, 'host_lost'
        FROM tasks t LEFT JOIN hosts h ON h.id = t.owner WHERE t.id IN (SELECT value FROM json_each(?1))";
    ONE = locked!("WHERE t.id = ?2");
    THESE = locked!("WHERE t.id IN (SELECT value FROM json_each(?2))");
}

const BIRTHS: Many = Many([BIRTHS_64, BIRTHS_16, BIRTHS_4, BIRTHS_1]);
const EVENTS: Many = Many([EVENTS_64, EVENTS_16, EVENTS_4, EVENTS_1]);
const WRITES: Many = Many([WRITES_64, WRITES_16, WRITES_4, WRITES_1]);

/// SQLite's clock is this machine's, as fine as it is stored.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Begin an operation within the writer's transaction: what it writes is undone if it fails. Returns the time, read after
/// the wait for the writer.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<(Transaction<'_, Sqlite>, DateTime<Utc>), Fault> {
    let tx = connection.begin().await?;
    Ok((tx, now()))
}

/// A line of a task's history.
pub(super) struct NewEvent<'a> {
    pub id: TaskId,
    pub seq: i64,
    pub event: Event,
    pub attempt: u32,
    pub fence: Fence,
    pub host: Option<HostId>,
    pub digest: Option<&'a str>,
    pub detail: Option<&'a str>,
    /// When it happened; `None`: now.
    pub at: Option<DateTime<Utc>>,
}

/// Append to the history.
pub(super) async fn append_events(
    connection: &mut SqliteConnection,
    lines: &[NewEvent<'_>],
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let at = stamp(now);
    for (statement, part) in EVENTS.parts(lines) {
        let mut insert = query(statement);
        for line in part {
            let at = line.at.map_or_else(|| at.clone(), stamp);
            insert = insert
                .bind(line.id.hyphenated())
                .bind(line.seq)
                .bind(at)
                .bind(line.event.as_str())
                .bind((line.attempt > 0).then_some(line.attempt))
                .bind((line.fence > 0).then_some(line.fence))
                .bind(line.host.map(|id| id.hyphenated()))
                .bind(line.digest)
                .bind(line.detail);
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Insert rows of which none exists, each with its first event. What goes to its queue is left to the caller.
pub(super) async fn insert_tasks(
    connection: &mut SqliteConnection,
    births: &[Birth<'_>],
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let at = stamp(now);
    for (statement, part) in BIRTHS.parts(births) {
        let mut insert = query(statement);
        for birth in part {
            let at = birth.at.map_or_else(|| at.clone(), stamp);
            let times = Times::of(birth.state, &at);
            insert = insert
                .bind(birth.id.hyphenated())
                .bind(&*birth.plugin)
                .bind(&*birth.plugin_name)
                .bind(&*birth.queue)
                .bind(birth.state.as_str())
                .bind(birth.version)
                .bind(birth.digest)
                .bind(birth.input)
                .bind(birth.fingerprint)
                .bind(birth.failure.as_deref())
                .bind(birth.max_attempts)
                .bind(birth.attempt)
                .bind(birth.fence)
                .bind(birth.owner.map(|id| id.hyphenated()))
                .bind(birth.priority)
                .bind(birth.labels.as_str())
                .bind(birth.options.as_str())
                .bind(birth.reply_to)
                .bind(birth.correlation_id)
                .bind(birth.traceparent)
                .bind(birth.run_at.map(stamp))
                .bind(birth.deadline.map(stamp))
                .bind(birth.retry_of.map(|id| id.hyphenated()))
                .bind(birth.waiting_code.map(WaitCode::as_str))
                .bind(birth.waiting_detail.as_deref())
                .bind(at.clone())
                .bind(times.started.map(str::to_owned))
                .bind(times.finished.map(str::to_owned))
                .bind(times.waiting.map(str::to_owned))
                .bind(kill_at(birth.allowed, now));
        }
        insert.execute(&mut *connection).await?;
    }
    let lines: Vec<NewEvent<'_>> = births
        .iter()
        .map(|birth| NewEvent {
            id: birth.id,
            seq: 1,
            event: birth.event,
            attempt: birth.attempt,
            fence: birth.fence,
            host: birth.host,
            digest: birth.digest,
            detail: birth.detail.as_deref(),
            at: birth.at,
        })
        .collect();
    append_events(connection, &lines, now).await
}

/// Change rows that were read in this transaction, each with its event. What goes to its queue is left to the caller.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    writes: &[Write],
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let at = stamp(now);
    let lost = json_ids(writes.iter().filter(|write| write.lost).map(|write| write.id));
    if lost != "[]" {
        query(LOST).bind(lost).bind(at.as_str()).execute(&mut *connection).await?;
    }
    for (statement, part) in WRITES.parts(writes) {
        let mut update = query(statement);
        for write in part {
            let at = write.at.map_or_else(|| at.clone(), stamp);
            let times = Times::of(write.state, &at);
            update = update
                .bind(write.id.hyphenated())
                .bind(write.state.as_str())
                .bind(write.fence)
                .bind(write.owner.map(|id| id.hyphenated()))
                .bind(write.attempt)
                .bind(write.max_attempts)
                .bind(write.host_losses)
                .bind(write.version.as_deref())
                .bind(write.digest.as_deref())
                .bind(write.failure.as_deref())
                .bind(write.waiting_code.map(WaitCode::as_str))
                .bind(write.waiting_detail.as_deref())
                .bind(times.started.map(str::to_owned))
                .bind(times.finished.map(str::to_owned))
                .bind(times.waiting.map(str::to_owned))
                .bind(write.last_seq + 1)
                .bind(kill_at(write.allowed, now));
        }
        let changed = update.execute(&mut *connection).await?.rows_affected();
        if changed != part.len() as u64 {
            return Err(Fault::Defect(format!("{} rows were read and {changed} were changed", part.len())));
        }
    }
    let lines: Vec<NewEvent<'_>> = writes
        .iter()
        .map(|write| NewEvent {
            id: write.id,
            seq: write.last_seq + 1,
            event: write.event,
            attempt: write.attempt,
            fence: write.fence,
            host: write.host,
            digest: write.digest.as_deref(),
            detail: write.detail.as_deref(),
            at: write.at,
        })
        .collect();
    append_events(connection, &lines, now).await?;
    let ended =
        json_ids(writes.iter().filter(|write| write.state.is_terminal() && !write.outbox).map(|write| write.id));
    if ended != "[]" {
        query(UNQUEUE).bind(ended).execute(connection).await?;
    }
    Ok(())
}

/// The times that follow from a state.
struct Times<'a> {
    started: Option<&'a str>,
    finished: Option<&'a str>,
    waiting: Option<&'a str>,
}

impl<'a> Times<'a> {
    fn of(state: State, now: &'a str) -> Times<'a> {
        Times {
            started: (state == State::Running).then_some(now),
            finished: state.is_terminal().then_some(now),
            waiting: (state != State::Running && !state.is_terminal()).then_some(now),
        }
    }
}

/// A row as it stands in this transaction.
pub(super) async fn one(
    connection: &mut SqliteConnection,
    id: TaskId,
    now: DateTime<Utc>,
) -> Result<Option<Locked>, Fault> {
    let row = query(ONE).bind(stamp(now)).bind(id.hyphenated()).fetch_optional(connection).await?;
    row.as_ref().map(read_locked).transpose()
}

/// Rows as they stand in this transaction, by id; without those that do not exist.
pub(super) async fn read_rows(
    connection: &mut SqliteConnection,
    ids: impl IntoIterator<Item = TaskId>,
    now: DateTime<Utc>,
) -> Result<HashMap<TaskId, Locked>, Fault> {
    let rows = query(THESE).bind(stamp(now)).bind(json_ids(ids)).fetch_all(connection).await?;
    rows.iter().map(|row| read_locked(row).map(|locked| (locked.id, locked))).collect()
}

/// A row selected by `locked!`.
pub(super) fn read_locked(row: &sqlx::sqlite::SqliteRow) -> Result<Locked, Fault> {
    let mut locked = rows::locked(row)?;
    locked.row.owner_alive = row.flag("owner_alive")?;
    locked.owner_may_live = row.flag("owner_may_live")?;
    locked.created_at = row.time("created_at")?;
    Ok(locked)
}

/// The hard deadline of an attempt that begins now.
fn kill_at(allowed: Option<i64>, now: DateTime<Utc>) -> Option<String> {
    allowed.map(|micros| stamp(now + chrono::TimeDelta::microseconds(micros)))
}
