//! First attempts that run without a claim.
//!
//! A claim before the run is a commit that a short task waits for, and half of what its history costs. It protects effects
//! from being repeated. A guest that has none (no HTTP, model, tool, bucket or memory) can be run again without anyone
//! noticing. So the first attempt of a first delivery begins at once, and its birth, run and end are written together
//! ([`super::record`]). The promises of the claim hold all the same:
//!
//! - The broker keeps the delivery until the end is recorded. If this host dies, the redelivery is claimed before it runs, so
//!   that a message that kills its hosts is found.
//! - The record is written only if the task has no row or waits for its first attempt. Otherwise the end goes through the
//!   claim table ([`super::claim`]), and is dropped unless the claim is granted.
//! - A run that still goes on after `worker.claim_after_ms` is claimed. From then on it can be seen, cancelled and taken over.
//! - Where runs are counted the claim comes first: plugins with `concurrency`, queues that acknowledge when claimed, messages
//!   with `run_at` or `deadline`, and redeliveries.

use super::candidate::{Candidate, Ready};
use super::flights::Begun;
use super::record::Ran;
use super::settle::End;
use super::{Shared, execute};
use crate::broker::{Delivery, Source};
use crate::db::Claimed;
use crate::registry::Runner;
use crate::task::settle::Standing;
use crate::task::{Arrival, Ended, Settlement, TaskMessage};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where a run without a claim leads.
#[derive(Clone)]
pub struct Ways {
    /// To be claimed after all.
    pub claims: mpsc::Sender<Candidate>,
    /// Ended, to be recorded at once.
    pub records: mpsc::Sender<Ran>,
    /// Ended under a claim that was granted meanwhile.
    pub ends: mpsc::Sender<End>,
}

/// How the claim step answers a candidate whose run began before its claim.
pub struct Unclaimed {
    claimed: oneshot::Sender<Claimed>,
    stop: CancellationToken,
}

impl Unclaimed {
    /// The answer's two ends. The receiver fails if the claim is not granted.
    pub fn new(stop: CancellationToken) -> (Unclaimed, oneshot::Receiver<Claimed>) {
        let (claimed, answer) = oneshot::channel();
        (Unclaimed { claimed, stop }, answer)
    }

    /// The claim is granted. False: the run is gone, or never began.
    pub fn grant(self, claimed: Claimed) -> bool {
        self.claimed.send(claimed).is_ok()
    }

    /// The claim is not granted: the guest is ended, its result dropped.
    pub fn deny(self) {
        self.stop.cancel();
    }
}

/// Whether this may run before it is claimed.
fn may_run(shared: &Shared, candidate: &Candidate, delivery: &Delivery) -> bool {
    let Some(ready) = &candidate.ready else { return false };
    let options = &candidate.arrival.message.options;
    !shared.config.claim_after.is_zero()
        && !delivery.redelivered
        && matches!(delivery.source, Source::Tasks(_))
        && candidate.arrival.is_first()
        && options.run_at.is_none()
        && options.deadline.is_none()
        && !ready.runner.has_effects()
        && ready.runner.concurrency().is_none()
        && !shared.config.ack_when_claimed.contains(&*candidate.arrival.queue)
}

/// Begin to run a candidate that need not be claimed first. One that is to be claimed comes back with its delivery.
pub fn begin(shared: &Arc<Shared>, ways: &Ways, candidate: Candidate, delivery: Delivery) -> Option<Candidate> {
    let message = candidate.arrival.message.clone();
    let Delivery { source, message: wire, redelivered, receipt, arrived } = delivery;
    // Not what a relay published for a later attempt: this one may be recorded already, and that message is what wakes the task.
    let attached = match candidate.arrival.is_first() {
        true => shared.flights.attach_unclaimed(message.id, &message.fingerprint, receipt),
        false => Err(receipt),
    };
    let Err(receipt) = attached else {
        tracing::debug!(task = %message.id, "a redelivery of what runs here without a claim: re-attached");
        return None;
    };
    let delivery = Delivery { source, message: wire, redelivered, receipt, arrived };
    if !may_run(shared, &candidate, &delivery) {
        return Some(candidate.with(delivery));
    }
    let Candidate { arrival, ready: Some(ready), .. } = candidate else { return Some(candidate.with(delivery)) };
    let about = shared.parts.metrics.about(ready.runner.name().clone(), arrival.queue.clone(), &message);
    match shared.flights.begin(message.id, message.fingerprint, about) {
        Begun::Started(stop) => {
            spawn(shared.clone(), ways.clone(), arrival, ready, delivery, stop);
            None
        }
        Begun::Busy => Some(Candidate::of(arrival, Some(ready)).with(delivery)),
    }
}

