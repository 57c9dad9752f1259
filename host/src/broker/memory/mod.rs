//! A broker in memory, for simulations: it has RabbitMQ's channels, redeliveries and delivery limit, passes the suite of the
//! others, and its connections can be cut, on both sides or on one.

mod feed;
mod server;
#[cfg(test)]
mod tests;

pub use server::{Server, Stored};

use super::names::prepared;
use super::*;
use chrono::Utc;
use feed::Feed;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One process's connection to a [`Server`].
pub struct MemoryBroker {
    link: Arc<Link>,
    health: watch::Sender<Health>,
    feeds: TaskTracker,
}

/// What the connection's owner and its subscriptions share.
struct Link {
    server: Server,
    /// Connected, as far as this side knows.
    up: AtomicBool,
    /// Connections that have ended: one may end and be there again before anybody looks.
    ended: AtomicU64,
    changed: Notify,
    /// Channels that live, as far as this side knows.
    channels: Mutex<BTreeSet<u64>>,
    /// Channels that this side opened and has not given up at the server.
    opened: Mutex<BTreeSet<u64>>,
    closing: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Returns when it is connected, and which connection it is.
    async fn connected(&self) -> u64 {
        self.until(|| self.up.load(Ordering::Relaxed)).await;
        self.ended.load(Ordering::Relaxed)
    }

    /// Returns when this connection has ended.
    async fn lost(&self, connection: u64) {
        self.until(|| self.ended.load(Ordering::Relaxed) != connection).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds() {
                return;
            }
            changed.await;
        }
    }

    fn set(&self, up: bool) {
        if !up {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.up.store(up, Ordering::Relaxed);
        self.changed.notify_waiters(); // in their order: a watch wakes at random, and a simulation is to repeat
    }

    fn knows(&self, channel: u64) -> bool {
        lock(&self.channels).contains(&channel)
    }

    /// What a connection's end is at the server: everything unacknowledged comes again.
    fn end_at_the_server(&self) {
        for channel in std::mem::take(&mut *lock(&self.opened)) {
            self.server.end(channel);
        }
    }
}

impl MemoryBroker {
    /// Connect.
    pub fn connect(server: &Server) -> MemoryBroker {
        let link = Link {
            server: server.clone(),
            up: AtomicBool::new(true),
            ended: AtomicU64::new(0),
            changed: Notify::new(),
            channels: Mutex::default(),
            opened: Mutex::default(),
            closing: CancellationToken::new(),
        };
        let health = watch::Sender::new(Health::Up(Utc::now()));
        MemoryBroker { link: Arc::new(link), health, feeds: TaskTracker::new() }
    }

    /// The server has given the connection up, and this side does not know yet: what it acknowledges goes nowhere.
    pub fn fall_silent(&self) {
        self.link.end_at_the_server();
    }

    /// The connection is gone, and both sides know it.
    pub fn cut(&self) {
        self.link.end_at_the_server();
        lock(&self.link.channels).clear();
        self.link.set(false);
        self.health.send_replace(Health::Down(Utc::now(), "cut".into()));
    }

    /// It can connect again.
    pub fn restore(&self) {
        if !self.link.closing.is_cancelled() {
            self.link.set(true);
            self.health.send_replace(Health::Up(Utc::now()));
        }
    }

    fn is_up(&self) -> bool {
        self.link.up.load(Ordering::Relaxed) && !self.link.closing.is_cancelled()
    }

    /// Receipts by what this side knows of their channel.
    fn settle(&self, receipts: Vec<Receipt>, settled: impl Fn(u64, u64)) -> Acknowledged {
        let mut answer = Acknowledged::default();
        for receipt in receipts {
            if self.link.knows(receipt.channel) {
                answer.sent += 1;
                settled(receipt.channel, receipt.tag);
            } else {
                answer.stale += 1;
            }
        }
        answer
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        queues.iter().for_each(|queue| self.link.server.declare(queue));
        Ok(())
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        if self.link.closing.is_cancelled() {
            return Err(BrokerError::Unavailable("the broker is closed".into()));
        }
        let (sender, deliveries) = mpsc::channel(1);
        let (flow, end) = (watch::Sender::new(Flow::Go), CancellationToken::new());
        let feed = Feed {
            link: self.link.clone(),
            source,
            prefetch: prefetch.into(),
            deliveries: sender,
            confirmed: watch::Sender::new(None),
            flow: flow.subscribe(),
            end: end.clone(),
        };
        let confirmed = feed.confirmed.subscribe();
        self.feeds.spawn(feed.run());
        Ok(Subscription { deliveries, confirmed, flow, end })
    }

    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.settle(receipts, |channel, tag| self.link.server.acknowledge(channel, tag))
    }

    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.settle(receipts, |channel, tag| self.link.server.give_back(channel, tag))
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let one = |publication: Publication| match self.is_up() {
            true => self.link.server.publish(prepared(publication)),
            false => Err(PublishError::Unconfirmed("not connected".into())),
        };
        batch.into_iter().map(one).collect()
    }

    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        match self.link.server.facts(&source) {
            Some(facts) => Ok(facts),
            None => Err(BrokerError::Refused(format!("queue {:?} does not exist", source.queue()))),
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn describe(&self) -> String {
        "a broker in memory".into()
    }

    async fn close(&self) {
        self.link.closing.cancel();
        self.feeds.close();
        self.feeds.wait().await;
        lock(&self.link.channels).clear();
        self.link.end_at_the_server();
        self.health.send_replace(Health::Down(Utc::now(), "closed".into()));
    }
}
