//! The outbox: taken under a token, deleted or given back by it.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{bounded, counted};
use super::super::{OutboxBatch, OutboxReason, OutboxTake, rows};
use super::many::json_ids;
use super::transition::{UNQUEUE, begin};
use crate::task::TaskId;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};
use std::time::Duration;
use uuid::Uuid;

statements! {
    /// Due rows, oldest first: as many of the found rows as their payloads have room, and those of the queues in `?4`
    /// without payload. A row whose task has ended, or is gone, comes without a message.
    DUE = "WITH found AS (
        SELECT o.task_id, o.created_at, o.due_at, o.deferred,
            t.queue IS NOT NULL AND t.queue IN (SELECT value FROM json_each(?4)) AS aside,
            COALESCE(octet_length(t.input), 0) AS bytes
        FROM (SELECT * FROM outbox WHERE due_at <= ?1 ORDER BY due_at, task_id LIMIT ?2) o LEFT JOIN tasks t
            ON t.id = o.task_id AND t.state NOT IN ('completed', 'failed', 'cancelled')
    ), due AS (
        SELECT task_id, created_at, deferred, aside, row_number() OVER w AS n,
            sum(CASE WHEN aside THEN 0 ELSE bytes END) OVER w AS total
        FROM found WINDOW w AS (ORDER BY due_at, task_id)
    )
    SELECT d.task_id, d.deferred, d.aside, (SELECT count(*) FROM found) AS found, (SELECT min(due_at) FROM found) AS first_due,
        q.queue AS aside_queue, t.id, t.queue, t.fence,
        t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent
    FROM due d LEFT JOIN tasks t ON t.id = d.task_id AND NOT d.aside
            AND t.state NOT IN ('completed', 'failed', 'cancelled') AND t.fingerprint IS NOT NULL
        LEFT JOIN tasks q ON q.id = d.task_id AND d.aside
    WHERE d.n = 1 OR d.total <= ?3 ORDER BY d.created_at, d.task_id";
    ASIDE = "UPDATE outbox SET token = NULL, reason = ?2, due_at = ?3 WHERE task_id IN (SELECT value FROM json_each(?1))";
    LONGER = "UPDATE outbox SET due_at = ?3 WHERE token = ?1 AND task_id IN (SELECT value FROM json_each(?2))";
    HOLD = "UPDATE outbox SET token = ?2, due_at = ?3 WHERE task_id IN (SELECT value FROM json_each(?1))";
    DROP = "DELETE FROM outbox WHERE token = ?1 AND task_id IN (SELECT value FROM json_each(?2))";
    DEFER = "UPDATE outbox SET token = NULL, reason = ?3, deferred = deferred + 1, due_at = ?4
        WHERE token = ?1 AND task_id IN (SELECT value FROM json_each(?2))";
}

pub(super) async fn take(connection: &mut SqliteConnection, take: &OutboxTake) -> Result<OutboxBatch, Fault> {
    let token = Uuid::new_v4();
    let (mut tx, now) = begin(connection).await?;
    let queues = serde_json::json!(take.aside.iter().map(|(queue, _)| queue).collect::<Vec<_>>()).to_string();
    let due = query(DUE).bind(stamp(now)).bind(take.limit).bind(counted(take.bytes)).bind(queues);
    let due = due.fetch_all(&mut *tx).await?;
    let Some(first) = due.first() else {
        return Ok(OutboxBatch { token, rows: Vec::new(), unread: Vec::new(), aside: 0, more: false, first_due: None });
    };
    let found = need(first.int("found")?, "found")?;
    let first_due = first.time("first_due")?;
    let more = found >= i64::from(take.limit) || found > due.len() as i64;
    let (mut held, mut ended, mut aside) = (Vec::new(), Vec::new(), Vec::new());
    for row in &due {
        match row.id("id")? {
            Some(_) => held.push(row),
            None if row.flag("aside")? => aside.push(row),
            None => ended.push(row),
        }
    }
    let ids = |rows: &[&SqliteRow]| {
        let ids = rows.iter().map(|row| need(row.id("task_id")?, "task_id")).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, Fault>(json_ids(ids))
    };
    if !ended.is_empty() {
        query(UNQUEUE).bind(ids(&ended)?).execute(&mut *tx).await?;
    }
    if !held.is_empty() {
        let until = stamp(now + bounded(take.ttl));
        query(HOLD).bind(ids(&held)?).bind(token.hyphenated()).bind(until).execute(&mut *tx).await?;
    }
    let rest = stamp(now + bounded(take.rest));
    for (queue, reason) in &take.aside {
        let of_queue = aside.iter().filter(|row| matches!(row.text("aside_queue"), Ok(Some(name)) if name == *queue));
        let of_queue: Vec<&SqliteRow> = of_queue.copied().collect();
        if !of_queue.is_empty() {
            query(ASIDE).bind(ids(&of_queue)?).bind(reason.as_str()).bind(rest.clone()).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    let (mut rows, mut unread) = (Vec::with_capacity(held.len()), Vec::new());
    for row in held {
        match rows::outbox(row) {
            Ok(row) => rows.push(row),
            Err(fault) => unread.push(rows::unread(need(row.id("task_id")?, "task_id")?, fault)?),
        }
    }
    Ok(OutboxBatch { token, rows, unread, aside: u32::try_from(aside.len()).unwrap_or(u32::MAX), more, first_due })
}

pub(super) async fn hold(
    connection: &mut SqliteConnection,
    token: Uuid,
    ids: &[TaskId],
    ttl: Duration,
) -> Result<(), Fault> {
    let (mut tx, now) = begin(connection).await?;
    let until = stamp(now + bounded(ttl));
    query(LONGER).bind(token.hyphenated()).bind(json_ids(ids.iter().copied())).bind(until).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
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
