//! Returned messages in the queue of earlier builds.
//!
//! Builds before `PREFIX.QUEUE.returned.v2` had the broker return messages to `PREFIX.QUEUE.returned`, a queue without a
//! dead-letter exchange and without a delivery limit. RabbitMQ 4 sets a limit of 20 where none is given, and drops a message there
//! that 21 deliveries did not end. Arguments of a queue cannot be changed, and a policy is the operator's, so the returned messages
//! go to another queue, which has both.
//!
//! Hosts of an earlier build may run beside this one: they consume the earlier queue, and bind it again. So its messages are moved
//! for as long as a broker is open. A message is in the earlier queue unacknowledged only until the broker has confirmed its copy,
//! and not while its task runs.

use super::Shared;
use super::acks::Settle;
use super::publisher::{self, Job};
use super::topology::{CALL, passive};
use crate::broker::{BrokerError, Publication, Receipt, Source, Target};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How old this process is before it takes any. One that crashes at its start, again and again, would hold the same messages each
/// time, and each crash counts as a delivery.
const SETTLED: Duration = Duration::from_secs(3);
/// Messages that are moved at once, and so in memory. Each may have the largest size that the broker accepts.
const BATCH: u16 = 4;
/// Pause after a failed attempt, which doubles up to [`LONGEST`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Move the returned messages of one queue until the broker is closed.
pub(super) async fn run(shared: Arc<Shared>, jobs: mpsc::Sender<Job>, queue: Arc<str>) {
    let wanted = async {
        tokio::time::sleep(SETTLED).await;
        shared.options.declare || exists(&shared, &queue).await
    };
    let wanted = tokio::select! {
        wanted = wanted => wanted,
        () = shared.closing.cancelled() => return,
    };
    if wanted {
        move_all(&shared, &jobs, &queue).await;
    }
}

/// Whether the earlier queue is there; with `broker.declare=false` it need not be.
async fn exists(shared: &Shared, queue: &str) -> bool {
    let name = shared.names.earlier_returned(queue);
    loop {
        let found = async {
            let channel = shared.consuming.live(CALL).await?.channel().await?;
            passive(&channel, &name).await?;
            super::close_channel(&channel).await;
            Ok(())
        };
        match found.await {
            Ok(()) => return true,
            Err(BrokerError::Refused(reason)) => {
                tracing::debug!(queue = name, reason, "no messages of an earlier build are looked for");
                return false;
            }
            Err(BrokerError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn move_all(shared: &Arc<Shared>, jobs: &mpsc::Sender<Job>, queue: &Arc<str>) {
    let name = shared.names.earlier_returned(queue);
    let (feed, mut subscription) = shared.feed(Source::Returned(queue.clone()), name.clone(), BATCH);
    let (first, outcome) = oneshot::channel();
    let moving = async {
        if let Ok(Err(error)) = outcome.await {
            tracing::error!(%error, queue = name, "returned messages of an earlier build are not moved");
            return;
        }
        while let Some(delivery) = subscription.deliveries.recv().await {
            let mut deliveries = vec![delivery];
            while let Ok(more) = subscription.deliveries.try_recv() {
                deliveries.push(more);
            }
            let moving = deliveries.into_iter().map(|delivery| {
                let target = Target::Returned(queue.to_string());
                (delivery.receipt, Publication { target, message: delivery.message })
            });
            move_these(shared, jobs, &name, moving.collect()).await;
        }
    };
    // The feed ends when the broker is closed, and sends its last acknowledgements before.
    tokio::join!(feed.run(first), moving);
}

/// Publish until each is confirmed, and acknowledge what is.
async fn move_these(shared: &Shared, jobs: &mpsc::Sender<Job>, name: &str, mut moving: Vec<(Receipt, Publication)>) {
    let mut pause = PAUSE;
    loop {
        let batch = moving.iter().map(|(_, publication)| publication.clone()).collect();
        let results = publisher::publish(jobs, batch).await;
        let (mut moved, mut left, mut reason) = (Vec::new(), Vec::new(), None);
        for ((receipt, publication), result) in moving.into_iter().zip(results) {
            match result {
                Ok(()) => moved.push(receipt),
                Err(error) => {
                    reason = Some(error);
                    left.push((receipt, publication));
                }
            }
        }
        if !moved.is_empty() {
            tracing::info!(queue = name, moved = moved.len(), "returned messages of an earlier build moved");
            shared.incarnations.settle(moved, Settle::Ack).await;
        }
        let Some(error) = reason else { return };
        tracing::warn!(%error, queue = name, "returned messages of an earlier build not moved yet; retrying");
        moving = left;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.closing.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST);
    }
}
