//! A reply to a message that came after its task had ended: its producer may have missed the first, and waits at another queue.

use super::Shared;
use super::acknowledge::Done;
use crate::broker::{Delivery, PublishError, reply};
use crate::db::Fields;
use crate::metrics::Replied;
use crate::task::{TaskId, TaskMessage};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Attempts to publish it. A queue that accepts nothing must not keep a delivery for ever.
const ATTEMPTS: u32 = 3;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_secs(1);

/// Publish the ended task where this message says, and acknowledge it then. A host that dies before is delivered it again.
pub async fn again(
    shared: Arc<Shared>,
    acks: mpsc::Sender<Done>,
    message: Arc<TaskMessage>,
    reply_to: String,
    delivery: Delivery,
) {
    let outcome = published(&shared, message.id, &message, reply_to).await;
    if let Some(outcome) = outcome {
        shared.parts.metrics.reply(outcome);
    }
    let _ = acks.send(Done::now(Some(message.id), vec![delivery.receipt])).await;
}

/// `None`: there is nothing to say any more.
async fn published(shared: &Shared, id: TaskId, message: &TaskMessage, reply_to: String) -> Option<Replied> {
    for attempt in 1..=ATTEMPTS {
        match shared.parts.db.task(id, Fields::ALL).await {
            Ok(Some(task)) if task.state.is_terminal() => {
                let publication = reply(&task, reply_to.clone(), message.correlation_id.clone());
                match shared.parts.broker.publish(vec![publication]).await.pop() {
                    Some(Ok(())) => return Some(Replied::Published),
                    Some(Err(PublishError::Unroutable(_))) => return Some(Replied::Unroutable),
                    Some(Err(PublishError::Unconfirmed(why))) => {
                        tracing::debug!(task = %id, why, "a reply is not accepted");
                    }
                    None => {}
                }
            }
            // Pruned meanwhile.
            Ok(_) => return None,
            Err(error) => tracing::debug!(task = %id, %error, "a task is not read for its reply"),
        }
        if attempt < ATTEMPTS {
            tokio::select! {
                () = shared.closing.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
    Some(Replied::Expired)
}
