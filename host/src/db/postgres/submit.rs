//! Submitting and cancelling.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{Birth, Submission, Write};
use super::super::{CancelAnswer, NewTask, Submitted, rows};
use super::claim::clock;
use super::transition::{give_birth, locked, write};
use crate::task::{Event, State, TaskId};
use sqlx::{Connection, PgConnection, query};
use std::collections::HashMap;

/// Rounds in which rows may come and go before a submission gives up.
const ROUNDS: u32 = 4;

statements! {
    /// What the rows that were there already were asked.
    FINGERPRINTS = "SELECT id, fingerprint FROM tasks WHERE id = ANY($1)";
    LOCK_ONE = locked!("WHERE t.id = $1 FOR UPDATE");
    ASK_TO_END = "UPDATE tasks SET cancel_requested = true WHERE id = $1";
}

pub(super) async fn submit(connection: &mut PgConnection, batch: &[NewTask]) -> Result<Vec<Submitted>, Fault> {
    let submission = Submission::of(batch);
    let mut tx = connection.begin().await?;
    let now = clock(&mut tx).await?;
    let mut births: Vec<Birth<'_>> =
        submission.firsts().iter().map(|task| Birth::of_submission(task, now)).collect::<Result<_, _>>()?;
    let mut fingerprints: HashMap<TaskId, Option<Vec<u8>>> = HashMap::new();
    // A row that is there may be pruned before it is read. It is inserted in the next round then.
    for round in 1.. {
        let born = give_birth(&mut tx, &births).await?;
        births.retain(|birth| !born.contains_key(&birth.id));
        let known: Vec<TaskId> = births.iter().map(|birth| birth.id).collect();
        if known.is_empty() {
            break;
        }
        for row in query(FINGERPRINTS).bind(&known).fetch_all(&mut *tx).await? {
            fingerprints.insert(need(row.id("id")?, "id")?, row.bytes("fingerprint")?);
        }
        births.retain(|birth| !fingerprints.contains_key(&birth.id));
        if births.is_empty() {
            break;
        }
        if round == ROUNDS {
            return Err(Fault::Busy("rows came and went while tasks were submitted".into()));
        }
    }
    let answers = submission.answers(&fingerprints);
    if answers.contains(&Submitted::Conflict) {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(answers)
}

pub(super) async fn cancel(connection: &mut PgConnection, id: TaskId) -> Result<CancelAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let Some(row) = query(LOCK_ONE).bind(id).fetch_optional(&mut *tx).await? else {
        return Ok(CancelAnswer::Unknown);
    };
    let locked = rows::locked(&row)?;
    let answer = match (locked.row.state, locked.row.owner) {
        (state, _) if state.is_terminal() => return Ok(CancelAnswer::Terminal(state)),
        (State::Running, owner) => {
            query(ASK_TO_END).bind(id).execute(&mut *tx).await?;
            CancelAnswer::Requested(need(owner, "owner")?)
        }
        _ => {
            write(&mut tx, &[Write::of_event(&locked, Event::Cancelled, None)?]).await?;
            CancelAnswer::Cancelled
        }
    };
    tx.commit().await?;
    Ok(answer)
}
