//! Claiming: one transaction for a batch, and a few statements.

use super::super::bisect::bisected;
use super::super::fault::Fault;
use super::super::plan::{self, Birth, Write};
use super::super::{ClaimAnswer, Claimant};
use super::many::rounds;
use super::transition::{begin, insert_tasks, read_rows, write};
use crate::task::{Arrival, decide};
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    me: Claimant,
    batch: &[Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    bisected!(batch.len(), |range| claim_all(connection, me, &batch[range]).await, ClaimAnswer::Refused)
}

async fn claim_all(
    connection: &mut SqliteConnection,
    me: Claimant,
    batch: &[Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut answers: Vec<Option<ClaimAnswer>> = batch.iter().map(|_| None).collect();
    for round in rounds(batch.iter().map(|arrival| arrival.message.id)) {
        let arrivals: Vec<&Arrival> = round.iter().map(|at| &batch[*at]).collect();
        let answered = claim_round(&mut tx, me, &arrivals, now).await?;
        for (at, answer) in round.into_iter().zip(answered) {
            answers[at] = Some(answer);
        }
    }
    tx.commit().await?;
    answers.into_iter().collect::<Option<_>>().ok_or_else(|| Fault::Defect("an arrival in no round".into()))
}

/// Arrivals of different tasks.
async fn claim_round(
    connection: &mut SqliteConnection,
    me: Claimant,
    arrivals: &[&Arrival],
    now: DateTime<Utc>,
) -> Result<Vec<ClaimAnswer>, Fault> {
    let mut rows = read_rows(connection, arrivals.iter().map(|arrival| arrival.message.id), now).await?;
    let (mut births, mut writes) = (Vec::new(), Vec::new());
    let mut answers = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        answers.push(match rows.remove(&arrival.message.id) {
            None => {
                let (decision, birth) = Birth::of_arrival(arrival, me.host, now)?;
                births.push(birth);
                plan::born(decision, arrival, now)
            }
            Some(mut locked) => {
                locked.row.owner_alive = locked.owner_alive(me.steady);
                let decision = decide(Some(&locked.row), arrival, me.host, now);
                let change = Write::of_decision(&locked, &decision, arrival, me.host)?;
                let answer = plan::answer(&locked, decision, change.as_ref(), now);
                writes.extend(change);
                answer
            }
        });
    }
    insert_tasks(connection, &births, now).await?;
    write(connection, &writes, now).await?;
    Ok(answers)
}
