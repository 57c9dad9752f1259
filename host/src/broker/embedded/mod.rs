//! The queue without RabbitMQ: one process, the same semantics, in the file of the embedded database.
//!
//! What is durable is in the file ([`QueueTable`]): messages, and up to which one they were handed over. What dies with
//! the process is in memory: who holds what. So after a crash everything unacknowledged comes again, as it must.
//!
//! A task that has a row is appended by the database itself, in the transaction that sends it ([`Arrivals`]), and without
//! the outbox. Its message stays at hand, so that nothing is read back.

mod line;
mod subscription;

#[cfg(test)]
mod tests;

use super::names::{check_name, prepared};
use super::{
    Acknowledged, Broker, BrokerError, Delivery, Flow, Health, Message, Publication, PublishError, QueueFacts, Receipt,
    Source, Subscription, Target,
};
use crate::db::DbError;
use crate::db::queue_table::{Appended, Arrivals, Changes, Content, NewMessage, QueueTable};
use crate::db::sqlite::SqliteDb;
use async_trait::async_trait;
use chrono::Utc;
use line::Line;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use subscription::{Feed, Holding};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

impl From<DbError> for BrokerError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(text) | DbError::TimedOut(text) => BrokerError::Unavailable(text),
            other => BrokerError::Refused(other.to_string()),
        }
    }
}

/// How the table numbers a logical queue's three.
const KINDS: std::ops::Range<i64> = 0..3;

fn source(name: &str, kind: i64) -> Option<Source> {
    match kind {
        0 => Some(Source::Tasks(name.into())),
        1 => Some(Source::Returned(name.into())),
        2 => Some(Source::Dead(name.into())),
        _ => None,
    }
}

struct Shared {
    table: QueueTable,
    lines: RwLock<HashMap<Source, Arc<Line>>>,
    /// Who holds what, by subscription.
    holdings: Mutex<HashMap<u64, Arc<Holding>>>,
    last: AtomicU64,
    health: watch::Sender<Health>,
    closing: CancellationToken,
}

impl Shared {
    fn line(&self, source: &Source) -> Option<Arc<Line>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    fn holdings(&self) -> MutexGuard<'_, HashMap<u64, Arc<Holding>>> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bring the lines in line with the table.
    async fn load(&self) -> Result<(), DbError> {
        for queue in self.table.queues().await? {
            let Some(source) = source(&queue.name, queue.kind) else { continue };
            if self.line(&source).is_none() {
                let again = self.table.ids_upto(queue.id, queue.handed).await?;
                let line = Arc::new(Line::new(queue, again));
                self.lines.write().unwrap_or_else(PoisonError::into_inner).entry(source).or_insert(line);
            }
        }
        Ok(())
    }

    fn line_of(&self, key: i64) -> Option<Arc<Line>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).values().find(|line| line.key == key).cloned()
    }

    /// Write, and wait until it is durable; health follows. The error says why not.
    async fn write(self: &Arc<Self>, changes: Changes) -> Result<(), String> {
        if self.closing.is_cancelled() && !changes.append.is_empty() {
            return Err("the embedded queue was closed".into());
        }
        let arrivals: Arc<dyn Arrivals> = Arc::new(Attached(Arc::downgrade(self)));
        let outcome = self.table.write(changes, Some(arrivals)).await.map_err(|e| e.to_string());
        self.health.send_if_modified(|health| match (&outcome, &health) {
            (Ok(()), Health::Down(..)) => {
                tracing::info!("the embedded queue can be written again");
                *health = Health::Up(Utc::now());
                true
            }
            (Err(reason), Health::Up(_)) => {
                tracing::error!(reason, "the embedded queue cannot be written");
                *health = Health::Down(Utc::now(), reason.clone());
                true
            }
            _ => false,
        });
        outcome
    }

    /// Take receipts out of their holdings. Answers them by line, and how many were stale.
    fn redeem(&self, receipts: Vec<Receipt>) -> (Vec<(Arc<Line>, i64)>, usize) {
        let mut found = Vec::with_capacity(receipts.len());
        let mut stale = 0;
        let mut holdings = self.holdings();
        for receipt in receipts {
            let id = receipt.tag as i64;
            match holdings.get(&receipt.channel) {
                Some(holding) if holding.release(id) => {
                    found.push((holding.line.clone(), id));
                    if holding.is_abandoned() {
                        holdings.remove(&receipt.channel);
                    }
                }
                _ => stale += 1,
            }
        }
        (found, stale)
    }
}

