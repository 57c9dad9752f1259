//! RabbitMQ 3.10 to 4.x, over AMQP 0-9-1.
//!
//! Two connections: one consumes, one publishes, so that a broker which blocks publishers (memory or disk alarm) still
//! takes acknowledgements. Each connection mends itself ([`connection`]), each subscription is a task that mends itself
//! on top of it ([`subscription`]), and a keeper sees to it that what was declared stays declared.

mod acks;
mod address;
mod connection;
mod convert;
mod earlier;
mod inspect;
mod keeper;
mod mend;
mod outstanding;
mod publisher;
mod refusal;
mod server;
mod subscription;
mod tls;
mod topology;
mod transport;

#[cfg(test)]
mod tests;

pub use address::AmqpAddress;
pub use inspect::{Connected, Found, Presence};
pub use tls::Trust;

use super::names::check_name;
use super::{
    Acknowledged, Broker, BrokerError, Delivery, Flow, Health, Publication, PublishError, QueueFacts, Receipt, Source,
    Subscription, Target,
};
use acks::{Incarnations, Settle};
use async_trait::async_trait;
use connection::{Link, Live};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use subscription::Feed;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use topology::{CALL, Names};

/// For closing politely: tasks, then connections.
const CLOSE: Duration = Duration::from_secs(5);

/// What an [`AmqpBroker`] is told.
#[derive(Clone, Debug)]
pub struct AmqpOptions {
    /// `broker.url`.
    pub address: AmqpAddress,
    /// `broker.prefix`.
    pub prefix: String,
    /// `broker.declare`: declare what is missing, or only check.
    pub declare: bool,
    /// How operators see this process: `agentry/BUILD/HOST/PID`. At most 100 bytes are used.
    pub name: String,
    /// TLS: see [`AmqpAddress::trust`].
    pub trust: Trust,
    /// AMQP's heartbeat: a peer that is silent for twice as long is taken for dead. The address may say otherwise.
    pub heartbeat_seconds: u16,
}

impl AmqpOptions {
    /// Options with a heartbeat of 10 s, declaring.
    pub fn new(address: AmqpAddress, prefix: impl Into<String>, name: impl Into<String>) -> Self {
        let (prefix, name) = (prefix.into(), name.into());
        AmqpOptions { address, prefix, declare: true, name, trust: Trust::default(), heartbeat_seconds: 10 }
    }
}

/// What the tasks of a broker share.
struct Shared {
    options: Arc<AmqpOptions>,
    names: Names,
    consuming: Link,
    publishing: Link,
    /// The logical queues that are to be there.
    wanted: Mutex<BTreeSet<String>>,
    /// Something that was declared may be gone.
    nudge: Notify,
    incarnations: Incarnations,
    subscriptions: AtomicU64,
    closing: CancellationToken,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A consumer of the queue `name`, and what it feeds.
    fn feed(self: &Arc<Self>, source: Source, name: String, prefetch: u16) -> (Feed, Subscription) {
        let number = self.subscriptions.fetch_add(1, Ordering::Relaxed) + 1;
        let mut tag = format!("{}/{name}", self.options.name);
        tag.truncate(tag.floor_char_boundary(240));
        // Small: what is in there cannot be called back when the subscription is paused.
        let (deliveries, receiver) = mpsc::channel::<Delivery>(subscription::HANDED);
        let (confirmed_tx, confirmed) = watch::channel(None);
        let (flow, flow_rx) = watch::channel(Flow::Go);
        let end = CancellationToken::new();
        let feed = Feed {
            shared: self.clone(),
            source,
            queue: name,
            tag: format!("{tag}#{number}"),
            // Zero is "no limit" to AMQP.
            prefetch: prefetch.max(1),
            deliveries,
            confirmed: confirmed_tx,
            consumes: 0,
            flow: flow_rx,
            end: end.clone(),
        };
        (feed, Subscription { deliveries: receiver, confirmed, flow, end })
    }

    /// Declare a queue (or check it, with `declare=false`) on a channel of its own: a refusal closes the channel.
    async fn declare(&self, live: &Live, queues: &[String]) -> Result<(), BrokerError> {
        let channel = live.channel().await?;
        for queue in queues {
            if self.options.declare {
                topology::declare(&channel, &self.names, queue).await?;
            } else {
                topology::check(&channel, &self.names, queue).await?;
            }
        }
        close_channel(&channel).await;
        Ok(())
    }

