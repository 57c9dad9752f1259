//! Settle: ends are recorded in batches, each under its fence. Only then may anybody hear of them.
//!
//! While the database is away, ends go to the [`spool`](super::spool), so that they survive this process as well, and are
//! recorded from there when it answers.

use super::acknowledge::Done;
use super::flights::Landed;
use super::spool::Spool;
use super::{Leg, Shared, Step, batch};
use crate::db::{Halving, SettleAnswer};
use crate::task::settle::Usage;
use crate::task::{Ended, Event, FailureKind, Fence, Settlement, TaskId};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// About how many bytes one statement may take: outputs, logs and bodies of calls have limits of their own, and a whole batch of
/// the largest would neither be sent within `database.timeout_seconds` nor, past a gigabyte, be taken at all.
pub const STATEMENT_BYTES: usize = 16 << 20;

/// An attempt that has ended and is not recorded yet.
pub struct End {
    /// What is to be recorded.
    pub settlement: Settlement,
    /// When it ended.
    pub at: Instant,
}

impl End {
    /// Claimed, and never entered a guest.
    pub fn interrupted(claim: Claim, reason: &str) -> End {
        End { settlement: interrupted(claim, reason), at: Instant::now() }
    }
}

/// A task, its claim and its attempt.
pub type Claim = (TaskId, Fence, u32);

fn interrupted((id, fence, attempt): Claim, reason: &str) -> Settlement {
    Settlement {
        id,
        fence,
        attempt,
        ended: Ended::Interrupted { reason: reason.into() },
        version: "".into(),
        digest: "".into(),
        usage: Usage::default(),
        logs: Vec::new(),
        calls: Vec::new(),
    }
}

/// A batch that waits for the database.
enum Waiting {
    /// On disk, and whose results they are.
    Spooled(PathBuf, Vec<Claim>),
    /// In memory, because the disk did not take it or there is none.
    Held(Vec<Settlement>),
}

/// Record until nobody sends any more.
pub async fn run(shared: Arc<Shared>, mut ends: mpsc::Receiver<End>, acks: mpsc::Sender<Done>, mut spool: Spool) {
    while let Some(batch) = batch::next(&mut ends).await {
        let oldest = batch.iter().map(|end| end.at).min();
        let mut parts = VecDeque::from(settlements(batch));
        while let Some(part) = parts.pop_front() {
            if !record(&shared, &part, &acks, &mut Halving::new(part.len())).await {
                parts.push_front(part);
                outlast(&shared, std::mem::take(&mut parts), &mut ends, &acks, &mut spool).await;
            }
        }
        oldest.into_iter().for_each(|at| shared.parts.metrics.leg(Leg::Settle, at.elapsed()));
    }
}

/// What is to be recorded, a statement each.
fn settlements(batch: Vec<End>) -> Vec<Vec<Settlement>> {
    let settlements = batch.into_iter().map(|end| end.settlement).collect();
    batch::parts(settlements, STATEMENT_BYTES, Settlement::weight)
}

/// Record a batch, if this host may and the database answers. It goes in pieces of a size that is halved if one does not end in
/// time: called again, the pieces before it are recognised by the database.
async fn record(shared: &Shared, batch: &[Settlement], acks: &mpsc::Sender<Done>, size: &mut Halving) -> bool {
    let mut left = batch;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(size.size().min(left.len()));
        if !record_piece(shared, piece, acks, size).await {
            return false;
        }
        left = rest;
    }
    true
}

async fn record_piece(
    shared: &Shared,
    settlements: &[Settlement],
    acks: &mpsc::Sender<Done>,
    size: &mut Halving,
) -> bool {
    // A host that could not renew its lease in time keeps its results to itself until it could: by then others may have
    // taken over, and the fence decides.
    if !shared.lease.is_valid() || shared.hurry.is_cancelled() {
        return false;
    }
    let result = shared.parts.db.settle(shared.config.host, settlements).await;
    match &result {
        Ok(_) => size.ended(),
        Err(error) if error.is_timed_out() => drop(size.timed_out(settlements.len())),
        Err(_) => {}
    }
    let Some(answers) = batch::told(shared, "settle", result) else { return false };
    shared.recorded();
    shared.parts.metrics.batch(Step::Settle, settlements.len());
    for (settlement, answer) in settlements.iter().zip(answers) {
        let Settlement { id, fence, attempt, ref ended, ref usage, ref calls, .. } = *settlement;
        let Landed { receipts, about } = shared.flights.leave(id, fence);
        // Here and nowhere else, so that an attempt is counted once, when it is recorded, and by whoever recorded it.
        let count = |event, kind| {
            if let Some(about) = &about {
                shared.parts.metrics.ended(about, event, kind, usage, calls);
            }
        };
        shared.parts.metrics.settlement(&answer);
        match answer {
            SettleAnswer::Settled => {
                count(ended.event(), ended.failure().map(|failure| failure.kind));
                tracing::debug!(task = %id, attempt, event = %ended.event(), "settled");
            }
            SettleAnswer::Fenced => {
                tracing::warn!(task = %id, fence, "fenced: another host has taken this task over; the result is dropped");
            }
            SettleAnswer::Refused => {
                count(Event::Failed, Some(FailureKind::Internal));
                tracing::error!(task = %id, "the database refuses this result; recorded as failed(internal)");
            }
            SettleAnswer::Unwritten(reason) => tracing::error!(
                task = %id, fence, reason,
                "the database refuses this result, and that it failed; the task is taken over after its hard deadline"
            ),
        }
        if !receipts.is_empty() {
            let _ = acks.send(Done::now(Some(id), receipts)).await;
        }
    }
    true
}

