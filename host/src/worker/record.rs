//! Record: ends of runs that were not claimed, in batches. What turns out to have a row goes through the claim table.

use super::acknowledge::Done;
use super::candidate::Candidate;
use super::settle::{End, STATEMENT_BYTES};
use super::unclaimed::{self, Unclaimed};
use super::{Leg, Shared, Step, batch};
use crate::broker::Delivery;
use crate::db::{Claimed, RecordAnswer, Recording};
use crate::task::settle::Standing;
use crate::task::{Arrival, Settlement};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A run without a claim that has ended.
pub struct Ran {
    /// What was asked, and what ran it.
    pub arrival: Arrival,
    /// The delivery it came in.
    pub delivery: Delivery,
    /// How it ended, under the first fence.
    pub settlement: Settlement,
    /// What its guest was told about the attempt.
    pub standing: Standing,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Ends its guest.
    pub stop: CancellationToken,
}

impl Ran {
    /// What the claim step is given, where its answer arrives, and what is to be settled then.
    pub fn into_candidate(self) -> (Candidate, oneshot::Receiver<Claimed>, Settlement, Standing) {
        let (unclaimed, answer) = Unclaimed::new(self.stop);
        let candidate = Candidate::of(self.arrival, None).with(self.delivery);
        (Candidate { unclaimed: Some(unclaimed), ..candidate }, answer, self.settlement, self.standing)
    }

    fn weight(&self) -> usize {
        self.settlement.weight() + self.arrival.message.input.len()
    }
}

/// Where an end leads.
pub struct Ways {
    /// To be claimed after all.
    pub claims: mpsc::Sender<Candidate>,
    /// Settled under a claim.
    pub ends: mpsc::Sender<End>,
    /// To be acknowledged.
    pub acks: mpsc::Sender<Done>,
}

/// Statements in flight at once. While the database executes one, the next is built; a third would only wait.
const IN_FLIGHT: usize = 2;

/// Record until every sender is gone.
///
/// A batch goes out at once if none is in flight. Beside another one it goes out only when it is full, so that a host with
/// little to do makes no more transactions than it needs.
pub async fn run(shared: Arc<Shared>, mut ended: mpsc::Receiver<Ran>, ways: Ways) {
    let (mut gathered, mut in_flight, mut open) = (Vec::new(), FuturesUnordered::new(), true);
    while open || !gathered.is_empty() || !in_flight.is_empty() {
        let full = gathered.len() >= batch::MOST;
        if !gathered.is_empty() && (in_flight.is_empty() || (full && in_flight.len() < IN_FLIGHT)) {
            let batch = std::mem::replace(&mut gathered, Vec::with_capacity(batch::MOST));
            in_flight.push(flush(&shared, &ways, batch));
        }
        let room = batch::MOST - gathered.len();
        tokio::select! {
            biased;
            Some(()) = in_flight.next() => {}
            received = ended.recv_many(&mut gathered, room), if open && room > 0 => {
                open = received > 0;
            }
            else => {}
        }
    }
}

async fn flush(shared: &Arc<Shared>, ways: &Ways, batch: Vec<Ran>) {
    for part in batch::parts(batch, STATEMENT_BYTES, Ran::weight) {
        record(shared, ways, part).await;
    }
}

async fn record(shared: &Arc<Shared>, ways: &Ways, part: Vec<Ran>) {
    let recordings: Vec<Recording> = part
        .iter()
        .map(|ran| Recording {
            arrival: ran.arrival.clone(),
            settlement: ran.settlement.clone(),
            ran: ran.began.elapsed(),
        })
        .collect();
    let db = &shared.parts.db;
    let call = |range| db.record(shared.config.host, &recordings[range]);
    let Some(answers) = batch::all_answered(shared, "record", recordings.len(), call).await else {
        return; // Never recorded: the broker delivers all of it again.
    };
    shared.recorded();
    let recorded = Instant::now();
    shared.parts.metrics.batch(Step::Record, part.len());
    for (ran, answer) in part.into_iter().zip(answers) {
        let id = ran.settlement.id;
        shared.parts.metrics.record(&answer);
        if answer != RecordAnswer::Recorded {
            tracing::debug!(task = %id, ?answer, "not recorded at once: it goes through the claim table");
            let (candidate, granted, settlement, standing) = ran.into_candidate();
            tokio::spawn(unclaimed::under(granted, settlement, standing, ways.ends.clone()));
            let _ = ways.claims.send(candidate).await;
            continue;
        }
        let Settlement { ended, usage, calls, .. } = &ran.settlement;
        let over = shared.flights.over(id);
        if let Some(about) = &over.about {
            let kind = ended.failure().map(|failure| failure.kind);
            shared.parts.metrics.ended(about, ended.event(), kind, usage, calls);
        }
        shared.parts.metrics.leg(Leg::Settle, recorded - ran.ended);
        tracing::debug!(task = %id, event = %ended.event(), "recorded");
        let mut receipts = vec![ran.delivery.receipt];
        if ended.state().is_terminal() {
            receipts.extend(over.receipts);
        } else if !over.receipts.is_empty() {
            // One of them may be what wakes the task for its next attempt.
            shared.parts.broker.give_back(over.receipts).await;
        }
        let _ = ways.acks.send(Done { id: Some(id), receipts, since: recorded }).await;
    }
}