    /// Declare again what may have vanished; with `declare=false` there is nothing to do.
    async fn redeclare(&self, live: &Live, queue: &str) -> Result<(), BrokerError> {
        if self.options.declare { self.declare(live, &[queue.to_owned()]).await } else { Ok(()) }
    }
}

/// Politely; a channel that does not close is closed with its connection.
async fn close_channel(channel: &lapin::Channel) {
    if channel.status().connected() {
        let closed = timeout(CALL, channel.close(200, "OK".into())).await;
        tracing::trace!(?closed, "channel closed");
    }
}

/// RabbitMQ.
pub struct AmqpBroker {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<publisher::Job>,
    /// Publisher of replies, on a connection of its own: from the first reply on.
    replies: OnceLock<mpsc::Sender<publisher::Job>>,
    health: watch::Receiver<Health>,
    tasks: TaskTracker,
    links: TaskTracker,
    links_closing: CancellationToken,
}

impl AmqpBroker {
    /// Connect, or say why not. What is unreachable now is [`BrokerError::Unavailable`]; use [`AmqpBroker::start`] to
    /// keep trying.
    pub async fn connect(options: AmqpOptions) -> Result<Self, BrokerError> {
        let broker = Self::start(options)?;
        match broker.first_outcome().await {
            Ok(()) => Ok(broker),
            Err(error) => {
                broker.close().await;
                Err(error)
            }
        }
    }

    /// Answer at once, and keep connecting in the background, for ever, with full-jitter back-off (100 ms to 10 s).
    /// [`AmqpBroker::first_outcome`] tells what cannot mend itself; [`Broker::health`] tells the rest. Must be called
    /// within a tokio runtime. The error: a prefix that no queue can have.
    pub fn start(mut options: AmqpOptions) -> Result<Self, BrokerError> {
        let names = Names::new(&options.prefix)?;
        let cut = options.name.floor_char_boundary(100);
        options.name.truncate(cut);
        let options = Arc::new(options);
        let (tasks, links) = (TaskTracker::new(), TaskTracker::new());
        let links_closing = CancellationToken::new();
        let link = |name: String| Link::start(options.clone(), name, links_closing.clone(), &links);
        let (consuming, publishing) = (link(options.name.clone()), link(format!("{} publishing", options.name)));
        let health = connection_health(&links, &consuming, &publishing);
        let shared = Arc::new(Shared {
            options: options.clone(),
            names,
            consuming,
            publishing,
            wanted: Mutex::default(),
            nudge: Notify::new(),
            incarnations: Incarnations::default(),
            subscriptions: AtomicU64::new(0),
            closing: CancellationToken::new(),
        });
        let (jobs, queue) = mpsc::channel(1024);
        tasks.spawn(publisher::run(shared.clone(), queue, None));
        tasks.spawn(keeper::run(shared.clone()));
        Ok(AmqpBroker { shared, jobs, replies: OnceLock::new(), health, tasks, links, links_closing })
    }

    /// Replies go to queues of others, and one that does not confirm ends the connection.
    fn replies(&self) -> &mpsc::Sender<publisher::Job> {
        self.replies.get_or_init(|| {
            let options = &self.shared.options;
            let name = format!("{} replies", options.name);
            let link = Link::start(options.clone(), name, self.links_closing.clone(), &self.links);
            let (jobs, queue) = mpsc::channel(64);
            self.tasks.spawn(publisher::run(self.shared.clone(), queue, Some(link)));
            jobs
        })
    }

    /// How the first attempts to connect ended, once one has: the first success, and until then the last failure.
    /// [`BrokerError::Refused`] (credentials, virtual host, certificate, not AMQP) does not mend itself; the background goes on trying
    /// all the same, so close the broker to give up.
    pub async fn first_outcome(&self) -> Result<(), BrokerError> {
        let closed = || BrokerError::Unavailable("the broker was closed".into());
        for link in [&self.shared.consuming, &self.shared.publishing] {
            let mut first = link.first.clone();
            match first.wait_for(Option::is_some).await.map_err(|_| closed())?.clone() {
                Some(Ok(())) => {}
                Some(Err((true, text))) => return Err(BrokerError::Refused(text)),
                Some(Err((false, text))) => return Err(BrokerError::Unavailable(text)),
                None => return Err(closed()),
            }
        }
        // Both were up; that the health says so is a matter of microseconds.
        let mut health = self.health.clone();
        let _ = timeout(CALL, health.wait_for(Health::is_up)).await;
        Ok(())
    }
}

impl Drop for AmqpBroker {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.links_closing.cancel();
    }
}