/// The queue as the database knows it. Once the broker is gone, tasks go to the outbox.
struct Attached(Weak<Shared>);

impl Arrivals for Attached {
    fn key(&self, queue: &str) -> Option<i64> {
        let shared = self.0.upgrade().filter(|shared| !shared.closing.is_cancelled())?;
        Some(shared.line(&Source::Tasks(queue.into()))?.key)
    }

    fn appended(&self, messages: Vec<Appended>) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut by_queue: HashMap<i64, Vec<Appended>> = HashMap::new();
        for message in messages {
            by_queue.entry(message.queue).or_default().push(message);
        }
        for (key, messages) in by_queue {
            if let Some(line) = shared.line_of(key) {
                line.appended(messages);
            }
        }
    }
}

/// The embedded queue.
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
    health: watch::Receiver<Health>,
    tasks: TaskTracker,
}

impl EmbeddedBroker {
    /// Open the queue in an embedded database, and take over an earlier version's queue in `folder`, which must exist. The
    /// caller sees to it that no other process has it open.
    pub async fn open(db: &SqliteDb, folder: &Path) -> Result<Self, BrokerError> {
        let table = QueueTable::open(db, folder).await?;
        let (health_tx, health) = watch::channel(Health::Up(Utc::now()));
        let shared = Arc::new(Shared {
            table,
            lines: RwLock::default(),
            holdings: Mutex::default(),
            last: AtomicU64::new(0),
            health: health_tx,
            closing: CancellationToken::new(),
        });
        shared.load().await?;
        shared.table.attach(Arc::new(Attached(Arc::downgrade(&shared))));
        Ok(EmbeddedBroker { shared, health, tasks: TaskTracker::new() })
    }

