//! A reply to a message that came after its task had ended: its producer may have missed the first, and waits at another queue.

use super::Shared;
use super::acknowledge::Done;
use crate::broker::{Delivery, PublishError, reply};
use crate::db::Fields;
use crate::metrics::Replied;
use crate::task::{TaskId, TaskMessage};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Replies to duplicates under way at once, each with its task in memory. Beyond them a duplicate is acknowledged without a reply.
const AT_ONCE: usize = 16;
/// The time that its queue may take to accept it. A queue that accepts nothing must not keep a delivery, nor a shutdown.
const PATIENCE: Duration = Duration::from_secs(5);

static UNDER_WAY: Semaphore = Semaphore::const_new(AT_ONCE);

/// Publish the ended task where this message says, and acknowledge it then. A host that dies before is delivered it again.
pub async fn again(
    shared: Arc<Shared>,
    acks: mpsc::Sender<Done>,
    message: Arc<TaskMessage>,
    reply_to: String,
    delivery: Delivery,
) {
    let outcome = match UNDER_WAY.try_acquire() {
        Ok(_place) => tokio::select! {
            outcome = published(&shared, message.id, &message, reply_to) => outcome,
            () = tokio::time::sleep(PATIENCE) => Some(Replied::Expired),
            // Unacknowledged it is delivered to another host.
            () = shared.closing.cancelled() => return,
        },
        Err(_) => Some(Replied::Expired),
    };
    if let Some(outcome) = outcome {
        shared.parts.metrics.reply(outcome);
    }
    let _ = acks.send(Done::now(Some(message.id), vec![delivery.receipt])).await;
}

/// `None`: there is nothing to say any more.
async fn published(shared: &Shared, id: TaskId, message: &TaskMessage, reply_to: String) -> Option<Replied> {
    let db = shared.parts.db.clone();
    // On a task of its own: an operation of the database is not cancelled in flight.
    let read = tokio::spawn(async move { db.task(id, Fields::ALL).await });
    match read.await {
        Ok(Ok(Some(task))) if task.state.is_terminal() => {
            let publication = reply(&task, reply_to, message.correlation_id.clone());
            match shared.parts.broker.publish(vec![publication]).await.pop() {
                Some(Ok(())) => Some(Replied::Published),
                Some(Err(PublishError::Unroutable(_))) => Some(Replied::Unroutable),
                Some(Err(PublishError::Unconfirmed(why))) => {
                    tracing::debug!(task = %id, why, "a reply is not accepted");
                    Some(Replied::Expired)
                }
                None => None,
            }
        }
        // Pruned meanwhile.
        Ok(Ok(_)) => None,
        Ok(Err(error)) => {
            tracing::debug!(task = %id, %error, "a task is not read for its reply");
            Some(Replied::Expired)
        }
        Err(error) => {
            tracing::error!(task = %id, %error, "a task is not read for its reply");
            Some(Replied::Expired)
        }
    }
}
