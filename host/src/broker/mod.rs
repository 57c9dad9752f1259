//! Where deliveries come from: RabbitMQ, or the embedded queue. One trait, one conformance suite.
//!
//! A broker reconnects by itself, for ever; what it promises across that is in [`Subscription`] and [`Receipt`]:
//! a delivery is unacknowledged until its receipt's acknowledgement was sent on the very channel it came from, and
//! everything unacknowledged is delivered again.

pub mod amqp;
pub mod embedded;
mod headers;
#[cfg(test)]
pub mod memory;
mod names;
mod reply;
mod types;

#[cfg(test)]
mod conformance;

pub use headers::Header;
pub use reply::reply;
pub use types::*;

use async_trait::async_trait;

/// The one seam to the broker.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Declare (or with `broker.declare=false` check) the topology of these logical queues. Answers once; from then on
    /// the broker keeps it declared across reconnects and deletions.
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError>;
    /// Consume from one queue until the subscription is dropped. At most `prefetch` deliveries are unacknowledged at a
    /// time. Survives reconnects, a deleted queue, a cancelled consumer, a closed channel.
    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError>;
    /// Acknowledge. Receipts of a channel that is gone are counted, not an error: the broker delivers those again.
    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged;
    /// Give back, to be delivered again at once, here or elsewhere.
    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged;
    /// Publish persistently and `mandatory`; answers in the same order once the broker has confirmed each.
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>>;
    /// What the broker counts for a logical queue, by a passive declare (or the embedded table).
    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError>;
    /// Whether it is connected, and since when or why not. Watch it for changes.
    fn health(&self) -> tokio::sync::watch::Receiver<Health>;
    /// Why it accepts no messages at present, although it is connected; `None`: it accepts them as far as is known.
    fn refusal(&self) -> Option<String> {
        None
    }
    /// What a person may see of it: kind, address without password, where connected.
    fn describe(&self) -> String;
    /// Close the connection; outstanding acknowledgements are flushed first.
    async fn close(&self);
}
