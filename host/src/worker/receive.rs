//! Receive: a delivery becomes an arrival, or a dead letter.

use super::Shared;
use super::candidate::{Candidate, consider};
use super::dead::Burial;
use crate::broker::{Delivery, Receipt, Subscription};
use crate::task::TaskMessage;
use crate::task::message::Envelope;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Receive the tasks of one queue until the worker closes.
pub async fn tasks(
    shared: Arc<Shared>,
    mut subscription: Subscription,
    claims: mpsc::Sender<Candidate>,
    dead: mpsc::Sender<Burial>,
) {
    while let Some(delivery) = next(&shared, &mut subscription).await {
        let message = match decode(&shared, &delivery) {
            Ok(message) => message,
            Err(rejection) => {
                // The receiver of burials outlives every sender.
                let _ = dead.send(Burial::rejected(delivery, rejection)).await;
                continue;
            }
        };
        // A slot first, then the claim: what is `running` runs, and what waits is still the broker's to give to others.
        let slot = tokio::select! {
            slot = shared.room.slot() => slot,
            () = shared.closing.cancelled() => { give_back(&shared, vec![delivery.receipt]).await; break }
        };
        let queue = delivery.source.queue().clone();
        let candidate = consider(&shared, Arc::new(message), queue, slot).with(delivery);
        let _ = claims.send(candidate).await;
    }
    leave(&shared, subscription).await;
}

/// Receive what the broker itself gave up on (delivery limit, expiration): each is a dead letter with its reason.
pub async fn returned(shared: Arc<Shared>, mut subscription: Subscription, dead: mpsc::Sender<Burial>) {
    while let Some(delivery) = next(&shared, &mut subscription).await {
        let id = decode(&shared, &delivery).map(|m| m.id_given.then_some(m.id)).unwrap_or_else(|r| r.id);
        let _ = dead.send(Burial::returned(delivery, id)).await;
    }
    leave(&shared, subscription).await;
}

async fn next(shared: &Shared, subscription: &mut Subscription) -> Option<Delivery> {
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => None,
        delivery = subscription.deliveries.recv() => delivery,
    }
}

/// Stop consuming; what was handed over and not started goes back at once, for others.
async fn leave(shared: &Shared, mut subscription: Subscription) {
    subscription.pause.send_replace(true);
    subscription.deliveries.close();
    let mut unstarted = Vec::new();
    while let Some(delivery) = subscription.deliveries.recv().await {
        unstarted.push(delivery.receipt);
    }
    give_back(shared, unstarted).await;
}

async fn give_back(shared: &Shared, receipts: Vec<Receipt>) {
    if !receipts.is_empty() {
        shared.parts.broker.give_back(receipts).await;
    }
}

fn decode(shared: &Shared, delivery: &Delivery) -> Result<TaskMessage, crate::task::Rejection> {
    let message = &delivery.message;
    let envelope = Envelope {
        body: &message.body,
        content_type: message.content_type.as_deref(),
        content_encoding: message.content_encoding.as_deref(),
        message_id: message.message_id.as_deref(),
        plugin_header: message.header("agentry-plugin"),
        options_header: message.header("agentry-options"),
        reply_to: message.reply_to.as_deref(),
        correlation_id: message.correlation_id.as_deref(),
        traceparent: message.header("traceparent"),
    };
    TaskMessage::decode(&envelope, &shared.config.message_limits)
}
