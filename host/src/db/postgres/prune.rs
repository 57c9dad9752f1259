//! Forgetting: terminal tasks with all their lines, dead letters and ended hosts, a few at a time.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, LINES_DELETED, fitting};
use super::super::{Prunable, PrunePlan, Retention};
use super::hosts::interval;
use crate::task::{State, TaskId};
use sqlx::{Connection, PgConnection, query};

statements! {
    /// The statement's own time: `clock_timestamp()` may change from row to row, so that it bounds no search in an index, and
    /// all that is kept would be read to find that none of it is past its time.
    ///
    /// A retry stays as long as the task that it repeats, which would be retried once more without it. (A subquery and not
    /// `EXISTS`, which under `OR` hashes the ids of all tasks.)
    COMPLETED = fitting!("$3::bigint", "finished_at, id", "SELECT t.id, t.finished_at, t.last_seq + t.log_seq AS lines FROM tasks t
            WHERE t.state = 'completed' AND t.finished_at < statement_timestamp() - $1::interval
            AND (t.retry_of IS NULL OR (SELECT o.id FROM tasks o WHERE o.id = t.retry_of) IS NULL)
        ORDER BY t.finished_at LIMIT $2 FOR UPDATE OF t SKIP LOCKED");
    OTHERS = fitting!("$3::bigint", "finished_at, id", "SELECT id, finished_at, last_seq + log_seq AS lines FROM tasks
        WHERE state IN ('failed', 'cancelled') AND finished_at < statement_timestamp() - $1::interval
        ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED");
    /// Rows that others lock without a lock on their task are locked in the order of ids: see [`outbox`](super::outbox).
    FORGET = "WITH events AS (DELETE FROM task_events WHERE task_id = ANY($1)),
        attempts AS (DELETE FROM task_attempts WHERE task_id = ANY($1)),
        logs AS (DELETE FROM task_logs WHERE task_id = ANY($1)),
        calls AS (DELETE FROM task_calls WHERE task_id = ANY($1)),
        bodies AS (DELETE FROM task_call_bodies WHERE task_id = ANY($1)),
        spent AS (DELETE FROM task_spending WHERE (task_id, kind) IN (SELECT task_id, kind FROM task_spending
            WHERE task_id = ANY($1) ORDER BY task_id, kind FOR UPDATE)),
        queued AS (DELETE FROM outbox WHERE task_id IN (SELECT task_id FROM outbox WHERE task_id = ANY($1)
            ORDER BY task_id FOR UPDATE))
        DELETE FROM tasks WHERE id = ANY($1)";
    LETTERS = "DELETE FROM dead_letters WHERE id IN (
        SELECT id FROM dead_letters WHERE at < statement_timestamp() - $1::interval ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";
    PAST = "SELECT count(*) AS past, min(finished_at) AS oldest FROM tasks
        WHERE state = $1 AND finished_at < statement_timestamp() - $2::interval";
    /// Of what is past its time: retries that stay, and the oldest that does not. Apart, so that the others are counted in
    /// their index alone.
    STAYING = "SELECT count(*) AS past, (
            SELECT t.finished_at FROM tasks t
            WHERE t.state = 'completed' AND t.finished_at < statement_timestamp() - $1::interval
                AND (t.retry_of IS NULL OR (SELECT o.id FROM tasks o WHERE o.id = t.retry_of) IS NULL)
            ORDER BY t.finished_at LIMIT 1) AS oldest
        FROM tasks r WHERE r.retry_of IS NOT NULL AND r.state = 'completed'
            AND r.finished_at < statement_timestamp() - $1::interval
            AND (SELECT o.id FROM tasks o WHERE o.id = r.retry_of) IS NOT NULL";
    PAST_LETTERS = "SELECT count(*) AS past, min(at) AS oldest FROM dead_letters WHERE at < statement_timestamp() - $1::interval";
    /// What was spent on days long gone.
    DAYS = "DELETE FROM spending WHERE (plugin, day, kind) IN (SELECT plugin, day, kind FROM spending
        WHERE day < CAST(statement_timestamp() AS date) - CAST($1 AS integer)
        ORDER BY plugin, day, kind FOR UPDATE SKIP LOCKED)";
    HOSTS = "DELETE FROM hosts WHERE id IN (SELECT h.id FROM hosts h WHERE h.lease_until < statement_timestamp() - $1::interval
        AND NOT EXISTS (SELECT FROM tasks t WHERE t.owner = h.id AND t.state = 'running')
        ORDER BY h.id FOR UPDATE SKIP LOCKED)";
}

pub(super) async fn prune(connection: &mut PgConnection, keep: Retention, limit: u32) -> Result<u64, Fault> {
    let (mut left, mut lines) = (i64::from(limit), LINES_DELETED);
    let mut tx = connection.begin().await?;
    let mut ids: Vec<TaskId> = Vec::new();
    for (statement, kept) in [(COMPLETED, keep.completed), (OTHERS, keep.failed)] {
        let rows = query(statement).bind(interval(kept)).bind(left).bind(lines).fetch_all(&mut *tx).await?;
        for row in &rows {
            ids.push(need(row.id("id")?, "id")?);
        }
        left -= rows.len() as i64;
        lines -= rows.last().map(|row| need(row.int("total")?, "total")).transpose()?.unwrap_or_default();
        if lines <= 0 {
            break;
        }
    }
    if !ids.is_empty() {
        query(FORGET).bind(&ids).execute(&mut *tx).await?;
    }
    let letters = query(LETTERS).bind(interval(keep.dead)).bind(left).execute(&mut *tx).await?.rows_affected();
    query(DAYS).bind(plan::SPENDING_KEPT).execute(&mut *tx).await?;
    query(HOSTS).bind(interval(plan::HOST_SHOWN)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(ids.len() as u64 + letters)
}

pub(super) async fn prunable(connection: &mut PgConnection, keep: Retention) -> Result<PrunePlan, Fault> {
    let mut past = [Prunable::default(); 3];
    let kinds = [(State::Completed, keep.completed), (State::Failed, keep.failed), (State::Cancelled, keep.failed)];
    for (slot, (state, kept)) in past.iter_mut().zip(kinds) {
        *slot = read(&query(PAST).bind(state.as_str()).bind(interval(kept)).fetch_one(&mut *connection).await?)?;
    }
    let staying = read(&query(STAYING).bind(interval(keep.completed)).fetch_one(&mut *connection).await?)?;
    past[0] = Prunable { count: past[0].count - staying.count, oldest: staying.oldest };
    let dead = read(&query(PAST_LETTERS).bind(interval(keep.dead)).fetch_one(connection).await?)?;
    let [completed, failed, cancelled] = past;
    Ok(PrunePlan { completed, failed, cancelled, dead })
}

fn read(row: &impl Cells) -> Result<Prunable, Fault> {
    Ok(Prunable { count: need(row.int("past")?, "past")?, oldest: row.time("oldest")? })
}
