//! Taking away what an ended task holds.

use super::super::EraseAnswer;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::{plan, rows};
use crate::task::TaskId;
use sqlx::{Connection, PgConnection, query};

statements! {
    TASK = "SELECT state, failure, erased_at FROM tasks WHERE id = $1 FOR UPDATE";
    ATTEMPTS = "SELECT fence, failure FROM task_attempts WHERE task_id = $1 AND failure IS NOT NULL";
    ERASE = "UPDATE tasks SET input = NULL, output = CASE WHEN output IS NOT NULL THEN 'null' END, failure = $2,
        erased_at = statement_timestamp() WHERE id = $1 RETURNING erased_at";
    ERASE_ATTEMPT = "UPDATE task_attempts SET failure = $3 WHERE task_id = $1 AND fence = $2";
    ERASE_EVENTS = "UPDATE task_events SET detail = NULL WHERE task_id = $1 AND detail IS NOT NULL";
    ERASE_LOGS = "DELETE FROM task_logs WHERE task_id = $1";
    /// Addresses and what was answered may hold the producer's words; that there was a call, and how large, does not.
    ERASE_CALLS = "UPDATE task_calls SET target = 'erased', detail = NULL WHERE task_id = $1";
    ERASE_BODIES = "DELETE FROM task_call_bodies WHERE task_id = $1";
    /// The letter of a rejected task, and the one that a redriven task was made of.
    ERASE_LETTERS = "UPDATE dead_letters SET body = '', properties = '{}', detail = 'erased', erased_at = statement_timestamp(),
        publish_at = NULL
        WHERE id IN (SELECT id FROM dead_letters WHERE task_id = $1 OR redriven_as = $1 ORDER BY id FOR UPDATE)";
}

pub(super) async fn erase(connection: &mut PgConnection, id: TaskId) -> Result<EraseAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let Some(row) = query(TASK).bind(id).fetch_optional(&mut *tx).await? else {
        return Ok(EraseAnswer::Unknown);
    };
    let state = rows::state(&row)?;
    if !state.is_terminal() {
        return Ok(EraseAnswer::NotEnded(state));
    }
    if let Some(at) = row.time("erased_at")? {
        return Ok(EraseAnswer::Erased(at));
    }
    for attempt in query(ATTEMPTS).bind(id).fetch_all(&mut *tx).await? {
        let failure = plan::erased(&need(attempt.text("failure")?, "failure")?)?;
        let fence = need(attempt.int("fence")?, "fence")?;
        query(ERASE_ATTEMPT).bind(id).bind(fence).bind(failure).execute(&mut *tx).await?;
    }
    for statement in [ERASE_EVENTS, ERASE_LOGS, ERASE_CALLS, ERASE_BODIES, ERASE_LETTERS] {
        query(statement).bind(id).execute(&mut *tx).await?;
    }
    let failure = row.text("failure")?.map(|text| plan::erased(&text)).transpose()?;
    let row = query(ERASE).bind(id).bind(failure).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(EraseAnswer::Erased(need(row.time("erased_at")?, "erased_at")?))
}