/// Until everything is recorded, or a shutdown cannot wait: then it is on disk, and unacknowledged at the broker as well.
async fn outlast(
    shared: &Shared,
    first: VecDeque<Vec<Settlement>>,
    ends: &mut mpsc::Receiver<End>,
    acks: &mpsc::Sender<Done>,
    spool: &mut Spool,
) {
    let mut waiting = VecDeque::with_capacity(first.len());
    for part in first {
        waiting.push_back(keep(spool, part).await);
    }
    let mut pause = Duration::from_millis(50);
    let after = |pause: Duration| Instant::now() + pause.mul_f64(0.5 + (shared.parts.chance)() / 2.0);
    let mut at = after(pause);
    let mut more = true;
    let mut size = Halving::new(batch::MOST);
    while !waiting.is_empty() {
        let again = async {
            // A timer is never ready at once, and more ends may be.
            if Instant::now() < at {
                sleep_until(at).await;
            }
            shared.lease.valid().await;
        };
        match next(again, ends, more, shared.hurry.cancelled()).await {
            Next::Again => {
                while let Some(batch) = waiting.pop_front() {
                    if let Some(batch) = retry(shared, batch, acks, &mut size).await {
                        waiting.push_front(batch);
                        break;
                    }
                }
                pause = (pause * 2).min(Duration::from_secs(2));
                at = after(pause);
            }
            Next::Ends(Some(batch)) => {
                for part in settlements(batch) {
                    waiting.push_back(keep(spool, part).await);
                }
            }
            Next::Ends(None) => more = false,
            Next::Hurry => return,
        }
    }
    tracing::info!("everything that had to wait for the database is recorded");
}

/// What comes next while results wait.
enum Next<T> {
    /// Another attempt may succeed.
    Again,
    /// More have to wait; `None`: nobody sends any more.
    Ends(Option<Vec<T>>),
    /// A shutdown cannot wait.
    Hurry,
}

/// An attempt that is due goes first: however many ends keep coming, those that wait are recorded as soon as they can be.
async fn next<T>(
    again: impl Future<Output = ()>,
    ends: &mut mpsc::Receiver<T>,
    more: bool,
    hurry: impl Future<Output = ()>,
) -> Next<T> {
    tokio::select! {
        biased;
        () = again => Next::Again,
        batch = batch::next(ends), if more => Next::Ends(batch),
        () = hurry => Next::Hurry,
    }
}

async fn keep(spool: &mut Spool, batch: Vec<Settlement>) -> Waiting {
    let count = batch.len();
    let claims = batch.iter().map(|settlement| (settlement.id, settlement.fence, settlement.attempt)).collect();
    match spool.keep(batch).await {
        (_, Ok(Some(file))) => {
            tracing::warn!(count, file = %file.display(), "results wait for the database in the spool");
            Waiting::Spooled(file, claims)
        }
        (batch, Ok(None)) => Waiting::Held(batch),
        (batch, Err(error)) => {
            tracing::error!(%error, count, "results cannot be spooled and wait in memory; free space in data.dir");
            Waiting::Held(batch)
        }
    }
}

/// Try once more. The batch comes back if it still has to wait.
async fn retry(shared: &Shared, waiting: Waiting, acks: &mpsc::Sender<Done>, size: &mut Halving) -> Option<Waiting> {
    match waiting {
        Waiting::Held(batch) => match record(shared, &batch, acks, size).await {
            true => None,
            false => Some(Waiting::Held(batch)),
        },
        Waiting::Spooled(file, claims) => match Spool::load(file.clone()).await {
            Ok((_, batch)) if record(shared, &batch, acks, size).await => {
                Spool::done(file).await;
                None
            }
            Ok(_) => Some(Waiting::Spooled(file, claims)),
            Err(error) => {
                // They are this host's, which lives: nobody else would ever take them over.
                Spool::put_aside(&file, &error);
                let reason = "its result was spooled in an outage of the database and could not be read back";
                Some(Waiting::Held(claims.into_iter().map(|claim| interrupted(claim, reason)).collect()))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn ends_that_keep_coming_do_not_put_off_those_that_wait() {
        let (send, mut ends) = mpsc::channel(1);
        send.try_send(()).unwrap();
        assert!(matches!(next(ready(()), &mut ends, true, pending()).await, Next::Again));
        assert!(matches!(next(pending(), &mut ends, true, pending()).await, Next::Ends(Some(_))));
    }
}
