//! Claiming: one transaction for a batch.

use super::super::bisect::Bisection;
use super::super::fault::Fault;
use super::super::plan::{self, Birth, Write};
use super::super::{ClaimAnswer, Claimant};
use super::transition::{begin, give_birth, one, write};
use crate::task::{Arrival, decide};
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    me: Claimant,
    batch: &[Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    let mut bisection = Bisection::new(batch.len());
    while let Some(range) = bisection.next() {
        let result = claim_all(connection, me, &batch[range.clone()]).await;
        if let Some((index, fault)) = bisection.tried(range, result)? {
            bisection.answer(index, ClaimAnswer::Refused(fault.reason()));
        }
    }
    bisection.finish()
}

async fn claim_all(
    connection: &mut SqliteConnection,
    me: Claimant,
    batch: &[Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut answers = Vec::with_capacity(batch.len());
    for arrival in batch {
        answers.push(claim_one(&mut tx, me, arrival, now).await?);
    }
    tx.commit().await?;
    Ok(answers)
}

async fn claim_one(
    connection: &mut SqliteConnection,
    me: Claimant,
    arrival: &Arrival,
    now: DateTime<Utc>,
) -> Result<ClaimAnswer, Fault> {
    let (decision, birth) = Birth::of_arrival(arrival, me.host, now)?;
    if give_birth(connection, &birth, now).await? {
        return Ok(plan::born(decision, arrival, now));
    }
    let Some(mut locked) = one(connection, arrival.message.id, now).await? else {
        return Err(Fault::Defect("a row was in the way and is not there".into()));
    };
    locked.row.owner_alive = locked.owner_alive(me.steady);
    let decision = decide(Some(&locked.row), arrival, me.host, now);
    let change = Write::of_decision(&locked, &decision, arrival, me.host)?;
    if let Some(change) = &change {
        write(connection, change, now).await?;
    }
    Ok(plan::answer(&locked, decision, change.as_ref(), now))
}
