//! Submitting and cancelling.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{Birth, Submission, Write};
use super::super::{CancelAnswer, NewTask, Submitted};
use super::many::json_ids;
use super::outgoing::Outgoing;
use super::transition::{begin, insert_tasks, one, write};
use crate::task::{Event, State, TaskId};
use sqlx::{SqliteConnection, query};
use std::collections::HashMap;

statements! {
    /// What rows that were there already were asked.
    FINGERPRINTS = "SELECT t.id, t.fingerprint FROM json_each(?1) v CROSS JOIN tasks t ON t.id = v.value";
    ASK_TO_END = "UPDATE tasks SET cancel_requested = 1 WHERE id = ?1";
}

pub(super) async fn submit(
    connection: &mut SqliteConnection,
    batch: &[NewTask],
    outgoing: &mut Outgoing,
) -> Result<Vec<Submitted>, Fault> {
    let submission = Submission::of(batch);
    let (mut tx, now) = begin(connection).await?;
    let ids = submission.firsts().iter().map(|task| task.message.id);
    let mut known: HashMap<TaskId, Option<Vec<u8>>> = HashMap::new();
    for row in query(FINGERPRINTS).bind(json_ids(ids)).fetch_all(&mut *tx).await? {
        known.insert(need(row.id("id")?, "id")?, row.bytes("fingerprint")?);
    }
    let answers = submission.answers(&known);
    if answers.contains(&Submitted::Conflict) {
        return Ok(answers);
    }
    let mut births = Vec::with_capacity(submission.firsts().len());
    let fresh: Vec<&NewTask> =
        submission.firsts().iter().copied().filter(|task| !known.contains_key(&task.message.id)).collect();
    for task in fresh.iter().copied() {
        births.push(Birth::of_submission(task, now)?);
    }
    insert_tasks(&mut tx, &births, now).await?;
    let mut sent = outgoing.begin();
    let births: Vec<_> = fresh.into_iter().zip(births).collect();
    sent.enqueue_new(&mut tx, &births, now).await?;
    tx.commit().await?;
    outgoing.end(sent);
    Ok(answers)
}

pub(super) async fn cancel(connection: &mut SqliteConnection, id: TaskId) -> Result<CancelAnswer, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let Some(locked) = one(&mut tx, id, now).await? else {
        return Ok(CancelAnswer::Unknown);
    };
    let answer = match (locked.row.state, locked.row.owner) {
        (state, _) if state.is_terminal() => return Ok(CancelAnswer::Terminal(state)),
        (State::Running, owner) => {
            query(ASK_TO_END).bind(id.hyphenated()).execute(&mut *tx).await?;
            CancelAnswer::Requested(need(owner, "owner")?)
        }
        _ => {
            write(&mut tx, &[Write::of_event(&locked, Event::Cancelled, None)?], now).await?;
            CancelAnswer::Cancelled
        }
    };
    tx.commit().await?;
    Ok(answer)
}
