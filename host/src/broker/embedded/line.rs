//! One queue's line of messages: what is at hand, what comes again, and who waits.

use crate::broker::QueueFacts;
use crate::db::DbError;
use crate::db::queue_table::{Appended, Changes, Content, QueueTable, StoredMessage, StoredQueue};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that are read at once.
const PAGE: u32 = 256;
/// Bytes of messages that are kept at hand after they were appended; beyond, they are read when it is their turn.
const AT_HAND: usize = 8 << 20;

/// One queue.
pub(super) struct Line {
    /// Its key in the table.
    pub(super) key: i64,
    state: Mutex<State>,
    /// One reads from the table at a time.
    reading: tokio::sync::Mutex<()>,
    arrived: Notify,
    ready: AtomicI64,
    consumers: AtomicU32,
}

struct State {
    /// Given back, or handed over before a restart: these come first, oldest first.
    again: BTreeSet<i64>,
    /// Those of them that were read, and are no longer in `again`.
    again_at_hand: VecDeque<StoredMessage>,
    /// Never handed over.
    at_hand: VecDeque<StoredMessage>,
    weight: usize,
    /// Every message up to this id is in one of the above, or was handed over.
    upto: i64,
    /// The last message that is in the table.
    last: i64,
    /// The last message that was handed over.
    handed: i64,
    /// Up to which id the table says that messages were handed over.
    marked: i64,
}

/// Where the next message is.
enum Next {
    Here(StoredMessage, bool),
    Again(Vec<i64>),
    After(i64),
    Nowhere,
}

impl State {
    fn next(&mut self) -> Next {
        let first = self.again_at_hand.front().map(|message| message.id);
        match (self.again.first().copied(), first) {
            (Some(id), Some(read)) if id < read => {
                // An older one came back meanwhile: all are read anew.
                self.again.extend(self.again_at_hand.drain(..).map(|message| message.id));
            }
            (_, Some(_)) => {
                if let Some(message) = self.again_at_hand.pop_front() {
                    return Next::Here(message, true);
                }
            }
            _ => {}
        }
        if !self.again.is_empty() {
            return Next::Again(self.again.iter().copied().take(PAGE as usize).collect());
        }
        if let Some(message) = self.at_hand.pop_front() {
            self.weight -= message.content.weight();
            self.handed = self.handed.max(message.id);
            return Next::Here(message, false);
        }
        if self.upto < self.last { Next::After(self.upto) } else { Next::Nowhere }
    }
}

impl Line {
    /// A queue as the table has it; `again` was handed over before.
    pub(super) fn new(queue: StoredQueue, again: Vec<i64>) -> Self {
        let state = State {
            again: again.into_iter().collect(),
            again_at_hand: VecDeque::new(),
            at_hand: VecDeque::new(),
            weight: 0,
            upto: queue.handed,
            last: queue.last,
            handed: queue.handed,
            marked: queue.handed,
        };
        Line {
            key: queue.id,
            state: Mutex::new(state),
            reading: tokio::sync::Mutex::default(),
            arrived: Notify::new(),
            ready: AtomicI64::new(queue.messages.into()),
            consumers: AtomicU32::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next arrival after it was made (and enabled), not only at one after it is polled.
    pub(super) fn arrival(&self) -> tokio::sync::futures::Notified<'_> {
        self.arrived.notified()
    }

    /// The next message, and whether it was handed over before. Not to be cancelled: it may be reading.
    pub(super) async fn take(&self, table: &QueueTable) -> Result<Option<(StoredMessage, bool)>, DbError> {
        loop {
            match self.state().next() {
                Next::Here(message, again) => {
                    self.ready.fetch_sub(1, Ordering::Relaxed);
                    return Ok(Some((message, again)));
                }
                Next::Nowhere => return Ok(None),
                Next::Again(_) | Next::After(_) => {}
            }
            let _reading = self.reading.lock().await;
            // Another reader may have read it in the meantime.
            let next = self.state().next();
            match next {
                Next::Here(message, again) => {
                    self.ready.fetch_sub(1, Ordering::Relaxed);
                    return Ok(Some((message, again)));
                }
                Next::Nowhere => return Ok(None),
                Next::Again(ids) => self.read_again(table, ids).await?,
                Next::After(id) => self.read_on(table, id).await?,
            }
        }
    }

    async fn read_again(&self, table: &QueueTable, ids: Vec<i64>) -> Result<(), DbError> {
        let messages = table.read(ids.clone()).await?;
        let missing = ids.len() - messages.len();
        let (messages, gone): (Vec<_>, Vec<_>) = messages.into_iter().partition(|m| m.content != Content::Gone);
        self.remove(table, &gone, missing).await?;
        let mut state = self.state();
        for id in &ids {
            state.again.remove(id);
        }
        state.again_at_hand.extend(messages);
        Ok(())
    }

    async fn read_on(&self, table: &QueueTable, after: i64) -> Result<(), DbError> {
        let last = self.state().last;
        let page = table.read_after(self.key, after, PAGE).await?;
        let upto = page.last().map_or(last, |message| message.id);
        if upto > self.state().marked {
            // Before they are handed over, so that a crash does not make them look new.
            let changes = Changes { handed: vec![(self.key, upto)], ..Changes::default() };
            table.write(changes, None).await?;
            let mut state = self.state();
            state.marked = state.marked.max(upto);
        }
        let (messages, gone): (Vec<_>, Vec<_>) = page.into_iter().partition(|m| m.content != Content::Gone);
        self.remove(table, &gone, 0).await?;
        let mut state = self.state();
        state.weight += messages.iter().map(|message| message.content.weight()).sum::<usize>();
        state.at_hand.extend(messages);
        state.upto = state.upto.max(upto);
        Ok(())
    }

    /// Remove messages whose tasks have ended; `missing` are removed already.
    async fn remove(&self, table: &QueueTable, gone: &[StoredMessage], missing: usize) -> Result<(), DbError> {
        if !gone.is_empty() {
            let remove = gone.iter().map(|message| message.id).collect();
            table.write(Changes { remove, ..Changes::default() }, None).await?;
        }
        self.ready.fetch_sub((gone.len() + missing) as i64, Ordering::Relaxed);
        Ok(())
    }

    /// A message that was taken comes again, at once.
    pub(super) fn put_back(&self, id: i64) {
        self.state().again.insert(id);
        self.ready.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_waiters();
    }

    /// Messages were appended, in the order of their ids. Those that come next in line stay at hand, and are not read again.
    pub(super) fn appended(&self, messages: Vec<Appended>) {
        self.ready.fetch_add(messages.len() as i64, Ordering::Relaxed);
        let mut state = self.state();
        for Appended { id, content, .. } in messages {
            let next_in_line = state.upto >= state.last;
            state.last = state.last.max(id);
            state.marked = state.marked.max(id);
            let room = state.weight < AT_HAND && self.consumers.load(Ordering::Relaxed) > 0;
            if next_in_line && room && id > state.upto && content != Content::Stored {
                state.upto = id;
                state.weight += content.weight();
                state.at_hand.push_back(StoredMessage { id, content });
            }
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Up to which id messages were handed over, if the table says otherwise.
    pub(super) fn unmarked(&self) -> Option<(i64, i64)> {
        let state = self.state();
        (state.handed != state.marked).then_some((self.key, state.handed))
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
