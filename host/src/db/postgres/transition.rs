//! The two statements that give birth to rows and change rows under lock, each with the events that tell of it.

use super::super::Claimant;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{Birth, Locked, Write};
use super::super::rows;
use crate::task::{HostId, TaskId, WaitCode};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, query};
use std::collections::HashMap;

/// What is selected of a row under lock, and the statement around it.
macro_rules! locked {
    ($($rest:expr),+) => {
        concat!(
            "SELECT t.id, t.state, t.fence, t.owner, t.run_at, t.deadline, t.cancel_requested, t.fingerprint, t.burnt,
            t.max_attempts, t.host_losses, t.child_losses, t.snoozes, t.waiting_code, t.plugin, t.attempt, t.version,
            t.digest, t.started_at, t.last_seq,
            t.state = 'running' AND COALESCE(t.kill_at > t.started_at AND t.kill_at <= clock_timestamp(), false) AS overdue
            FROM tasks t ",
            $($rest),+
        )
    };
}
pub(super) use locked;

statements! {
    /// Insert rows that are not there yet, each with its first event and, if it says so, its outbox row. The large columns
    /// are unnested once, and only there, so that they are never copied into an intermediate result.
    BIRTH = "WITH born AS (
        INSERT INTO tasks (id, plugin, plugin_name, queue, state, version, digest, input, fingerprint, failure, max_attempts,
            attempt, fence, owner, priority, labels, options, reply_to, correlation_id, traceparent, run_at, deadline,
            retry_of, waiting_code, waiting_detail, kill_at, created_at, started_at, finished_at, waiting_since)
        SELECT i.id, i.plugin, i.plugin_name, i.queue, i.state, i.version, i.digest, i.input, i.fingerprint, i.failure,
            i.max_attempts, i.attempt, i.fence, i.owner, i.priority, i.labels, i.options, i.reply_to, i.correlation_id,
            i.traceparent, i.run_at, i.deadline, i.retry_of, i.waiting_code, i.waiting_detail,
            statement_timestamp() + i.allowed * interval '1 microsecond', statement_timestamp(),
            CASE WHEN i.state = 'running' THEN statement_timestamp() END,
            CASE WHEN i.state IN ('completed', 'failed', 'cancelled') THEN statement_timestamp() END,
            CASE WHEN i.state IN ('scheduled', 'pending', 'retrying') THEN statement_timestamp() END
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bytea[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::uuid[], $15::bigint[],
            $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::timestamptz[], $22::timestamptz[],
            $23::uuid[], $24::text[], $25::text[], $30::bigint[])
            AS i(id, plugin, plugin_name, queue, state, version, digest, input, fingerprint, failure, max_attempts,
            attempt, fence, owner, priority, labels, options, reply_to, correlation_id, traceparent, run_at, deadline,
            retry_of, waiting_code, waiting_detail, allowed)
        ON CONFLICT (id) DO NOTHING
        RETURNING id, attempt, fence, digest
    ), said AS (
        SELECT * FROM unnest($1::uuid[], $26::text[], $27::uuid[], $28::text[], $29::boolean[])
            AS e(id, event, host, detail, outbox)
    ), told AS (
        INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail)
        SELECT b.id, 1, statement_timestamp(), e.event, NULLIF(b.attempt, 0), NULLIF(b.fence, 0), e.host, b.digest, e.detail
        FROM born b JOIN said e USING (id)
    ), queued AS (
        INSERT INTO outbox (task_id, created_at, due_at)
        SELECT b.id, statement_timestamp(), statement_timestamp() FROM born b JOIN said e USING (id) WHERE e.outbox
        ORDER BY b.id
        ON CONFLICT (task_id) DO UPDATE
            SET due_at = EXCLUDED.due_at, token = NULL, reason = NULL, deferred = 0
    )
    SELECT id, statement_timestamp() AS at FROM born";
    /// Change rows that this transaction has locked. An outbox row that is there already is made anew: its holder may be
    /// about to delete it for an earlier publication, which a fresh token-less row survives.
    WRITE = "WITH w AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::uuid[],
            $16::text[], $17::boolean[], $18::boolean[], $19::bigint[])
            AS w(id, state, fence, owner, attempt, max_attempts, host_losses, version, digest, failure, waiting_code,
            waiting_detail, last_seq, event, host, detail, outbox, lost, allowed)
    ), lost AS (
        INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at, ended)
        SELECT t.id, t.fence, t.attempt, t.owner, h.build, t.version, t.digest, t.started_at, statement_timestamp(),
            'host_lost'
        FROM w JOIN tasks t ON t.id = w.id LEFT JOIN hosts h ON h.id = t.owner WHERE w.lost
    ), changed AS (
        UPDATE tasks t SET state = w.state, fence = w.fence, owner = w.owner, attempt = w.attempt,
            max_attempts = w.max_attempts, host_losses = w.host_losses, version = w.version, digest = w.digest,
            failure = COALESCE(w.failure, t.failure), waiting_code = w.waiting_code, waiting_detail = w.waiting_detail,
            started_at = CASE WHEN w.state = 'running' THEN statement_timestamp() ELSE t.started_at END,
            finished_at = CASE WHEN w.state IN ('completed', 'failed', 'cancelled') THEN statement_timestamp() END,
            waiting_since = CASE WHEN w.state IN ('scheduled', 'pending', 'retrying') THEN statement_timestamp() END,
            rescued_at = NULL, kill_at = statement_timestamp() + w.allowed * interval '1 microsecond',
            last_seq = w.last_seq + 1
        FROM w WHERE t.id = w.id
        RETURNING t.id, t.state, t.last_seq, t.attempt, t.fence, t.digest, w.event, w.host, w.detail, w.outbox
    ), told AS (
        INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail)
        SELECT id, last_seq, statement_timestamp(), event, NULLIF(attempt, 0), NULLIF(fence, 0), host, digest, detail
        FROM changed
    ), queued AS (
        INSERT INTO outbox (task_id, created_at, due_at)
        SELECT id, statement_timestamp(), statement_timestamp() FROM changed WHERE outbox ORDER BY id
        ON CONFLICT (task_id) DO UPDATE
            SET due_at = EXCLUDED.due_at, token = NULL, reason = NULL, deferred = 0
    ), unqueued AS (
        DELETE FROM outbox WHERE task_id IN (
            SELECT o.task_id FROM changed c JOIN outbox o ON o.task_id = c.id
            WHERE c.state IN ('completed', 'failed', 'cancelled') ORDER BY o.task_id FOR UPDATE OF o)
    )
    SELECT id, statement_timestamp() AS at FROM changed";
    /// Leases as they are now, in a snapshot taken after the rows were locked: read with them, a lease would be as old
    /// as the wait for the lock, and that of an owner who came in the meantime would be missing.
    LEASES = "SELECT id, lease_until > clock_timestamp() AS alive, lease_until > clock_timestamp() OR NOT ended AS may_live FROM hosts WHERE id = ANY($1)";
}

