//! Forgetting: terminal tasks with all their lines, dead letters and ended hosts, a few at a time.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, LINES_DELETED, bounded, fitting};
use super::super::{Prunable, PrunePlan, Retention};
use super::transition::{begin, now};
use crate::task::{State, TaskId};
use sqlx::{SqliteConnection, query};

statements! {
    /// A retry stays as long as the task that it repeats, which would be retried once more without it.
    COMPLETED = fitting!("?3", "finished_at, id", "SELECT id, finished_at, last_seq + log_seq AS lines FROM tasks AS t WHERE state = 'completed' AND finished_at < ?1
            AND (retry_of IS NULL OR NOT EXISTS (SELECT 1 FROM tasks o WHERE o.id = t.retry_of))
        ORDER BY finished_at LIMIT ?2");
    OTHERS = fitting!("?3", "finished_at, id", "SELECT id, finished_at, last_seq + log_seq AS lines FROM tasks
        WHERE state IN ('failed', 'cancelled') AND finished_at < ?1 ORDER BY finished_at LIMIT ?2");
    EVENTS = "DELETE FROM task_events WHERE task_id = ?1";
    ATTEMPTS = "DELETE FROM task_attempts WHERE task_id = ?1";
    LOGS = "DELETE FROM task_logs WHERE task_id = ?1";
    CALLS = "DELETE FROM task_calls WHERE task_id = ?1";
    BODIES = "DELETE FROM task_call_bodies WHERE task_id = ?1";
    SPENT = "DELETE FROM task_spending WHERE task_id = ?1";
    OUTBOX = "DELETE FROM outbox WHERE task_id = ?1";
    TASK = "DELETE FROM tasks WHERE id = ?1";
    LETTERS = "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE at < ?1 ORDER BY at LIMIT ?2)";
    PAST = "SELECT count(*) AS past, min(finished_at) AS oldest FROM tasks AS t
        WHERE state = ?1 AND finished_at < ?2 AND (state <> 'completed' OR retry_of IS NULL
            OR NOT EXISTS (SELECT 1 FROM tasks o WHERE o.id = t.retry_of))";
    PAST_LETTERS = "SELECT count(*) AS past, min(at) AS oldest FROM dead_letters WHERE at < ?1";
    /// What was spent on days long gone.
    DAYS = "DELETE FROM spending WHERE day < date(?1, -?2 || ' days')";
    HOSTS = "DELETE FROM hosts WHERE lease_until < ?1
        AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.owner = hosts.id AND t.state = 'running')";
}

pub(super) async fn prune(connection: &mut SqliteConnection, keep: Retention, limit: u32) -> Result<u64, Fault> {
    let (mut left, mut lines) = (i64::from(limit), LINES_DELETED);
    let (mut tx, now) = begin(connection).await?;
    let mut ids: Vec<TaskId> = Vec::new();
    for (statement, kept) in [(COMPLETED, keep.completed), (OTHERS, keep.failed)] {
        let rows = query(statement).bind(stamp(now - bounded(kept))).bind(left).bind(lines).fetch_all(&mut *tx).await?;
        for row in &rows {
            ids.push(need(row.id("id")?, "id")?);
        }
        left -= rows.len() as i64;
        lines -= rows.last().map(|row| need(row.int("total")?, "total")).transpose()?.unwrap_or_default();
        if lines <= 0 {
            break;
        }
    }
    for id in &ids {
        for statement in [EVENTS, ATTEMPTS, LOGS, CALLS, BODIES, SPENT, OUTBOX, TASK] {
            query(statement).bind(id.hyphenated()).execute(&mut *tx).await?;
        }
    }
    let old = stamp(now - bounded(keep.dead));
    let letters = query(LETTERS).bind(old).bind(left).execute(&mut *tx).await?.rows_affected();
    query(DAYS).bind(stamp(now)).bind(plan::SPENDING_KEPT).execute(&mut *tx).await?;
    query(HOSTS).bind(stamp(now - bounded(plan::HOST_SHOWN))).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(ids.len() as u64 + letters)
}

pub(super) async fn prunable(connection: &mut SqliteConnection, keep: Retention) -> Result<PrunePlan, Fault> {
    let now = now();
    let mut past = [Prunable::default(); 3];
    let kinds = [(State::Completed, keep.completed), (State::Failed, keep.failed), (State::Cancelled, keep.failed)];
    for (slot, (state, kept)) in past.iter_mut().zip(kinds) {
        let before = stamp(now - bounded(kept));
        *slot = read(&query(PAST).bind(state.as_str()).bind(before).fetch_one(&mut *connection).await?)?;
    }
    let before = stamp(now - bounded(keep.dead));
    let dead = read(&query(PAST_LETTERS).bind(before).fetch_one(connection).await?)?;
    let [completed, failed, cancelled] = past;
    Ok(PrunePlan { completed, failed, cancelled, dead })
}

fn read(row: &impl Cells) -> Result<Prunable, Fault> {
    Ok(Prunable { count: need(row.int("past")?, "past")?, oldest: row.time("oldest")? })
}
