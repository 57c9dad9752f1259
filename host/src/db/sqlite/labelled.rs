//! Labelled tasks: a count by value, and deletion, a few at a time.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{LINES_DELETED, fitting};
use super::super::{Label, LabelledDeletion, LabelledTasks, rows};
use super::transition::begin;
use crate::task::TaskId;
use serde_json::Value;
use sqlx::{SqliteConnection, query};

/// A deletion from one table by a JSON array of task ids.
macro_rules! of {
    ($table:literal, $column:literal) => {
        concat!("DELETE FROM ", $table, " WHERE ", $column, " IN (SELECT value FROM json_each(?1))")
    };
}

statements! {
    /// By id, newest first: labelled tasks are recent ones, so that the search does not read the whole table.
    ENDED = fitting!("?3", "id DESC", "SELECT id, last_seq + log_seq AS lines FROM tasks AS t WHERE state IN ('completed', 'failed', 'cancelled') AND labels <> '{}'
            AND EXISTS (SELECT 1 FROM json_each(t.labels) l WHERE l.key = ?1 AND l.value = ?2)
        ORDER BY id DESC LIMIT ?4");
    UNFINISHED = "SELECT id FROM tasks AS t WHERE state IN ('scheduled', 'pending', 'running', 'retrying')
            AND labels <> '{}'
            AND EXISTS (SELECT 1 FROM json_each(t.labels) l WHERE l.key = ?1 AND l.value = ?2)
        ORDER BY id DESC LIMIT ?3";
    VALUES = "SELECT CAST(l.value AS TEXT) AS value, count(t.finished_at) AS ended,
            count(*) - count(t.finished_at) AS unfinished, max(COALESCE(t.finished_at, t.created_at)) AS last_at
        FROM tasks AS t, json_each(t.labels) l WHERE t.labels <> '{}' AND l.key = ?1
        GROUP BY l.value ORDER BY last_at DESC LIMIT ?2";
    EVENTS = of!("task_events", "task_id");
    ATTEMPTS = of!("task_attempts", "task_id");
    LOGS = of!("task_logs", "task_id");
    CALLS = of!("task_calls", "task_id");
    BODIES = of!("task_call_bodies", "task_id");
    SPENT = of!("task_spending", "task_id");
    OUTBOX = of!("outbox", "task_id");
    TASKS = of!("tasks", "id");
}

pub(super) async fn values(
    connection: &mut SqliteConnection,
    key: &str,
    limit: u32,
) -> Result<Vec<LabelledTasks>, Fault> {
    let found = query(VALUES).bind(key).bind(limit).fetch_all(connection).await?;
    found.iter().map(rows::labelled).collect()
}

pub(super) async fn delete(
    connection: &mut SqliteConnection,
    label: &Label,
    limit: u32,
) -> Result<LabelledDeletion, Fault> {
    let (key, value) = (label.key.as_str(), label.value.as_str());
    let (mut tx, _) = begin(connection).await?;
    let rows = query(ENDED).bind(key).bind(value).bind(LINES_DELETED).bind(limit).fetch_all(&mut *tx).await?;
    let ended = rows.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<Vec<TaskId>, _>>()?;
    if !ended.is_empty() {
        let ids: Value = ended.iter().map(|id| id.hyphenated().to_string()).collect();
        let ids = ids.to_string();
        for statement in [EVENTS, ATTEMPTS, LOGS, CALLS, BODIES, SPENT, OUTBOX, TASKS] {
            query(statement).bind(ids.as_str()).execute(&mut *tx).await?;
        }
    }
    let rows = query(UNFINISHED).bind(key).bind(value).bind(limit).fetch_all(&mut *tx).await?;
    let unfinished = rows.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<_, _>>()?;
    tx.commit().await?;
    Ok(LabelledDeletion { deleted: ended.len() as u64, unfinished })
}