/// Up when both are; the worse reason otherwise.
fn connection_health(links: &TaskTracker, consuming: &Link, publishing: &Link) -> watch::Receiver<Health> {
    let (mut a, mut b) = (consuming.health.clone(), publishing.health.clone());
    let merged = |a: &Health, b: &Health| match (a, b) {
        (Health::Up(a), Health::Up(b)) => Health::Up(*a.max(b)),
        (Health::Down(..), _) => a.clone(),
        (_, Health::Down(..)) => b.clone(),
    };
    let (tx, rx) = watch::channel(merged(&a.borrow(), &b.borrow()));
    links.spawn(async move {
        loop {
            let ended = tokio::select! {
                changed = a.changed() => changed.is_err(),
                changed = b.changed() => changed.is_err(),
            };
            let now = merged(&a.borrow(), &b.borrow());
            tx.send_if_modified(|health| std::mem::replace(health, now.clone()) != now);
            if ended {
                return;
            }
        }
    });
    rx
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        for queue in queues {
            check_name("broker.queues", queue)?;
        }
        let attempt = async {
            // What an attempt was refused for before the first success does not mend itself: it is not waited for.
            if let Ok(Err(refused @ BrokerError::Refused(_))) = timeout(CALL, self.first_outcome()).await {
                return Err(refused);
            }
            let live = self.shared.consuming.live(CALL).await?;
            self.shared.declare(&live, queues).await?;
            tracing::info!("{}", server::limits(live.version()));
            Ok(())
        };
        let declared = attempt.await;
        if !matches!(declared, Err(BrokerError::Refused(_))) {
            self.shared.wanted().extend(queues.iter().cloned());
        }
        declared
    }

    /// Answers once the first attempt to consume has ended. A broker that is away is no error: the subscription consumes
    /// when it is back.
    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        check_name("broker.queues", source.queue())?;
        if self.shared.closing.is_cancelled() {
            return Err(BrokerError::Unavailable("the broker was closed".into()));
        }
        let (queue, name) = (source.queue().clone(), self.shared.names.queue(&source));
        let earlier = matches!(source, Source::Returned(_));
        let (feed, subscription) = self.shared.feed(source, name, prefetch);
        let (first_tx, first) = oneshot::channel();
        let is_up = self.shared.consuming.live.borrow().is_some();
        self.tasks.spawn(feed.run(first_tx));
        if is_up && let Ok(outcome) = first.await {
            outcome?;
        }
        if earlier {
            self.tasks.spawn(earlier::run(self.shared.clone(), self.jobs.clone(), queue));
        }
        Ok(subscription)
    }

    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.shared.incarnations.settle(receipts, Settle::Ack).await
    }

    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        self.shared.incarnations.settle(receipts, Settle::GiveBack).await
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let to_others = !batch.is_empty() && batch.iter().all(|one| matches!(one.target, Target::Queue(_)));
        let jobs = if to_others && !self.shared.closing.is_cancelled() { self.replies() } else { &self.jobs };
        publisher::publish(jobs, batch).await
    }

    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        let live = self.shared.consuming.live(CALL).await?;
        let channel = live.channel().await?;
        let queue = topology::passive(&channel, &self.shared.names.queue(&source)).await?;
        close_channel(&channel).await;
        Ok(QueueFacts { ready: queue.message_count(), consumers: queue.consumer_count() })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn refusal(&self) -> Option<String> {
        let blocked = self.shared.publishing.live.borrow().as_ref().is_some_and(|live| live.is_blocked());
        blocked.then(|| publisher::BLOCKED.into())
    }

    fn describe(&self) -> String {
        let options = &self.shared.options;
        let live = self.shared.consuming.live.borrow();
        let connected = match live.as_ref().map(|l| (l.peer(), l.since, l.version())) {
            Some((Some(peer), since, version)) => {
                let since = since.format("%Y-%m-%dT%H:%M:%SZ");
                format!("connected to {peer} since {since}, version {}", version.unwrap_or("unknown"))
            }
            Some((None, ..)) | None => "not connected".into(),
        };
        format!("RabbitMQ {}, prefix {}, as {}, {connected}", options.address, options.prefix, options.name)
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        self.tasks.close();
        if timeout(CLOSE, self.tasks.wait()).await.is_err() {
            tracing::warn!("not everything about RabbitMQ ended in time; closing the connections all the same");
        }
        self.links_closing.cancel();
        self.links.close();
        if timeout(CLOSE, self.links.wait()).await.is_err() {
            tracing::warn!("the connections to RabbitMQ did not close in time");
        }
    }
}
