//! The broker with points.

use super::{after, before, redrives};
use crate::broker::*;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Every call goes through; those on a task's way pass two points.
pub struct Faulty(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for Faulty {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        self.0.declare(queues).await
    }
    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        let mut inner = self.0.subscribe(source, prefetch).await?;
        let (sender, deliveries) = mpsc::channel(1);
        let (confirmed, flow, end) = (inner.confirmed.clone(), inner.flow.clone(), inner.end.clone());
        tokio::spawn(async move {
            // The receiver's end ends this, and with it the subscription.
            while let Some(delivery) = tokio::select! {
                delivery = inner.deliveries.recv() => delivery,
                () = sender.closed() => None,
            } {
                let subject = delivery.message.message_id.clone().unwrap_or_default();
                if before("s0.received", &subject).await.is_err() || sender.send(delivery).await.is_err() {
                    continue; // dropped: unacknowledged, as if it had been lost on the way
                }
            }
        });
        Ok(Subscription { deliveries, confirmed, flow, end })
    }
    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let stale = Acknowledged { sent: 0, stale: receipts.len() };
        let Ok(asked) = before("s7.acknowledge", "").await else { return stale };
        let answer = self.0.acknowledge(receipts).await;
        match after("s7.acknowledged", "", asked).await {
            Ok(()) => answer,
            Err(_) => stale,
        }
    }
    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.0.give_back(receipts).await
    }
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let redriven =
            |publication: &Publication| publication.message.message_id.as_ref().is_some_and(|id| redrives().remove(id));
        let points = match batch.first() {
            // Redrives are published one by one.
            Some(one) if matches!(one.target, Target::Tasks(_)) && redriven(one) => {
                ("redrive.publish", "redrive.published")
            }
            Some(Publication { target: Target::Tasks(_), .. }) => ("relay.publish", "relay.published"),
            Some(Publication { target: Target::Dead(_), .. }) => ("dead.publish", "dead.published"),
            _ => return self.0.publish(batch).await,
        };
        let count = batch.len();
        let lost = |why: String| vec![Err(PublishError::Unconfirmed(why)); count];
        let asked = match before(points.0, "").await {
            Ok(asked) => asked,
            Err(why) => return lost(why),
        };
        let answers = self.0.publish(batch).await;
        match after(points.1, "", asked).await {
            Ok(()) => answers,
            Err(why) => lost(why),
        }
    }
    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        self.0.facts(source).await
    }
    fn health(&self) -> watch::Receiver<Health> {
        self.0.health()
    }
    fn refusal(&self) -> Option<String> {
        self.0.refusal()
    }
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn close(&self) {
        self.0.close().await;
    }
}
