//! The relay hands outbox rows to the broker: claims them under a token, publishes with confirm and `mandatory`, deletes
//! what was confirmed. A relay that dies between publishing and deleting publishes twice; the claim recognises it.

use super::Parts;
use crate::broker::{Message, Publication, PublishError, Target};
use crate::db::{DbError, OutboxReason, OutboxRow};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows of one publication.
const BATCH: u32 = 500;
/// How long rows are held: longer than a confirmation takes, and as long as a task waits whose relay died, or never heard what
/// it had taken. After it another relay may publish them; should both, the claim recognises it.
const HELD: Duration = Duration::from_secs(10);
/// How often the outbox is looked at when nobody in this process said that there is something.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause before an unroutable row is tried again.
const LONGEST: Duration = Duration::from_secs(30);

/// Publish until told to end.
pub async fn run(parts: Parts, closing: CancellationToken) {
    let mut trouble = false;
    loop {
        let full = match round(&parts).await {
            Ok(taken) => {
                trouble = false;
                taken >= BATCH as usize
            }
            Err(error) => {
                if !trouble {
                    tracing::warn!(duty = "relay", %error, "failed to read the outbox; trying on");
                }
                trouble = true;
                false
            }
        };
        if full {
            continue;
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = parts.outbox.notified(), if !trouble => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One round: how many rows were taken.
async fn round(parts: &Parts) -> Result<usize, DbError> {
    if !parts.broker.health().borrow().is_up() {
        return Ok(0); // The rows stay as they are: `not_published`.
    }
    let batch = parts.db.take_outbox(BATCH, HELD).await?;
    if batch.rows.is_empty() {
        return Ok(0);
    }
    let taken = batch.rows.len();
    let answers = parts.broker.publish(batch.rows.iter().map(publication).collect()).await;
    let (mut published, mut unroutable, mut unconfirmed) = (Vec::new(), Vec::new(), Vec::new());
    let mut deferred = 0;
    for (row, answer) in batch.rows.iter().zip(answers) {
        match answer {
            Ok(()) => published.push(row.id),
            Err(PublishError::Unroutable(place)) => {
                tracing::warn!(task = %row.id, queue = row.queue, place, "unroutable: no queue is bound for it");
                deferred = deferred.max(row.deferred);
                unroutable.push(row.id);
            }
            Err(PublishError::Unconfirmed(why)) => {
                tracing::debug!(task = %row.id, why, "not confirmed");
                unconfirmed.push(row.id);
            }
        }
    }
    let db = &parts.db;
    if !published.is_empty() {
        db.drop_outbox(batch.token, &published).await?;
    }
    if !unroutable.is_empty() {
        let pause = Duration::from_secs(1).saturating_mul(1 << deferred.min(5)).min(LONGEST);
        db.defer_outbox(batch.token, &unroutable, OutboxReason::Unroutable, pause).await?;
    }
    if !unconfirmed.is_empty() {
        tracing::warn!(count = unconfirmed.len(), "the broker did not confirm; published again shortly");
        db.defer_outbox(batch.token, &unconfirmed, OutboxReason::NotPublished, Duration::from_millis(500)).await?;
    }
    Ok(taken)
}

/// A task as any producer would publish it.
fn publication(row: &OutboxRow) -> Publication {
    Publication { target: Target::Tasks(row.queue.clone()), message: Message::from(&row.message) }
}
