//! Replies to producers: taken for a while, published, and marked.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::{Fields, Reply};
use super::hosts::interval;
use super::read;
use crate::task::TaskId;
use sqlx::{PgConnection, query};
use std::sync::Arc;
use std::time::Duration;

statements! {
    TAKE = "WITH due AS (
        SELECT id FROM tasks
        WHERE reply_to IS NOT NULL AND reply_due <= statement_timestamp() AND state IN ('completed', 'failed', 'cancelled')
        ORDER BY reply_due LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    UPDATE tasks t SET reply_due = clock_timestamp() + $2::interval FROM due WHERE t.id = due.id
    RETURNING t.id, t.reply_to, t.correlation_id";
    REPLIED = "UPDATE tasks SET reply_due = NULL WHERE id IN (
        SELECT id FROM tasks WHERE id = ANY($1) ORDER BY id FOR UPDATE)";
    /// One that another host has published meanwhile stays published.
    DEFER = "UPDATE tasks SET reply_due = clock_timestamp() + $2::interval WHERE id IN (
        SELECT id FROM tasks WHERE id = ANY($1) AND reply_due IS NOT NULL ORDER BY id FOR UPDATE)";
}

pub(super) async fn take(connection: &mut PgConnection, limit: u32, hold: Duration) -> Result<Vec<Reply>, Fault> {
    let rows = query(TAKE).bind(i64::from(limit)).bind(interval(hold)).fetch_all(&mut *connection).await?;
    let mut replies = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: TaskId = need(row.id("id")?, "id")?;
        match read::task(connection, id, Fields::ALL).await {
            Ok(Some(task)) => replies.push(Reply {
                task,
                reply_to: need(row.text("reply_to")?, "reply_to")?,
                correlation_id: row.text("correlation_id")?,
            }),
            // It was pruned meanwhile.
            Ok(None) => {}
            Err(fault) => match fault.of_row() {
                // A row of another build: it is due again after the hold, and the others go on.
                Fault::Row(reason) => tracing::error!(task = %id, reason, "a reply cannot be read"),
                fault => return Err(fault),
            },
        }
    }
    Ok(replies)
}

pub(super) async fn replied(connection: &mut PgConnection, ids: Arc<[TaskId]>) -> Result<(), Fault> {
    query(REPLIED).bind(&*ids).execute(connection).await?;
    Ok(())
}

pub(super) async fn defer(connection: &mut PgConnection, ids: Arc<[TaskId]>, delay: Duration) -> Result<(), Fault> {
    query(DEFER).bind(&*ids).bind(interval(delay)).execute(connection).await?;
    Ok(())
}
