//! The outbox: taken under a token, deleted or given back by it.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::{OutboxBatch, OutboxReason, rows};
use super::hosts::interval;
use crate::task::TaskId;
use sqlx::{PgConnection, query};
use std::time::Duration;
use uuid::Uuid;

statements! {
    /// Hold what is due, oldest first; a hold that runs out makes its row due again. A row whose task has ended, or is
    /// gone, comes without a message.
    TAKE = "WITH due AS (
        SELECT task_id FROM outbox WHERE due_at <= statement_timestamp() ORDER BY due_at, task_id LIMIT $1
        FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE outbox o SET token = $2, due_at = clock_timestamp() + $3::interval FROM due WHERE o.task_id = due.task_id
        RETURNING o.task_id, o.created_at, o.deferred
    )
    SELECT k.task_id, k.deferred, t.id, t.queue, t.fence, t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id,
        t.traceparent
    FROM taken k LEFT JOIN tasks t
        ON t.id = k.task_id AND t.state NOT IN ('completed', 'failed', 'cancelled') AND t.fingerprint IS NOT NULL
    ORDER BY k.created_at, k.task_id";
    /// Rows are locked in the order of ids first, as every statement that locks several rows does. A search for many ids
    /// reads the table in its own order, and two transactions with different orders deadlock.
    DROP = "DELETE FROM outbox WHERE token = $1 AND task_id IN (
        SELECT task_id FROM outbox WHERE token = $1 AND task_id = ANY($2) ORDER BY task_id FOR UPDATE)";
    DEFER = "UPDATE outbox SET token = NULL, reason = $3, deferred = deferred + 1, due_at = clock_timestamp() + $4::interval
        WHERE token = $1 AND task_id IN (
            SELECT task_id FROM outbox WHERE token = $1 AND task_id = ANY($2) ORDER BY task_id FOR UPDATE)";
}

pub(super) async fn take(connection: &mut PgConnection, limit: u32, ttl: Duration) -> Result<OutboxBatch, Fault> {
    let token = Uuid::new_v4();
    let taken = query(TAKE).bind(i64::from(limit)).bind(token).bind(interval(ttl)).fetch_all(&mut *connection).await?;
    let mut batch = OutboxBatch { token, rows: Vec::with_capacity(taken.len()) };
    let mut stale: Vec<TaskId> = Vec::new();
    for row in &taken {
        match row.id("id")? {
            Some(_) => batch.rows.push(rows::outbox(row)?),
            None => stale.push(need(row.id("task_id")?, "task_id")?),
        }
    }
    if !stale.is_empty() {
        drop_rows(connection, token, &stale).await?;
    }
    Ok(batch)
}

pub(super) async fn drop_rows(connection: &mut PgConnection, token: Uuid, ids: &[TaskId]) -> Result<(), Fault> {
    query(DROP).bind(token).bind(ids).execute(connection).await?;
    Ok(())
}

pub(super) async fn defer(
    connection: &mut PgConnection,
    token: Uuid,
    ids: &[TaskId],
    reason: OutboxReason,
    delay: Duration,
) -> Result<(), Fault> {
    query(DEFER).bind(token).bind(ids).bind(reason.as_str()).bind(interval(delay)).execute(connection).await?;
    Ok(())
}
