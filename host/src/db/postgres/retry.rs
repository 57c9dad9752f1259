//! A new task that repeats an ended one.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::Birth;
use super::super::rows;
use super::super::{AskedTask, NewTask, RetryAnswer};
use super::hosts;
use super::transition::give_birth;
use crate::task::TaskId;
use sqlx::{Connection, PgConnection, query};

statements! {
    ASKED = "SELECT id, state, queue, plugin, input, options, fingerprint, reply_to, correlation_id, traceparent, erased_at
        FROM tasks WHERE id = $1";
    /// Under lock: of two retries at the same time one is first.
    OLD = "SELECT state, input IS NULL AS is_empty FROM tasks WHERE id = $1 FOR UPDATE";
    REPEATS = "SELECT retry_of FROM tasks WHERE id = $1";
    LATEST = "SELECT id, state FROM tasks WHERE retry_of = $1 ORDER BY created_at DESC, id DESC LIMIT 1";
}

pub(super) async fn asked(connection: &mut PgConnection, id: TaskId) -> Result<Option<AskedTask>, Fault> {
    let row = query(ASKED).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(rows::asked).transpose()
}

pub(super) async fn retry(connection: &mut PgConnection, task: &NewTask, once: bool) -> Result<RetryAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let answer = repeat(&mut tx, task, once).await?;
    // Ended before it is answered, either way: one that is only dropped holds its lock on the old task for a moment more, and
    // whoever sweeps then passes that task over.
    match answer {
        RetryAnswer::Created => tx.commit().await?,
        _ => tx.rollback().await?,
    }
    Ok(answer)
}

async fn repeat(tx: &mut PgConnection, task: &NewTask, once: bool) -> Result<RetryAnswer, Fault> {
    let of = need(task.retry_of, "retry_of")?;
    let Some(old) = query(OLD).bind(of).fetch_optional(&mut *tx).await? else {
        return Ok(RetryAnswer::Unknown);
    };
    if let Some(row) = query(REPEATS).bind(task.message.id).fetch_optional(&mut *tx).await? {
        let same = row.id("retry_of")? == Some(of);
        return Ok(if same { RetryAnswer::Exists } else { RetryAnswer::Conflict });
    }
    let state = rows::state(&old)?;
    if !state.is_terminal() {
        return Ok(RetryAnswer::NotEnded(state));
    }
    if let Some(row) = query(LATEST).bind(of).fetch_optional(&mut *tx).await? {
        let state = rows::state(&row)?;
        if once || !state.is_terminal() {
            return Ok(RetryAnswer::Retried(need(row.id("id")?, "id")?, state));
        }
    }
    if old.flag("is_empty")? {
        return Ok(RetryAnswer::Erased);
    }
    let now = hosts::clock(tx).await?;
    let born = give_birth(tx, &[Birth::of_submission(task, now)?]).await?;
    if born.is_empty() {
        // Somebody else has taken the id since.
        return Ok(RetryAnswer::Conflict);
    }
    Ok(RetryAnswer::Created)
}
