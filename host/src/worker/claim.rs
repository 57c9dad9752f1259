//! Claim: arrivals are claimed in batches, and each answer decides what comes next.

use super::acknowledge::Done;
use super::candidate::Candidate;
use super::dead::Burial;
use super::settle::{Claim, End, STATEMENT_BYTES};
use super::unclaimed::Unclaimed;
use super::{Leg, Shared, Step, batch, execute, reply, stops};
use crate::broker::{Delivery, Receipt};
use crate::db::{ClaimAnswer, Claimant, Claimed, DbError};
use crate::task::claim::Kept;
use crate::task::{Arrival, Decision, Runnable, TaskId, TaskMessage};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Where an answer leads.
struct Ways {
    ends: mpsc::Sender<End>,
    acks: mpsc::Sender<Done>,
    dead: mpsc::Sender<Burial>,
}

/// Claim until nobody sends any more.
pub async fn run(
    shared: Arc<Shared>,
    mut candidates: mpsc::Receiver<Candidate>,
    ends: mpsc::Sender<End>,
    acks: mpsc::Sender<Done>,
    dead: mpsc::Sender<Burial>,
) {
    let ways = Ways { ends, acks, dead };
    let mut again: VecDeque<Candidate> = VecDeque::new();
    let mut parts: VecDeque<Vec<Candidate>> = VecDeque::new();
    loop {
        if !again.is_empty() {
            parts.push_front(again.drain(..).collect());
        }
        let Some(batch) = parts.pop_front() else {
            let Some(batch) = batch::next(&mut candidates).await else { break };
            parts.extend(batch::parts(batch, STATEMENT_BYTES, |c| c.arrival.message.input.len()));
            continue;
        };
        let batch = stops::sorted_out(&shared, batch).await;
        if batch.is_empty() {
            continue;
        }
        let mut lanes = shared.room.free_lanes();
        let mut arrival = |candidate: &Candidate| {
            let mut arrival = candidate.arrival.clone();
            if let Runnable::Here { lane, .. } = &mut arrival.runnable {
                // Which of them are suspects only the database knows: no more than all of these may find the lane free.
                *lane = lanes > 0;
                lanes = lanes.saturating_sub(1);
            }
            arrival
        };
        let arrivals: Vec<Arrival> = batch.iter().map(&mut arrival).collect();
        // What is claimed under a lease that has run out is anybody's: renewed first, then claimed. So is each repetition: the database
        // may have been away for longer than the lease lasts.
        let claim = async |range: Range<usize>| {
            tokio::select! {
                biased;
                () = shared.lease.valid() => {}
                () = shared.hurry.cancelled() => {
                    return Err(DbError::Unavailable("the lease was not renewed before the shutdown".into()));
                }
            }
            let me = Claimant { host: shared.config.host, steady: shared.lease.is_steady() };
            shared.parts.db.claim(me, &arrivals[range]).await
        };
        let asked = Instant::now();
        // What runs without a claim has begun already.
        let waiting = batch.iter().filter(|candidate| candidate.unclaimed.is_none());
        waiting
            .filter_map(|c| Some((&c.arrival, c.delivery.as_ref()?)))
            .for_each(|(arrival, delivery)| shared.begun(arrival, delivery));
        let Some(answers) = batch::all_answered(&shared, "claim", arrivals.len(), claim).await else {
            continue; // Never claimed: still the broker's, or parked.
        };
        shared.parts.metrics.leg(Leg::Claim, asked.elapsed());
        shared.parts.metrics.batch(Step::Claim, answers.len());
        for (candidate, answer) in batch.into_iter().zip(answers) {
            shared.parts.metrics.claim(&answer);
            if let Some(candidate) = follow(&shared, &ways, candidate, answer).await {
                again.push_back(candidate);
            }
        }
    }
}

/// Do what an answer says. A candidate that comes back is to be claimed again.
async fn follow(shared: &Arc<Shared>, ways: &Ways, mut candidate: Candidate, answer: ClaimAnswer) -> Option<Candidate> {
    let id = candidate.arrival.message.id;
    match answer {
        ClaimAnswer::Run(claimed) => start(shared, ways, candidate, claimed).await,
        ClaimAnswer::Mine(claimed) => {
            let second_look = candidate.second_look;
            let unclaimed = candidate.unclaimed.take();
            match attach(shared, ways, candidate).await {
                None => {
                    tracing::debug!(task = %id, "a redelivery of what runs here: re-attached");
                    deny(shared, id, unclaimed).await;
                }
                Some(candidate) => {
                    let candidate = Candidate { unclaimed, ..candidate };
                    // Its end may have been recorded between the claim's answer and now. Only if the database says the
                    // same once more was it claimed by a call whose answer was lost, and never started.
                    if !second_look {
                        return Some(Candidate { second_look: true, ..candidate });
                    }
                    start(shared, ways, candidate, claimed).await;
                }
            }
        }
        ClaimAnswer::Done(decision) => {
            tracing::debug!(task = %id, ?decision, "not run");
            deny(shared, id, candidate.unclaimed).await;
            if let Some(delivery) = candidate.delivery {
                let message = candidate.arrival.message;
                match &message.reply_to {
                    Some(reply_to) if decision == Decision::Keep(Kept::Terminal) => {
                        let reply_to = reply_to.clone();
                        tokio::spawn(reply::again(shared.clone(), ways.acks.clone(), message, reply_to, delivery));
                    }
                    _ => drop(ways.acks.send(Done::now(Some(id), vec![delivery.receipt])).await),
                }
            }
        }
        ClaimAnswer::Conflict => {
            deny(shared, id, candidate.unclaimed).await;
            if let Some(delivery) = candidate.delivery {
                let _ = ways.dead.send(Burial::conflict(delivery, id)).await;
            }
        }
        ClaimAnswer::Refused(reason) => {
            tracing::error!(task = %id, reason, "the database refuses this message");
            deny(shared, id, candidate.unclaimed).await;
            if let Some(delivery) = candidate.delivery {
                let _ = ways.dead.send(Burial::refused(delivery, id, reason)).await;
            } else {
                shared.refused.add(id);
            }
        }
    }
    None
}

