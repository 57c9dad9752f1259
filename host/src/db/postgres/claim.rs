//! Claiming: rows that are not there are inserted by one statement; the others are decided on under lock.

use super::super::bisect::bisected;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, Birth, Write};
use super::super::{ClaimAnswer, Claimant};
use super::transition::{give_birth, locked, with_leases, write};
use crate::task::{Arrival, TaskId, decide};
use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, query};
use std::collections::HashSet;

statements! {
    CLOCK = "SELECT clock_timestamp() AS now";
    /// In the order of ids, as every statement that locks several rows: so that no two wait for each other.
    LOCK = locked!("WHERE t.id = ANY($1) ORDER BY t.id FOR UPDATE");
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    me: Claimant,
    batch: &[Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| batch[index].message.id);
    let sorted: Vec<&Arrival> = order.iter().map(|&index| &batch[index]).collect();

    let answers =
        bisected!(sorted.len(), |range| claim_sorted(connection, me, &sorted[range]).await, ClaimAnswer::Refused)?;
    let mut answers: Vec<(usize, ClaimAnswer)> = order.into_iter().zip(answers).collect();
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Claim arrivals in the order of their ids. Each round takes the first of every id that has no answer yet: of several
/// with one id the later ones see what became of the first, and a row that is pruned between two steps is seen as none.
async fn claim_sorted(
    connection: &mut PgConnection,
    me: Claimant,
    arrivals: &[&Arrival],
) -> Result<Vec<ClaimAnswer>, Fault> {
    let mut answers: Vec<Option<ClaimAnswer>> = vec![None; arrivals.len()];
    let (mut fruitless, mut first) = (0, true);
    loop {
        let mut seen = HashSet::new();
        let open = |index: &usize| answers[*index].is_none();
        let round: Vec<usize> =
            (0..arrivals.len()).filter(open).filter(|&i| seen.insert(arrivals[i].message.id)).collect();
        if round.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        let before = round.len();
        // A relay published it, so it has a row: its payload need not be sent in vain. Should the row be gone, the next round
        // inserts it.
        let (rest, round): (Vec<usize>, Vec<usize>) =
            round.into_iter().partition(|&i| first && arrivals[i].relayed.is_some());
        let mut left = change(connection, me, arrivals, rest, &mut answers).await?;
        if !round.is_empty() {
            let rest = insert(connection, me, arrivals, round, &mut answers).await?;
            left += change(connection, me, arrivals, rest, &mut answers).await?;
        }
        first = false;
        fruitless = if left < before { 0 } else { fruitless + 1 };
        if fruitless > 3 {
            return Err(Fault::Busy("rows came and went while they were claimed".into()));
        }
    }
}

/// Insert those without a row; answers those that have one.
async fn insert(
    connection: &mut PgConnection,
    me: Claimant,
    arrivals: &[&Arrival],
    round: Vec<usize>,
    answers: &mut [Option<ClaimAnswer>],
) -> Result<Vec<usize>, Fault> {
    let now = if round.iter().any(|&i| Birth::needs_clock(&arrivals[i].message)) {
        clock(connection).await?
    } else {
        DateTime::<Utc>::UNIX_EPOCH // nothing is decided by it
    };
    let mut decisions = Vec::with_capacity(round.len());
    let mut births = Vec::with_capacity(round.len());
    for &index in &round {
        let (decision, birth) = Birth::of_arrival(arrivals[index], me.host, now)?;
        decisions.push(decision);
        births.push(birth);
    }
    let born = give_birth(connection, &births).await?;
    let mut rest = Vec::new();
    for (index, decision) in round.into_iter().zip(decisions) {
        match born.get(&arrivals[index].message.id) {
            Some(at) => answers[index] = Some(plan::born(decision, arrivals[index], *at)),
            None => rest.push(index),
        }
    }
    Ok(rest)
}

/// Decide on those that have a row, under lock; answers how many turned out to have none.
async fn change(
    connection: &mut PgConnection,
    me: Claimant,
    arrivals: &[&Arrival],
    rest: Vec<usize>,
    answers: &mut [Option<ClaimAnswer>],
) -> Result<usize, Fault> {
    if rest.is_empty() {
        return Ok(0);
    }
    let ids: Vec<TaskId> = rest.iter().map(|&index| arrivals[index].message.id).collect();
    let mut tx = connection.begin().await?;
    let rows = query(LOCK).bind(&ids).fetch_all(&mut *tx).await?;
    let locked = with_leases(&mut tx, &rows, me).await?;
    let now = clock(&mut tx).await?;
    let mut decided = Vec::with_capacity(locked.len());
    let mut writes = Vec::new();
    for locked in &locked {
        // Rows and arrivals are both in the order of their ids.
        let Ok(at) = ids.binary_search(&locked.id) else { continue };
        let index = rest[at];
        let decision = decide(Some(&locked.row), arrivals[index], me.host, now);
        let change = Write::of_decision(locked, &decision, arrivals[index], me.host)?;
        decided.push((index, locked, decision, change.clone()));
        writes.extend(change);
    }
    let written = write(&mut tx, &writes).await?;
    tx.commit().await?;
    let left = rest.len() - decided.len();
    for (index, locked, decision, change) in decided {
        let at = written.get(&locked.id).copied().unwrap_or(now);
        answers[index] = Some(plan::answer(locked, decision, change.as_ref(), at));
    }
    Ok(left)
}

/// The database's clock.
pub(super) async fn clock(connection: &mut PgConnection) -> Result<DateTime<Utc>, Fault> {
    need(query(CLOCK).fetch_one(connection).await?.time("now")?, "now")
}
