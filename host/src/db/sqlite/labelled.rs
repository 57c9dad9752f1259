//! Labelled tasks: a count by value, and deletion, a few at a time.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{LINES_DELETED, fitting};
use super::super::{BENCH_LABEL, Label, LabelledDeletion, LabelledTasks, rows};
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

/// A label's value, of any key and of the one that the indexes of migration 10 are of.
macro_rules! any {
    () => {
        "(SELECT l.value FROM json_each(t.labels) l WHERE l.key = ?1)"
    };
}
macro_rules! bench {
    () => {
        "t.labels ->> '$.\"agentry-bench\"'"
    };
}

/// By creation, newest first. Tasks that have ended and others are in different indexes, so that neither are read in vain.
macro_rules! ended {
    ($value:expr) => {
        fitting!(
            "?3",
            "created_at DESC, id DESC",
            "SELECT t.id, t.created_at, t.last_seq + t.log_seq AS lines FROM tasks AS t
            WHERE t.labels <> '{}' AND ",
            $value,
            " IS NOT NULL AND t.finished_at IS NOT NULL AND ?1 IS NOT NULL AND ",
            $value,
            " = ?2 ORDER BY t.created_at DESC, t.id DESC LIMIT ?4"
        )
    };
}
macro_rules! unfinished {
    ($value:expr) => {
        concat!(
            "SELECT t.id FROM tasks AS t WHERE t.labels <> '{}' AND ",
            $value,
            " IS NOT NULL AND t.finished_at IS NULL
            AND ?1 IS NOT NULL AND ",
            $value,
            " = ?2 ORDER BY t.created_at DESC, t.id DESC LIMIT ?3"
        )
    };
}
macro_rules! values {
    ($value:expr) => {
        concat!(
            "SELECT value, sum(ended) AS ended, sum(unfinished) AS unfinished, max(last_at) AS last_at FROM (
            SELECT ",
            $value,
            " AS value, count(*) AS ended, 0 AS unfinished, max(t.finished_at) AS last_at FROM tasks AS t
            WHERE t.labels <> '{}' AND ",
            $value,
            " IS NOT NULL AND t.finished_at IS NOT NULL AND ?1 IS NOT NULL GROUP BY 1
            UNION ALL SELECT ",
            $value,
            ", 0, count(*), max(t.created_at) FROM tasks AS t
            WHERE t.labels <> '{}' AND ",
            $value,
            " IS NOT NULL AND t.finished_at IS NULL AND ?1 IS NOT NULL GROUP BY 1
        ) GROUP BY value ORDER BY last_at DESC LIMIT ?2"
        )
    };
}

statements! {
    ENDED = ended!(any!());
    BENCH_ENDED = ended!(bench!());
    UNFINISHED = unfinished!(any!());
    BENCH_UNFINISHED = unfinished!(bench!());
    VALUES = values!(any!());
    BENCH_VALUES = values!(bench!());
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
    let found = query(if key == BENCH_LABEL { BENCH_VALUES } else { VALUES })
        .bind(key)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    found.iter().map(rows::labelled).collect()
}

pub(super) async fn delete(
    connection: &mut SqliteConnection,
    label: &Label,
    limit: u32,
) -> Result<LabelledDeletion, Fault> {
    let (key, value) = (label.key.as_str(), label.value.as_str());
    let (mut tx, _) = begin(connection).await?;
    let (ended, unfinished) = match key == BENCH_LABEL {
        true => (BENCH_ENDED, BENCH_UNFINISHED),
        false => (ENDED, UNFINISHED),
    };
    let rows = query(ended).bind(key).bind(value).bind(LINES_DELETED).bind(limit).fetch_all(&mut *tx).await?;
    let ended = rows.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<Vec<TaskId>, _>>()?;
    if !ended.is_empty() {
        let ids: Value = ended.iter().map(|id| id.hyphenated().to_string()).collect();
        let ids = ids.to_string();
        for statement in [EVENTS, ATTEMPTS, LOGS, CALLS, BODIES, SPENT, OUTBOX, TASKS] {
            query(statement).bind(ids.as_str()).execute(&mut *tx).await?;
        }
    }
    let rows = query(unfinished).bind(key).bind(value).bind(limit).fetch_all(&mut *tx).await?;
    let unfinished = rows.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<_, _>>()?;
    tx.commit().await?;
    Ok(LabelledDeletion { deleted: ended.len() as u64, unfinished })
}