/// A run that began without a claim gets none. Further deliveries of it go back: what they are worth is for the claim table,
/// since one may have come after the decision.
async fn deny(shared: &Shared, id: TaskId, unclaimed: Option<Unclaimed>) {
    let Some(unclaimed) = unclaimed else { return };
    unclaimed.deny();
    let receipts = shared.flights.over(id).receipts;
    if !receipts.is_empty() {
        shared.parts.broker.give_back(receipts).await;
    }
}

/// Give a claimed task back that nothing here will run.
fn interrupt(ways: &Ways, claim: Claim, reason: &'static str) {
    let ends = ways.ends.clone();
    tokio::spawn(async move {
        let _ = ends.send(End::interrupted(claim, reason)).await;
    });
}

async fn start(shared: &Arc<Shared>, ways: &Ways, candidate: Candidate, claimed: Claimed) {
    let message = candidate.arrival.message;
    let receipt = candidate.delivery.map(|d| d.receipt);
    let receipt = release(shared, ways, &candidate.arrival.queue, &message, receipt).await;
    if let Some(unclaimed) = candidate.unclaimed {
        shared.flights.claimed(message.id, claimed.fence, receipt);
        let claim = (message.id, claimed.fence, claimed.standing.attempt);
        if claimed.standing.isolated {
            // Its guest runs in this process, where it may end the host: it is stopped, and runs again in the lane.
            unclaimed.deny();
            interrupt(ways, claim, "it was lost with its hosts before: it runs again in the isolation lane");
        } else if !unclaimed.grant(claimed) {
            interrupt(ways, claim, "it had not begun when it was claimed");
        }
        return;
    }
    let about = candidate.ready.as_ref().map(|ready| {
        shared.parts.metrics.about(ready.runner.name().clone(), candidate.arrival.queue.clone(), &message)
    });
    let stop = shared.flights.enter(message.id, claimed.fence, receipt, about);
    match candidate.ready {
        Some(ready) => execute::spawn(shared, ways.ends.clone(), message, claimed, ready, stop),
        // Decided to run without anything to run it: the plugin went away while a lost answer was looked up.
        None => {
            let claim = (message.id, claimed.fence, claimed.standing.attempt);
            interrupt(ways, claim, "its plugin is not served here any more");
        }
    }
}

/// On a queue that acknowledges when claimed, now is the time: the row has the payload. Otherwise the receipt is kept until
/// the end is recorded.
///
/// A message without an id is always acknowledged now. If it were delivered again it would be another task, with budgets of its
/// own: one that kills its host would do so with every delivery, for ever on a broker without a delivery limit.
async fn release(
    shared: &Shared,
    ways: &Ways,
    queue: &str,
    message: &TaskMessage,
    receipt: Option<Receipt>,
) -> Option<Receipt> {
    if message.id_given && !shared.config.ack_when_claimed.contains(queue) {
        return receipt;
    }
    if let Some(receipt) = receipt {
        let _ = ways.acks.send(Done::now(Some(message.id), vec![receipt])).await;
    }
    None
}

/// Add a redelivery's receipt to its flight. The candidate comes back if nothing is in flight under its id.
async fn attach(shared: &Shared, ways: &Ways, candidate: Candidate) -> Option<Candidate> {
    let id = candidate.arrival.message.id;
    let Some(Delivery { source, message, redelivered, receipt, arrived }) = candidate.delivery else {
        return shared.flights.attach(id, None).is_err().then_some(Candidate { delivery: None, ..candidate });
    };
    let kept = match shared.config.ack_when_claimed.contains(&*candidate.arrival.queue) {
        true if shared.flights.attach(id, None).is_ok() => {
            release(shared, ways, &candidate.arrival.queue, &candidate.arrival.message, Some(receipt)).await;
            return None;
        }
        true => receipt,
        false => shared.flights.attach(id, Some(receipt)).err()??,
    };
    Some(Candidate { delivery: Some(Delivery { source, message, redelivered, receipt: kept, arrived }), ..candidate })
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
