//! Giving birth to rows and changing them, each with the event that tells of it. Always inside `BEGIN IMMEDIATE`: there is
//! one writer, and what it has read stays so until it commits.

use super::super::cells::{Cells, stamp};
use super::super::fault::Fault;
use super::super::plan::{Birth, Locked, Write};
use super::super::rows;
use crate::task::{TaskId, WaitCode};
use chrono::{DateTime, SubsecRound, Utc};
use sqlx::{Connection, Sqlite, SqliteConnection, Transaction, query};

/// What is selected of a row before it is changed (`?1`: now), and the statement around it.
macro_rules! locked {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.state, t.fence, t.owner, t.run_at, t.deadline, t.cancel_requested, t.fingerprint, t.burnt,
            t.max_attempts, t.host_losses, t.child_losses, t.snoozes, t.waiting_code, t.plugin, t.attempt, t.version,
            t.digest, t.started_at, t.last_seq, COALESCE(h.lease_until > ?1, 0) AS owner_alive,
            COALESCE(h.lease_until > ?1 OR NOT h.ended, 0) AS owner_may_live,
            t.state = 'running' AND COALESCE(t.kill_at > t.started_at AND t.kill_at <= ?1, 0) AS overdue
            FROM tasks t LEFT JOIN hosts h ON h.id = t.owner ",
            $rest
        )
    };
}
pub(super) use locked;

statements! {
    BIRTH = "INSERT INTO tasks (id, plugin, plugin_name, queue, state, version, digest, input, fingerprint, failure,
            max_attempts, attempt, fence, owner, priority, labels, options, reply_to, correlation_id, traceparent, run_at,
            deadline, retry_of, waiting_code, waiting_detail, created_at, started_at, finished_at, waiting_since,
            kill_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
            ?24, ?25, ?26,
            CASE WHEN ?5 = 'running' THEN ?26 END,
            CASE WHEN ?5 IN ('completed', 'failed', 'cancelled') THEN ?26 END,
            CASE WHEN ?5 IN ('scheduled', 'pending', 'retrying') THEN ?26 END, ?27)
        ON CONFLICT (id) DO NOTHING";
    EVENT = "INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail)
        VALUES (?1, ?2, ?3, ?4, NULLIF(?5, 0), NULLIF(?6, 0), ?7, ?8, ?9)";
    /// An outbox row that is there already is made anew: its holder may be about to delete it for an earlier publication,
    /// which a fresh token-less row survives.
    QUEUE = "INSERT INTO outbox (task_id, created_at, due_at) VALUES (?1, ?2, ?2)
        ON CONFLICT (task_id) DO UPDATE SET due_at = excluded.due_at, token = NULL, reason = NULL, deferred = 0";
    UNQUEUE = "DELETE FROM outbox WHERE task_id = ?1";
    LOST = "INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at, ended)
        SELECT t.id, t.fence, t.attempt, t.owner, h.build, t.version, t.digest, t.started_at, ?2, 'host_lost'
        FROM tasks t LEFT JOIN hosts h ON h.id = t.owner WHERE t.id = ?1";
    WRITE = "UPDATE tasks SET state = ?2, fence = ?3, owner = ?4, attempt = ?5, max_attempts = ?6, host_losses = ?7,
            version = ?8, digest = ?9, failure = COALESCE(?10, failure), waiting_code = ?11, waiting_detail = ?12,
            started_at = CASE WHEN ?2 = 'running' THEN ?13 ELSE started_at END,
            finished_at = CASE WHEN ?2 IN ('completed', 'failed', 'cancelled') THEN ?13 END,
            waiting_since = CASE WHEN ?2 IN ('scheduled', 'pending', 'retrying') THEN ?13 END,
            rescued_at = NULL, last_seq = ?14, kill_at = ?15
        WHERE id = ?1";
    ONE = locked!("WHERE t.id = ?2");
}

/// SQLite's clock is this machine's, as fine as it is stored.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Begin a transaction that writes, and tell the time: after the wait for the one writer's turn.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<(Transaction<'_, Sqlite>, DateTime<Utc>), Fault> {
    let tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    Ok((tx, now()))
}

/// Insert a row; answers whether there was none.
pub(super) async fn give_birth(
    connection: &mut SqliteConnection,
    birth: &Birth<'_>,
    now: DateTime<Utc>,
) -> Result<bool, Fault> {
    let inserted = query(BIRTH)
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
        .bind(stamp(now))
        .bind(kill_at(birth.allowed, now))
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    query(EVENT)
        .bind(birth.id.hyphenated())
        .bind(1)
        .bind(stamp(now))
        .bind(birth.event.as_str())
        .bind(birth.attempt)
        .bind(birth.fence)
        .bind(birth.host.map(|id| id.hyphenated()))
        .bind(birth.digest)
        .bind(birth.detail.as_deref())
        .execute(&mut *connection)
        .await?;
    if birth.outbox {
        enqueue(connection, birth.id, now).await?;
    }
    Ok(true)
}

/// Change a row that was read in this transaction.
pub(super) async fn write(connection: &mut SqliteConnection, write: &Write, now: DateTime<Utc>) -> Result<(), Fault> {
    let id = write.id.hyphenated();
    if write.lost {
        query(LOST).bind(id).bind(stamp(now)).execute(&mut *connection).await?;
    }
    let seq = write.last_seq + 1;
    let changed = query(WRITE)
        .bind(id)
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
        .bind(stamp(now))
        .bind(seq)
        .bind(kill_at(write.allowed, now))
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if changed != 1 {
        return Err(Fault::Defect(format!("a row was read and {changed} were changed")));
    }
    query(EVENT)
        .bind(id)
        .bind(seq)
        .bind(stamp(now))
        .bind(write.event.as_str())
        .bind(write.attempt)
        .bind(write.fence)
        .bind(write.host.map(|id| id.hyphenated()))
        .bind(write.digest.as_deref())
        .bind(write.detail.as_deref())
        .execute(&mut *connection)
        .await?;
    if write.outbox {
        enqueue(connection, write.id, now).await?;
    } else if write.state.is_terminal() {
        query(UNQUEUE).bind(id).execute(connection).await?;
    }
    Ok(())
}

/// Put a task into the outbox, due now.
pub(super) async fn enqueue(connection: &mut SqliteConnection, id: TaskId, now: DateTime<Utc>) -> Result<(), Fault> {
    query(QUEUE).bind(id.hyphenated()).bind(stamp(now)).execute(connection).await?;
    Ok(())
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

/// A row selected by `locked!`.
pub(super) fn read_locked(row: &sqlx::sqlite::SqliteRow) -> Result<Locked, Fault> {
    let mut locked = rows::locked(row)?;
    locked.row.owner_alive = row.flag("owner_alive")?;
    locked.owner_may_live = row.flag("owner_may_live")?;
    Ok(locked)
}

/// The hard deadline of an attempt that begins now.
fn kill_at(allowed: Option<i64>, now: DateTime<Utc>) -> Option<String> {
    allowed.map(|micros| stamp(now + chrono::TimeDelta::microseconds(micros)))
}
