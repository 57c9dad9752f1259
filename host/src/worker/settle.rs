//! Settle: ends are recorded in batches, each under its fence. Only then may anybody hear of them.

use super::acknowledge::Done;
use super::{Shared, batch};
use crate::db::{Claimed, SettleAnswer};
use crate::task::settle::Usage;
use crate::task::{Ended, Settlement, TaskMessage};
use std::sync::Arc;
use tokio::sync::mpsc;

/// An attempt that has ended and is not recorded yet.
pub struct End {
    /// What is to be recorded.
    pub settlement: Settlement,
}

impl End {
    /// Claimed, and never entered a guest.
    pub fn interrupted(message: &TaskMessage, claimed: &Claimed, reason: &str) -> End {
        End {
            settlement: Settlement {
                id: message.id,
                fence: claimed.fence,
                attempt: claimed.standing.attempt,
                ended: Ended::Interrupted { reason: reason.into() },
                version: "".into(),
                digest: "".into(),
                usage: Usage::default(),
                logs: Vec::new(),
            },
        }
    }
}

/// Record until nobody sends any more.
pub async fn run(shared: Arc<Shared>, mut ends: mpsc::Receiver<End>, acks: mpsc::Sender<Done>) {
    let host = shared.config.host;
    while let Some(batch) = batch::next(&mut ends).await {
        let settlements: Vec<Settlement> = batch.into_iter().map(|end| end.settlement).collect();
        // A host that could not renew its lease in time keeps its results to itself until it could: by then others may
        // have taken over, and the fence decides.
        tokio::select! {
            () = shared.lease.valid() => {}
            () = shared.hurry.cancelled() => continue,
        }
        let db = &shared.parts.db;
        let Some(answers) = batch::until_answered(&shared, "settle", || db.settle(host, &settlements)).await else {
            continue; // Not recorded: unacknowledged, so the broker delivers it again.
        };
        shared.config.settled.send_modify(|n| *n += 1);
        for (settlement, answer) in settlements.into_iter().zip(answers) {
            let Settlement { id, fence, attempt, ended, .. } = settlement;
            match answer {
                SettleAnswer::Settled => {
                    tracing::debug!(task = %id, attempt, event = %ended.event(), "settled");
                }
                SettleAnswer::Fenced => {
                    tracing::warn!(task = %id, fence, "fenced: another host has taken this task over; the result is dropped");
                }
                SettleAnswer::Refused => {
                    tracing::error!(task = %id, "the database refuses this result; recorded as failed(internal)");
                }
            }
            let receipts = shared.flights.leave(id, fence);
            if !receipts.is_empty() {
                let _ = acks.send(Done { id: Some(id), receipts }).await;
            }
        }
    }
}
