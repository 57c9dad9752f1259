//! Submitting and cancelling.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{Birth, Submission, Write};
use super::super::{CancelAnswer, NewTask, Submitted};
use super::transition::{begin, give_birth, one, write};
use crate::task::{Event, State, TaskId};
use sqlx::{SqliteConnection, query};
use std::collections::HashMap;

statements! {
    /// What a row that was there already was asked.
    FINGERPRINT = "SELECT fingerprint FROM tasks WHERE id = ?1";
    ASK_TO_END = "UPDATE tasks SET cancel_requested = 1 WHERE id = ?1";
}

pub(super) async fn submit(connection: &mut SqliteConnection, batch: &[NewTask]) -> Result<Vec<Submitted>, Fault> {
    let submission = Submission::of(batch);
    let (mut tx, now) = begin(connection).await?;
    let mut known: HashMap<TaskId, Option<Vec<u8>>> = HashMap::new();
    for task in submission.firsts() {
        let birth = Birth::of_submission(task, now)?;
        if !give_birth(&mut tx, &birth, now).await? {
            let row = query(FINGERPRINT).bind(birth.id.hyphenated()).fetch_one(&mut *tx).await?;
            known.insert(birth.id, row.bytes("fingerprint")?);
        }
    }
    let answers = submission.answers(&known);
    if answers.contains(&Submitted::Conflict) {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
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
            write(&mut tx, &Write::of_event(&locked, Event::Cancelled, None)?, now).await?;
            CancelAnswer::Cancelled
        }
    };
    tx.commit().await?;
    Ok(answer)
}
