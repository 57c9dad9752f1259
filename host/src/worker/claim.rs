//! Claim: arrivals are claimed in batches, and each answer decides what comes next.

use super::acknowledge::Done;
use super::dead::Burial;
use super::receive::Ready;
use super::settle::End;
use super::{Shared, batch, execute};
use crate::broker::Delivery;
use crate::db::{ClaimAnswer, Claimed};
use crate::task::Arrival;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A task that wants to be claimed.
pub struct Candidate {
    /// What is asked, and whether it can run here.
    pub arrival: Arrival,
    /// What would run it, and where.
    pub ready: Option<Ready>,
    /// The delivery it came in; `None`: it was parked.
    pub delivery: Option<Delivery>,
    /// The database said once that this host runs it already, and nothing here does.
    pub second_look: bool,
}

impl Candidate {
    /// It came in this delivery.
    pub fn with(self, delivery: Delivery) -> Candidate {
        Candidate { delivery: Some(delivery), ..self }
    }
}

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
    loop {
        let batch = match again.is_empty() {
            true => match batch::next(&mut candidates).await {
                Some(batch) => batch,
                None => break,
            },
            false => again.drain(..).collect(),
        };
        let arrivals: Vec<Arrival> = batch.iter().map(|c| c.arrival.clone()).collect();
        let host = shared.config.host;
        let db = &shared.parts.db;
        let Some(answers) = batch::until_answered(&shared, "claim", || db.claim(host, &arrivals)).await else {
            continue; // Never claimed: still the broker's, or parked.
        };
        for (candidate, answer) in batch.into_iter().zip(answers) {
            if let Some(candidate) = follow(&shared, &ways, candidate, answer).await {
                again.push_back(candidate);
            }
        }
    }
}

/// Do what an answer says. A candidate that comes back is to be claimed again.
async fn follow(shared: &Arc<Shared>, ways: &Ways, candidate: Candidate, answer: ClaimAnswer) -> Option<Candidate> {
    let id = candidate.arrival.message.id;
    match answer {
        ClaimAnswer::Run(claimed) => start(shared, ways, candidate, claimed),
        ClaimAnswer::Mine(claimed) => {
            let Candidate { arrival, ready, delivery, second_look } = candidate;
            let (receipt, shell) = split(delivery);
            match shared.flights.attach(id, receipt) {
                Ok(()) => tracing::debug!(task = %id, "a redelivery of what runs here: re-attached"),
                Err(receipt) => {
                    let delivery = join(receipt, shell);
                    let candidate = Candidate { arrival, ready, delivery, second_look: true };
                    // Its end may have been recorded between the claim's answer and now. Only if the database says the
                    // same once more was it claimed by a call whose answer was lost, and never started.
                    if !second_look {
                        return Some(candidate);
                    }
                    start(shared, ways, candidate, claimed);
                }
            }
        }
        ClaimAnswer::Done(decision) => {
            tracing::debug!(task = %id, ?decision, "not run");
            if let Some(delivery) = candidate.delivery {
                let _ = ways.acks.send(Done { id: Some(id), receipts: vec![delivery.receipt] }).await;
            }
        }
        ClaimAnswer::Conflict => {
            if let Some(delivery) = candidate.delivery {
                let _ = ways.dead.send(Burial::conflict(delivery, id)).await;
            }
        }
        ClaimAnswer::Refused(reason) => {
            tracing::error!(task = %id, reason, "the database refuses this message");
            if let Some(delivery) = candidate.delivery {
                let _ = ways.dead.send(Burial::refused(delivery, id, reason)).await;
            }
        }
    }
    None
}

fn start(shared: &Arc<Shared>, ways: &Ways, candidate: Candidate, claimed: Claimed) {
    let message = candidate.arrival.message;
    let receipt = candidate.delivery.map(|d| d.receipt);
    let stop = shared.flights.enter(message.id, claimed.fence, receipt);
    match candidate.ready {
        Some((runner, place)) => execute::spawn(shared, ways.ends.clone(), message, claimed, runner, place, stop),
        // Decided to run without anything to run it: the plugin went away while a lost answer was looked up.
        None => {
            let end = End::interrupted(&message, &claimed, "its plugin is not served here any more");
            let ends = ways.ends.clone();
            tokio::spawn(async move {
                let _ = ends.send(end).await;
            });
        }
    }
}

fn split(delivery: Option<Delivery>) -> (Option<crate::broker::Receipt>, Option<Shell>) {
    match delivery {
        None => (None, None),
        Some(Delivery { source, message, redelivered, receipt }) => {
            (Some(receipt), Some((source, message, redelivered)))
        }
    }
}

type Shell = (crate::broker::Source, crate::broker::Message, bool);

fn join(receipt: Option<crate::broker::Receipt>, shell: Option<Shell>) -> Option<Delivery> {
    let (receipt, (source, message, redelivered)) = receipt.zip(shell)?;
    Some(Delivery { source, message, redelivered, receipt })
}
