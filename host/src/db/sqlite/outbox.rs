//! The outbox: taken under a token, deleted or given back by it.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::bounded;
use super::super::{OutboxBatch, OutboxReason, rows};
use super::many::json_ids;
use super::transition::{UNQUEUE, begin};
use crate::task::TaskId;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};
use std::time::Duration;
use uuid::Uuid;

statements! {
    /// What is due, oldest first. A row whose task has ended, or is gone, comes without a message.
    DUE = "SELECT o.task_id, o.deferred, t.id, t.queue, t.plugin, t.input, t.options, t.fingerprint, t.reply_to,
            t.correlation_id, t.traceparent
        FROM (SELECT * FROM outbox WHERE due_at <= ?1 ORDER BY due_at, task_id LIMIT ?2) o LEFT JOIN tasks t
            ON t.id = o.task_id AND t.state NOT IN ('completed', 'failed', 'cancelled') AND t.fingerprint IS NOT NULL
        ORDER BY o.created_at, o.task_id";
    HOLD = "UPDATE outbox SET token = ?2, due_at = ?3 WHERE task_id IN (SELECT value FROM json_each(?1))";
    DROP = "DELETE FROM outbox WHERE token = ?1 AND task_id IN (SELECT value FROM json_each(?2))";
    DEFER = "UPDATE outbox SET token = NULL, reason = ?3, deferred = deferred + 1, due_at = ?4
        WHERE token = ?1 AND task_id IN (SELECT value FROM json_each(?2))";
}

pub(super) async fn take(connection: &mut SqliteConnection, limit: u32, ttl: Duration) -> Result<OutboxBatch, Fault> {
    let token = Uuid::new_v4();
    let (mut tx, now) = begin(connection).await?;
    let due = query(DUE).bind(stamp(now)).bind(limit).fetch_all(&mut *tx).await?;
    if due.is_empty() {
        return Ok(OutboxBatch { token, rows: Vec::new() });
    }
    let (held, ended): (Vec<_>, Vec<_>) = due.iter().partition(|row| matches!(row.id("id"), Ok(Some(_))));
    let ids = |rows: &[&SqliteRow]| {
        let ids = rows.iter().map(|row| need(row.id("task_id")?, "task_id")).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, Fault>(json_ids(ids))
    };
    if !ended.is_empty() {
        query(UNQUEUE).bind(ids(&ended)?).execute(&mut *tx).await?;
    }
    if !held.is_empty() {
        let until = stamp(now + bounded(ttl));
        query(HOLD).bind(ids(&held)?).bind(token.hyphenated()).bind(until).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(OutboxBatch { token, rows: held.into_iter().map(rows::outbox).collect::<Result<_, _>>()? })
}

pub(super) async fn drop_rows(connection: &mut SqliteConnection, token: Uuid, ids: &[TaskId]) -> Result<(), Fault> {
    let (mut tx, _) = begin(connection).await?;
    query(DROP).bind(token.hyphenated()).bind(json_ids(ids.iter().copied())).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn defer(
    connection: &mut SqliteConnection,
    token: Uuid,
    ids: &[TaskId],
    reason: OutboxReason,
    delay: Duration,
) -> Result<(), Fault> {
    let (mut tx, now) = begin(connection).await?;
    let until = stamp(now + bounded(delay));
    query(DEFER)
        .bind(token.hyphenated())
        .bind(json_ids(ids.iter().copied()))
        .bind(reason.as_str())
        .bind(until)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}
