//! The way to the broker: deliveries are late, acknowledgements get lost with their connection, confirmations are not heard.

use super::super::swarm::Without;
use super::Wire;
use crate::broker::*;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// See [`Wire`].
pub struct WireBroker(pub Arc<Wire>);

impl Wire {
    /// The connection breaks in the middle of something, and is there again after a moment.
    fn break_off(self: &Arc<Self>) {
        self.world.count("a connection broke under a call");
        self.broker.cut();
        let (wire, pause) = (self.clone(), self.world.chance.millis(10..800));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            wire.alive().await;
            wire.broker.restore();
        });
    }
}

/// Hands deliveries on, each after a while. What is in hand when the reader goes is given back.
async fn carry(wire: Arc<Wire>, mut inner: Subscription, to: mpsc::Sender<Delivery>) {
    loop {
        let delivery = tokio::select! {
            biased;
            () = to.closed() => return,
            delivery = inner.deliveries.recv() => delivery,
        };
        let Some(delivery) = delivery else { return };
        let id = delivery.message.message_id.clone().unwrap_or_default();
        wire.step("s0 delivered", &id);
        wire.die_at("s0 crash");
        wire.alive().await;
        if wire.world.swarm.without == Without::CommitBeforeAck {
            let Receipt { channel, tag, .. } = delivery.receipt;
            wire.broker.acknowledge(vec![Receipt::new(channel, tag)]).await;
        }
        tokio::time::sleep(wire.world.delay()).await;
        if let Err(unread) = to.send(delivery).await {
            // The reader has gone, and its channel may live on: as a broker does with what was not read.
            wire.broker.give_back(vec![unread.0.receipt]).await;
            return;
        }
        wire.step("s1 decoded", &id);
        wire.die_at("s1 crash");
    }
}

#[async_trait]
impl Broker for WireBroker {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        self.0.broker.declare(queues).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        let inner = self.0.broker.subscribe(source, prefetch).await?;
        let (sender, deliveries) = mpsc::channel(1);
        let (confirmed, flow, end) = (inner.confirmed.clone(), inner.flow.clone(), inner.end.clone());
        tokio::spawn(carry(self.0.clone(), inner, sender));
        Ok(Subscription { deliveries, confirmed, flow, end })
    }

    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let wire = &self.0;
        wire.die_at("s7 crash");
        wire.alive().await;
        tokio::time::sleep(wire.world.delay()).await;
        if wire.world.happens(wire.world.swarm.lost / 2.0) {
            wire.break_off();
        }
        let answer = wire.broker.acknowledge(receipts).await;
        wire.world.steps("s7 acknowledged", answer.sent as u64);
        wire.world.steps("s7 stale", answer.stale as u64);
        wire.die_at("s8 crash");
        wire.alive().await;
        answer
    }

    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.0.alive().await;
        self.0.world.steps("given back", receipts.len() as u64);
        self.0.broker.give_back(receipts).await
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let (wire, world) = (&self.0, &self.0.world);
        wire.alive().await;
        let count = batch.len();
        let unheard = || vec![Err(PublishError::Unconfirmed("simulated".into())); count];
        for publication in &batch {
            match publication.target {
                Target::Dead(_) => {
                    wire.step("s1 unusable", &publication.message.message_id.clone().unwrap_or_default())
                }
                _ => wire.step("relay published", &publication.message.message_id.clone().unwrap_or_default()),
            }
        }
        tokio::time::sleep(world.delay()).await;
        wire.alive().await;
        if world.happens(world.swarm.refused) {
            return unheard();
        }
        let answers = wire.broker.publish(batch).await;
        tokio::time::sleep(world.delay()).await;
        wire.alive().await;
        if world.happens(world.swarm.lost) {
            world.count("a confirmation was lost");
            return unheard();
        }
        answers
    }

    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        self.0.broker.facts(source).await
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.0.broker.health()
    }
    fn describe(&self) -> String {
        self.0.broker.describe()
    }
    async fn close(&self) {
        self.0.alive().await;
        // A connection that does not get on is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.broker.close()).await;
    }
}
