//! The outbox: taken under a token, deleted or given back by it.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::{OutboxBatch, OutboxReason, OutboxTake, plan, rows};
use super::hosts::interval;
use super::transition::column;
use crate::task::TaskId;
use sqlx::{PgConnection, query};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

statements! {
    /// Hold what is due, oldest first; a hold that runs out makes its row due again. Of the found rows so many are taken as
    /// their payloads have room, of which only the lengths are read before. Rows of the queues in `$5` are made due later
    /// instead, and their payloads are not read. A row whose task has ended, or is gone, comes without a message. `$8` bounds the search from
    /// below.
    TAKE = "WITH found AS (
        SELECT task_id, due_at FROM outbox WHERE due_at <= statement_timestamp() AND ($8::timestamptz IS NULL OR due_at >= $8)
        ORDER BY due_at, task_id LIMIT $1
        FOR UPDATE SKIP LOCKED
    ), looked AS (
        SELECT f.task_id, f.due_at, array_position($5::text[], t.queue) AS aside,
            COALESCE(octet_length(t.input), 0)::bigint AS bytes
        FROM found f LEFT JOIN tasks t ON t.id = f.task_id AND t.state NOT IN ('completed', 'failed', 'cancelled')
    ), due AS (
        SELECT task_id, aside, row_number() OVER w AS n,
            sum(CASE WHEN aside IS NULL THEN bytes ELSE 0 END) OVER w AS total
        FROM looked WINDOW w AS (ORDER BY due_at, task_id)
    ), taken AS (
        UPDATE outbox o SET token = CASE WHEN due.aside IS NULL THEN $2::uuid END,
            reason = CASE WHEN due.aside IS NULL THEN o.reason ELSE ($6::text[])[due.aside] END,
            due_at = clock_timestamp() + CASE WHEN due.aside IS NULL THEN $3::interval ELSE $7::interval END
        FROM due WHERE o.task_id = due.task_id AND (due.n = 1 OR due.total <= $4::bigint)
        RETURNING o.task_id, o.created_at, o.deferred, due.aside IS NOT NULL AS aside
    )
    SELECT k.task_id, k.deferred, k.aside, (SELECT count(*) FROM found) AS found, (SELECT min(due_at) FROM found) AS first_due, t.id, t.queue, t.fence, t.plugin, t.input,
        t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent
    FROM taken k LEFT JOIN tasks t ON t.id = k.task_id AND NOT k.aside
        AND t.state NOT IN ('completed', 'failed', 'cancelled') AND t.fingerprint IS NOT NULL
    ORDER BY k.created_at, k.task_id";
    HOLD = "UPDATE outbox SET due_at = clock_timestamp() + $3::interval WHERE token = $1 AND task_id IN (
        SELECT task_id FROM outbox WHERE token = $1 AND task_id = ANY($2) ORDER BY task_id FOR UPDATE)";
    /// Rows are locked in the order of ids first, as every statement that locks several rows does. A search for many ids
    /// reads the table in its own order, and two transactions with different orders deadlock.
    DROP = "DELETE FROM outbox WHERE token = $1 AND task_id IN (
        SELECT task_id FROM outbox WHERE token = $1 AND task_id = ANY($2) ORDER BY task_id FOR UPDATE)";
    DEFER = "UPDATE outbox SET token = NULL, reason = $3, deferred = deferred + 1, due_at = clock_timestamp() + $4::interval
        WHERE token = $1 AND task_id IN (
            SELECT task_id FROM outbox WHERE token = $1 AND task_id = ANY($2) ORDER BY task_id FOR UPDATE)";
}

pub(super) async fn take(connection: &mut PgConnection, take: &OutboxTake) -> Result<OutboxBatch, Fault> {
    let token = Uuid::new_v4();
    let taken = query(TAKE)
        .bind(i64::from(take.limit))
        .bind(token)
        .bind(interval(take.ttl))
        .bind(plan::counted(take.bytes))
        .bind(column(&take.aside, |(queue, _)| queue.as_str()))
        .bind(column(&take.aside, |(_, reason)| reason.as_str()))
        .bind(interval(take.rest))
        .bind(take.from)
        .fetch_all(&mut *connection)
        .await?;
    let found = taken.first().map(|row| need(row.int("found")?, "found")).transpose()?.unwrap_or_default();
    let more = found >= i64::from(take.limit) || found > taken.len() as i64;
    let first_due = taken.first().map(|row| need(row.time("first_due")?, "first_due")).transpose()?;
    let mut batch =
        OutboxBatch { token, rows: Vec::with_capacity(taken.len()), unread: Vec::new(), aside: 0, more, first_due };
    let mut stale: Vec<TaskId> = Vec::new();
    for row in &taken {
        match row.id("id")? {
            Some(id) => match rows::outbox(row) {
                Ok(row) => batch.rows.push(row),
                Err(fault) => batch.unread.push(rows::unread(id, fault)?),
            },
            None if row.flag("aside")? => batch.aside += 1,
            None => stale.push(need(row.id("task_id")?, "task_id")?),
        }
    }
    if !stale.is_empty() {
        drop_rows(connection, token, stale.into()).await?;
    }
    Ok(batch)
}

pub(super) async fn hold(
    connection: &mut PgConnection,
    token: Uuid,
    ids: Arc<[TaskId]>,
    ttl: Duration,
) -> Result<(), Fault> {
    query(HOLD).bind(token).bind(&*ids).bind(interval(ttl)).execute(connection).await?;
    Ok(())
}

pub(super) async fn drop_rows(connection: &mut PgConnection, token: Uuid, ids: Arc<[TaskId]>) -> Result<(), Fault> {
    query(DROP).bind(token).bind(&*ids).execute(connection).await?;
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
