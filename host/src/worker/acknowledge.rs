//! Acknowledge: what is recorded (or has nothing to be recorded) is taken off the queue.

use super::{Shared, batch};
use crate::broker::Receipt;
use crate::task::TaskId;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Deliveries that are done with.
pub struct Done {
    /// Their task.
    pub id: Option<TaskId>,
    /// Their receipts.
    pub receipts: Vec<Receipt>,
}

/// Acknowledge until nobody sends any more.
pub async fn run(shared: Arc<Shared>, mut done: mpsc::Receiver<Done>) {
    while let Some(batch) = batch::next(&mut done).await {
        let mut ids = Vec::with_capacity(batch.len());
        let mut receipts = Vec::with_capacity(batch.len());
        for mut one in batch {
            ids.extend(one.id);
            receipts.append(&mut one.receipts);
        }
        let answer = shared.parts.broker.acknowledge(receipts).await;
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
