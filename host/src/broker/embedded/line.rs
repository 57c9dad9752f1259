//! One queue's line of messages: what is read ahead, what comes again, who waits.

use crate::broker::QueueFacts;
use crate::db::DbError;
use crate::db::queue_table::{QueueTable, StoredMessage, StoredQueue};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that are read ahead of their consumers.
const AHEAD: u32 = 64;

/// One queue.
pub(super) struct Line {
    /// Its key in the table.
    pub(super) key: i64,
    ahead: tokio::sync::Mutex<Ahead>,
    /// Given back, or handed over before a restart: these come first, oldest first.
    again: Mutex<BTreeSet<i64>>,
    arrived: Notify,
    ready: AtomicI64,
    consumers: AtomicU32,
}

#[derive(Default)]
struct Ahead {
    messages: VecDeque<StoredMessage>,
    /// The last id that was read.
    upto: i64,
}

impl Line {
    /// A queue as the table has it; `again` was handed over before.
    pub(super) fn new(queue: StoredQueue, again: Vec<i64>) -> Self {
        Line {
            key: queue.id,
            ahead: tokio::sync::Mutex::new(Ahead { messages: VecDeque::new(), upto: queue.handed }),
            again: Mutex::new(again.into_iter().collect()),
            arrived: Notify::new(),
            ready: AtomicI64::new(queue.messages.into()),
            consumers: AtomicU32::new(0),
        }
    }

    fn again(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next arrival after it was made (and enabled), not only at one after it is polled.
    pub(super) fn arrival(&self) -> tokio::sync::futures::Notified<'_> {
        self.arrived.notified()
    }

    /// The next message, and whether it was handed over before. Not to be cancelled: it may be reading.
    pub(super) async fn take(&self, table: &QueueTable) -> Result<Option<(StoredMessage, bool)>, DbError> {
        loop {
            let first = self.again().pop_first();
            let Some(id) = first else { break };
            match table.read(id).await {
                Ok(Some(message)) => {
                    self.ready.fetch_sub(1, Ordering::Relaxed);
                    return Ok(Some((message, true)));
                }
                Ok(None) => {}
                Err(error) => {
                    self.again().insert(id);
                    return Err(error);
                }
            }
        }
        let mut ahead = self.ahead.lock().await;
        if ahead.messages.is_empty() {
            let page = table.read_after(self.key, ahead.upto, AHEAD).await?;
            if let Some(last) = page.last() {
                ahead.upto = last.id;
            }
            ahead.messages = page.into();
        }
        let next = ahead.messages.pop_front();
        if next.is_some() {
            self.ready.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(next.map(|message| (message, false)))
    }

    /// A message that was taken comes again, at once.
    pub(super) fn put_back(&self, id: i64) {
        self.again().insert(id);
        self.ready.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_waiters();
    }

    /// Messages were appended.
    fn arrived(&self, n: i64) {
        self.ready.fetch_add(n, Ordering::Relaxed);
        self.arrived.notify_waiters();
    }

    pub(super) fn consumer_came(&self) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn consumer_left(&self) {
        self.consumers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn facts(&self) -> QueueFacts {
        QueueFacts {
            ready: u32::try_from(self.ready.load(Ordering::Relaxed)).unwrap_or(0),
            consumers: self.consumers.load(Ordering::Relaxed),
        }
    }
}

/// Appended messages, counted by line.
#[derive(Default)]
pub(super) struct Shelf(Vec<(Arc<Line>, i64)>);

impl Shelf {
    pub(super) fn add(&mut self, line: Arc<Line>) {
        match self.0.iter_mut().find(|(known, _)| known.key == line.key) {
            Some((_, n)) => *n += 1,
            None => self.0.push((line, 1)),
        }
    }

    /// They are in the table.
    pub(super) fn arrived(self) {
        for (line, n) in self.0 {
            line.arrived(n);
        }
    }
}