    fn route(&self, target: &Target) -> Option<Arc<Line>> {
        match target {
            Target::Tasks(q) => self.shared.line(&Source::Tasks(q.as_str().into())),
            Target::Returned(q) => self.shared.line(&Source::Returned(q.as_str().into())),
            Target::Dead(q) => self.shared.line(&Source::Dead(q.as_str().into())),
            // Replies: nobody can have a queue of his own here.
            Target::Queue(_) => None,
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

/// A message's properties and headers in the table.
fn to_row(queue: i64, message: Message) -> NewMessage {
    let properties = message.properties().to_string();
    NewMessage { queue, properties, body: message.body }
}

fn from_row(content: Content) -> Message {
    let (properties, body) = match content {
        Content::Task(task, fence) => return Message::from(&*task).relayed(fence),
        Content::Message { properties, body } => (properties, body),
        Content::Stored | Content::Gone => Default::default(), // never handed over
    };
    let mut all = match serde_json::from_str(&properties) {
        Ok(serde_json::Value::Object(all)) => all,
        // Written by us alone; a message with a body is better than none.
        _ => serde_json::Map::new(),
    };
    let mut text = |name: &str| match all.remove(name) {
        Some(serde_json::Value::String(text)) => Some(text),
        _ => None,
    };
    Message {
        content_type: text("content_type"),
        content_encoding: text("content_encoding"),
        message_id: text("message_id"),
        correlation_id: text("correlation_id"),
        reply_to: text("reply_to"),
        headers: match all.remove("headers") {
            Some(serde_json::Value::Object(headers)) => headers,
            _ => serde_json::Map::new(),
        },
        other: all,
        body,
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn declare(&self, queues: &[String]) -> Result<(), BrokerError> {
        for queue in queues {
            check_name("broker.queues", queue)?;
        }
        let all: Vec<(String, i64)> = queues.iter().flat_map(|q| KINDS.map(|kind| (q.clone(), kind))).collect();
        self.shared.table.declare(&all).await?;
        Ok(self.shared.load().await?)
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription, BrokerError> {
        check_name("broker.queues", source.queue())?;
        if self.shared.closing.is_cancelled() {
            return Err(BrokerError::Unavailable("the broker was closed".into()));
        }
        if self.shared.line(&source).is_none() {
            self.declare(&[source.queue().to_string()]).await?;
        }
        let Some(line) = self.shared.line(&source) else {
            return Err(BrokerError::Refused(format!("the queue {:?} was not declared", source.queue())));
        };
        let id = self.shared.last.fetch_add(1, Ordering::Relaxed) + 1;
        let holding = Arc::new(Holding::new(line));
        self.shared.holdings().insert(id, holding.clone());
        let (deliveries, receiver) = mpsc::channel::<Delivery>(1);
        let (confirmed_tx, confirmed) = watch::channel(None);
        let (flow, flow_rx) = watch::channel(Flow::Go);
        let end = CancellationToken::new();
        let feed = Feed {
            shared: self.shared.clone(),
            id,
            source,
            holding,
            prefetch: usize::from(prefetch.max(1)),
            deliveries,
            confirmed: confirmed_tx,
            flow: flow_rx,
            end: end.clone(),
        };
        feed.confirm();
        self.tasks.spawn(feed.run());
        Ok(Subscription { deliveries: receiver, confirmed, flow, end })
    }

    /// Answers when the removal is durable.
    async fn acknowledge(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let (found, mut stale) = self.shared.redeem(receipts);
        if found.is_empty() {
            return Acknowledged { sent: 0, stale };
        }
        let mut sent = found.len();
        let remove = found.iter().map(|(_, id)| *id).collect();
        let removed = self.shared.write(Changes { remove, ..Changes::default() }).await;
        if removed.is_err() {
            // Said by the writer. They come again after a restart, when the file may be written again.
            (sent, stale) = (0, stale + sent);
        }
        Acknowledged { sent, stale }
    }

    async fn give_back(&self, receipts: Vec<Receipt>) -> Acknowledged {
        let (found, stale) = self.shared.redeem(receipts);
        for (line, id) in &found {
            line.put_back(*id);
        }
        Acknowledged { sent: found.len(), stale }
    }

    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for publication in batch.into_iter().map(prepared) {
            match self.route(&publication.target) {
                Some(line) => {
                    rows.push(to_row(line.key, publication.message));
                    results.push(Ok(()));
                }
                None => results.push(Err(PublishError::Unroutable(match publication.target {
                    Target::Tasks(q) => format!("queue {q:?}, which was not declared"),
                    Target::Returned(q) => format!("returned messages of queue {q:?}, which was not declared"),
                    Target::Dead(q) => format!("dead letters of queue {q:?}, which was not declared"),
                    Target::Queue(name) => format!("the name {name:?}"),
                }))),
            }
        }
        if rows.is_empty() {
            return results;
        }
        if let Err(text) = self.shared.write(Changes { append: rows, ..Changes::default() }).await {
            for result in results.iter_mut().filter(|r| r.is_ok()) {
                *result = Err(PublishError::Unconfirmed(text.clone()));
            }
        }
        results
    }

    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        match self.shared.line(&source) {
            Some(line) => Ok(line.facts()),
            None => {
                Err(BrokerError::Refused(format!("queue {:?} does not exist: it was not declared", source.queue())))
            }
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn describe(&self) -> String {
        format!("embedded queue {} (this process alone; nothing consumes RabbitMQ)", self.shared.table.place())
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let lines: Vec<_> =
            self.shared.lines.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let handed_exactly: Vec<_> = lines.iter().filter_map(|line| line.unmarked()).collect();
        if !handed_exactly.is_empty() {
            // If it fails, some messages look as if they had been handed over: the safe side.
            let _ = self.shared.write(Changes { handed_exactly, ..Changes::default() }).await;
        }
    }
}
