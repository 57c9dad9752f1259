//! A new task that repeats an ended one.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::Birth;
use super::super::rows;
use super::super::{AskedTask, NewTask, RetryAnswer};
use super::outgoing::Outgoing;
use super::transition::{begin, insert_tasks};
use crate::task::TaskId;
use sqlx::{SqliteConnection, query};

statements! {
    ASKED = "SELECT id, state, queue, plugin, input, options, fingerprint, reply_to, correlation_id, traceparent, erased_at
        FROM tasks WHERE id = ?1";
    OLD = "SELECT state, input IS NULL AS is_empty FROM tasks WHERE id = ?1";
    REPEATS = "SELECT retry_of FROM tasks WHERE id = ?1";
    LATEST = "SELECT id, state FROM tasks WHERE retry_of = ?1 ORDER BY created_at DESC, id DESC LIMIT 1";
}

pub(super) async fn asked(connection: &mut SqliteConnection, id: TaskId) -> Result<Option<AskedTask>, Fault> {
    let row = query(ASKED).bind(id.hyphenated()).fetch_optional(connection).await?;
    row.as_ref().map(rows::asked).transpose()
}

pub(super) async fn retry(
    connection: &mut SqliteConnection,
    task: &NewTask,
    once: bool,
    outgoing: &mut Outgoing,
) -> Result<RetryAnswer, Fault> {
    let of = need(task.retry_of, "retry_of")?;
    let (mut tx, now) = begin(connection).await?;
    let Some(old) = query(OLD).bind(of.hyphenated()).fetch_optional(&mut *tx).await? else {
        return Ok(RetryAnswer::Unknown);
    };
    if let Some(row) = query(REPEATS).bind(task.message.id.hyphenated()).fetch_optional(&mut *tx).await? {
        let same = row.id("retry_of")? == Some(of);
        return Ok(if same { RetryAnswer::Exists } else { RetryAnswer::Conflict });
    }
    let state = rows::state(&old)?;
    if !state.is_terminal() {
        return Ok(RetryAnswer::NotEnded(state));
    }
    if let Some(row) = query(LATEST).bind(of.hyphenated()).fetch_optional(&mut *tx).await? {
        let state = rows::state(&row)?;
        if once || !state.is_terminal() {
            return Ok(RetryAnswer::Retried(need(row.id("id")?, "id")?, state));
        }
    }
    if old.flag("is_empty")? {
        return Ok(RetryAnswer::Erased);
    }
    let birth = Birth::of_submission(task, now)?;
    insert_tasks(&mut tx, std::slice::from_ref(&birth), now).await?;
    let mut sent = outgoing.begin();
    sent.enqueue_new(&mut tx, &[(task, birth)], now).await?;
    tx.commit().await?;
    outgoing.end(sent);
    Ok(RetryAnswer::Created)
}
