//! A broker whose operations are counted.

use super::Metrics;
use crate::broker::{
    Acknowledged, Broker, BrokerError, Health, Publication, PublishError, QueueFacts, Receipt, Source, Subscription,
    Target,
};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Counts what is acknowledged, given back and published. Deliveries are counted where they are received.
pub struct Counted {
    inner: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
}

impl Counted {
    /// The same broker, counted.
    pub fn new(inner: Arc<dyn Broker>, metrics: Arc<Metrics>) -> Counted {
        Counted { inner, metrics }
    }
}

#[async_trait]
impl Broker for Counted {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        self.inner.declare(queues).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        self.inner.subscribe(source, prefetch).await
    }

    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let answer = self.inner.acknowledge(receipts).await;
        self.metrics.acknowledged(answer);
        answer
    }

    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let answer = self.inner.give_back(receipts).await;
        self.metrics.given_back(answer);
        answer
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let targets: Vec<&'static str> = batch.iter().map(|publication| target(&publication.target)).collect();
        let began = Instant::now();
        let answers = self.inner.publish(batch).await;
        self.metrics.published(began.elapsed(), targets.into_iter().zip(&answers));
        answers
    }

    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        self.inner.facts(source).await
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }

    fn refusal(&self) -> Option<String> {
        self.inner.refusal()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn target(target: &Target) -> &'static str {
    match target {
        Target::Tasks(_) => "tasks",
        Target::Returned(_) => "returned",
        Target::Dead(_) => "dead",
        Target::Queue(_) => "reply",
    }
}