fn spawn(shared: Arc<Shared>, ways: Ways, arrival: Arrival, ready: Ready, delivery: Delivery, stop: CancellationToken) {
    let guests = shared.parts.guests.clone();
    guests.spawn(async move {
        let Ready { runner, place, memory, turn } = ready;
        if !execute::is_begun(&turn, &stop).await {
            let candidate = Candidate::of(Arrival { runnable: execute::no_turn(), ..arrival }, None).with(delivery);
            drop((place, memory, turn));
            // It is parked, for whichever host can run it next.
            let (unclaimed, _) = Unclaimed::new(stop);
            let _ = ways.claims.send(Candidate { unclaimed: Some(unclaimed), ..candidate }).await;
            return;
        }
        if shared.stopped(&arrival.queue).is_some()
            || shared.disabled(&arrival.message.plugin, Some(&**runner.version())).is_some()
        {
            // It waited for its turn while a brake was set, and has not begun. Delivered again, it is held or parked.
            drop((place, memory, turn));
            let mut receipts = shared.flights.over(arrival.message.id).receipts;
            receipts.push(delivery.receipt);
            shared.parts.broker.give_back(receipts).await;
            return;
        }
        let (message, began) = (arrival.message.clone(), Instant::now());
        shared.begun(&arrival, &delivery);
        let standing = first(&message, &*runner);
        let job = execute::job(&message, (None, standing), None, stop.clone(), (memory.clone(), turn.clone()));
        let mut run = std::pin::pin!(execute::watched(&*runner, &message, runner.run(job)));
        let early = tokio::select! {
            biased;
            report = &mut run => Ok(report),
            () = tokio::time::sleep(shared.config.claim_after) => Err(run),
        };
        match early {
            Ok(report) => {
                drop((place, memory, turn));
                let settlement = execute::settlement(&shared, &message, &*runner, (1, standing), report);
                let ran = Ran { arrival, delivery, settlement, standing, began, ended: Instant::now(), stop };
                ended(&shared, &ways, ran).await;
            }
            Err(run) => {
                let (unclaimed, answer) = Unclaimed::new(stop);
                let candidate = Candidate { unclaimed: Some(unclaimed), ..Candidate::of(arrival, None).with(delivery) };
                // Sent while the guest goes on: the claim step may be behind, and gone only after every sender is.
                let (report, _) = tokio::join!(run, ways.claims.send(candidate));
                drop((place, memory, turn));
                let settlement = execute::settlement(&shared, &message, &*runner, (1, standing), report);
                under(answer, settlement, standing, ways.ends).await;
            }
        }
    });
}

/// The attempt that every task begins with.
fn first(message: &TaskMessage, runner: &dyn Runner) -> Standing {
    let max_attempts = message.max_attempts(Some(runner.retry().max_attempts));
    Standing { attempt: 1, max_attempts, snoozes: 0, child_losses: 0, isolated: false }
}

/// The end of a run that was not claimed.
async fn ended(shared: &Shared, ways: &Ways, ran: Ran) {
    let settlement = &ran.settlement;
    match settlement.ended {
        // The host shuts down. Nothing is recorded of it, so it is as if it had not begun.
        Ended::Interrupted { .. } if ran.stop.is_cancelled() => {
            let mut receipts = shared.flights.over(settlement.id).receipts;
            receipts.push(ran.delivery.receipt);
            shared.parts.broker.give_back(receipts).await;
        }
        Ended::Completed { .. } | Ended::Failed { .. } | Ended::Retrying { .. } | Ended::Snoozed { .. }
            if settlement.calls.is_empty() =>
        {
            // The record step ends only after every sender is gone.
            let _ = ways.records.send(ran).await;
        }
        _ => {
            let (candidate, answer, settlement, standing) = ran.into_candidate();
            let _ = ways.claims.send(candidate).await;
            under(answer, settlement, standing, ways.ends.clone()).await;
        }
    }
}

/// Settle an end under the claim that it is granted; dropped if it is not.
pub async fn under(
    answer: oneshot::Receiver<Claimed>,
    settlement: Settlement,
    standing: Standing,
    ends: mpsc::Sender<End>,
) {
    let Ok(claimed) = answer.await else { return };
    let end = if claimed.standing == standing {
        End { settlement: Settlement { fence: claimed.fence, ..settlement }, at: Instant::now() }
    } else {
        // The guest was told that this was its first attempt, and it was not. Its message says so the next time.
        End::interrupted((settlement.id, claimed.fence, claimed.standing.attempt), "it had run before: it runs again")
    };
    // The settle step ends only after every sender is gone.
    let _ = ends.send(end).await;
}
