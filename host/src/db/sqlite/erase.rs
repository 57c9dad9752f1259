//! Taking away what an ended task holds.

use super::super::EraseAnswer;
use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::{plan, rows};
use super::transition::begin;
use crate::task::TaskId;
use sqlx::{SqliteConnection, query};

statements! {
    TASK = "SELECT state, failure, erased_at FROM tasks WHERE id = ?1";
    ATTEMPTS = "SELECT fence, failure FROM task_attempts WHERE task_id = ?1 AND failure IS NOT NULL";
    ERASE = "UPDATE tasks SET input = NULL, output = CASE WHEN output IS NOT NULL THEN 'null' END, failure = ?2,
        erased_at = ?3 WHERE id = ?1";
    ERASE_ATTEMPT = "UPDATE task_attempts SET failure = ?3 WHERE task_id = ?1 AND fence = ?2";
    ERASE_EVENTS = "UPDATE task_events SET detail = NULL WHERE task_id = ?1 AND detail IS NOT NULL";
    ERASE_LOGS = "DELETE FROM task_logs WHERE task_id = ?1";
    /// Addresses and what was answered may hold the producer's words; that there was a call, and how large, does not.
    ERASE_CALLS = "UPDATE task_calls SET target = 'erased', detail = NULL WHERE task_id = ?1";
    ERASE_BODIES = "DELETE FROM task_call_bodies WHERE task_id = ?1";
    /// The letter of a rejected task, and the one that a redriven task was made of.
    ERASE_LETTERS = "UPDATE dead_letters SET body = x'', properties = '{}', detail = 'erased', erased_at = ?2,
        publish_at = NULL WHERE task_id = ?1 OR redriven_as = ?1";
}

pub(super) async fn erase(connection: &mut SqliteConnection, id: TaskId) -> Result<EraseAnswer, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let task = id.hyphenated();
    let Some(row) = query(TASK).bind(task).fetch_optional(&mut *tx).await? else {
        return Ok(EraseAnswer::Unknown);
    };
    let state = rows::state(&row)?;
    if !state.is_terminal() {
        return Ok(EraseAnswer::NotEnded(state));
    }
    if let Some(at) = row.time("erased_at")? {
        return Ok(EraseAnswer::Erased(at));
    }
    for attempt in query(ATTEMPTS).bind(task).fetch_all(&mut *tx).await? {
        let failure = plan::erased(&need(attempt.text("failure")?, "failure")?)?;
        let fence = need(attempt.int("fence")?, "fence")?;
        query(ERASE_ATTEMPT).bind(task).bind(fence).bind(failure).execute(&mut *tx).await?;
    }
    for statement in [ERASE_EVENTS, ERASE_LOGS, ERASE_CALLS, ERASE_BODIES] {
        query(statement).bind(task).execute(&mut *tx).await?;
    }
    query(ERASE_LETTERS).bind(task).bind(stamp(now)).execute(&mut *tx).await?;
    let failure = row.text("failure")?.map(|text| plan::erased(&text)).transpose()?;
    query(ERASE).bind(task).bind(failure).bind(stamp(now)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(EraseAnswer::Erased(now))
}
