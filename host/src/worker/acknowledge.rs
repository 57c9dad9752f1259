//! Acknowledge: what is recorded (or has nothing to be recorded) is taken off the queue.

use super::{Leg, Shared, Step, batch};
use crate::broker::Receipt;
use crate::task::TaskId;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Deliveries that are done with.
pub struct Done {
    /// Their task.
    pub id: Option<TaskId>,
    /// Their receipts.
    pub receipts: Vec<Receipt>,
    /// Since when they are.
    pub since: Instant,
}

impl Done {
    /// Done with now.
    pub fn now(id: Option<TaskId>, receipts: Vec<Receipt>) -> Done {
        Done { id, receipts, since: Instant::now() }
    }
}

/// Acknowledge until nobody sends any more.
pub async fn run(shared: Arc<Shared>, mut done: mpsc::Receiver<Done>) {
    while let Some(batch) = batch::next(&mut done).await {
        let mut ids = Vec::with_capacity(batch.len());
        let mut receipts = Vec::with_capacity(batch.len());
        let mut since = Vec::with_capacity(batch.len());
        for mut one in batch {
            ids.extend(one.id);
            receipts.append(&mut one.receipts);
            since.push(one.since);
        }
        shared.parts.metrics.batch(Step::Acknowledge, receipts.len());
        let answer = shared.parts.broker.acknowledge(receipts).await;
        let now = Instant::now();
        since.into_iter().for_each(|since| shared.parts.metrics.leg(Leg::Acknowledge, now - since));
        if answer.stale > 0 {
            tracing::info!(
                stale = answer.stale,
                "acknowledgements whose channel is gone: the broker delivers those again, and they are recognised"
            );
        }
        for task in ids {
            tracing::debug!(%task, "acknowledged");
        }
    }
}