/// One column of a batch.
pub(super) fn column<'a, T, U>(rows: &'a [T], of: impl Fn(&'a T) -> U) -> Vec<U> {
    rows.iter().map(of).collect()
}

/// Insert rows; answers which were not there, and when.
pub(super) async fn give_birth(
    connection: &mut PgConnection,
    births: &[Birth<'_>],
) -> Result<HashMap<TaskId, DateTime<Utc>>, Fault> {
    if births.is_empty() {
        return Ok(HashMap::new());
    }
    // In the order of ids: two batches that insert the same ids wait for each other.
    let mut births: Vec<&Birth<'_>> = births.iter().collect();
    births.sort_by_key(|birth| birth.id);
    let births = &births;
    let rows = query(BIRTH)
        .bind(column(births, |b| b.id))
        .bind(column(births, |b| &*b.plugin))
        .bind(column(births, |b| &*b.plugin_name))
        .bind(column(births, |b| &*b.queue))
        .bind(column(births, |b| b.state.as_str()))
        .bind(column(births, |b| b.version))
        .bind(column(births, |b| b.digest))
        .bind(column(births, |b| b.input))
        .bind(column(births, |b| b.fingerprint))
        .bind(column(births, |b| b.failure.as_deref()))
        .bind(column(births, |b| i64::from(b.max_attempts)))
        .bind(column(births, |b| i64::from(b.attempt)))
        .bind(column(births, |b| b.fence))
        .bind(column(births, |b| b.owner))
        .bind(column(births, |b| i64::from(b.priority)))
        .bind(column(births, |b| b.labels.as_str()))
        .bind(column(births, |b| b.options.as_str()))
        .bind(column(births, |b| b.reply_to))
        .bind(column(births, |b| b.correlation_id))
        .bind(column(births, |b| b.traceparent))
        .bind(column(births, |b| b.run_at))
        .bind(column(births, |b| b.deadline))
        .bind(column(births, |b| b.retry_of))
        .bind(column(births, |b| b.waiting_code.map(WaitCode::as_str)))
        .bind(column(births, |b| b.waiting_detail.as_deref()))
        .bind(column(births, |b| b.event.as_str()))
        .bind(column(births, |b| b.host))
        .bind(column(births, |b| b.detail.as_deref()))
        .bind(column(births, |b| b.outbox))
        .bind(column(births, |b| b.allowed))
        .fetch_all(connection)
        .await?;
    written(&rows)
}

/// Change rows that are under lock; answers when.
pub(super) async fn write(
    connection: &mut PgConnection,
    writes: &[Write],
) -> Result<HashMap<TaskId, DateTime<Utc>>, Fault> {
    if writes.is_empty() {
        return Ok(HashMap::new());
    }
    // The tasks are under lock in whatever order; their outbox rows are locked in the order of ids.
    let mut writes: Vec<&Write> = writes.iter().collect();
    writes.sort_by_key(|write| write.id);
    let writes = &writes;
    let rows = query(WRITE)
        .bind(column(writes, |w| w.id))
        .bind(column(writes, |w| w.state.as_str()))
        .bind(column(writes, |w| w.fence))
        .bind(column(writes, |w| w.owner))
        .bind(column(writes, |w| i64::from(w.attempt)))
        .bind(column(writes, |w| i64::from(w.max_attempts)))
        .bind(column(writes, |w| i64::from(w.host_losses)))
        .bind(column(writes, |w| w.version.as_deref()))
        .bind(column(writes, |w| w.digest.as_deref()))
        .bind(column(writes, |w| w.failure.as_deref()))
        .bind(column(writes, |w| w.waiting_code.map(WaitCode::as_str)))
        .bind(column(writes, |w| w.waiting_detail.as_deref()))
        .bind(column(writes, |w| w.last_seq))
        .bind(column(writes, |w| w.event.as_str()))
        .bind(column(writes, |w| w.host))
        .bind(column(writes, |w| w.detail.as_deref()))
        .bind(column(writes, |w| w.outbox))
        .bind(column(writes, |w| w.lost))
        .bind(column(writes, |w| w.allowed))
        .fetch_all(connection)
        .await?;
    if rows.len() != writes.len() {
        return Err(Fault::Defect(format!("{} rows were under lock and {} were changed", writes.len(), rows.len())));
    }
    written(&rows)
}

fn written(rows: &[PgRow]) -> Result<HashMap<TaskId, DateTime<Utc>>, Fault> {
    rows.iter().map(|row| Ok((need(row.id("id")?, "id")?, need(row.time("at")?, "at")?))).collect()
}

/// Rows that were just locked, with what their owners' leases say now. `me` needs no lease to know itself.
pub(super) async fn with_leases(
    connection: &mut PgConnection,
    rows: &[PgRow],
    me: Claimant,
) -> Result<Vec<Locked>, Fault> {
    let mut locked: Vec<Locked> = rows.iter().map(rows::locked).collect::<Result<_, _>>()?;
    let mut owners: Vec<HostId> = locked
        .iter()
        .filter(|l| l.row.state == crate::task::State::Running && l.row.owner != Some(me.host))
        .filter_map(|l| l.row.owner)
        .collect();
    owners.sort_unstable();
    owners.dedup();
    if owners.is_empty() {
        return Ok(locked);
    }
    let mut alive = HashMap::new();
    for row in query(LEASES).bind(&owners).fetch_all(connection).await? {
        alive.insert(need(row.id("id")?, "id")?, (row.flag("alive")?, row.flag("may_live")?));
    }
    for row in &mut locked {
        let lease = row.row.owner.and_then(|owner| alive.get(&owner).copied());
        (row.row.owner_alive, row.owner_may_live) = lease.unwrap_or_default();
        row.row.owner_alive = row.owner_alive(me.steady);
    }
    Ok(locked)
}
