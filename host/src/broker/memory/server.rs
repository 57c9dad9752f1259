//! What the broker itself knows: queues, channels, who holds what.

use super::lock;
use crate::broker::{Message, Publication, PublishError, QueueFacts, Source, Target};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A message in a queue.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What it is.
    pub message: Message,
    /// It was handed over before.
    pub redelivered: bool,
    /// How often it came back.
    pub returns: u32,
}

/// Which of so many ready messages is handed over next.
type Choice = Arc<dyn Fn(usize) -> usize + Send + Sync>;

/// The server. A clone is the same one.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    choice: Choice,
    limit: u32,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Line>,
    channels: BTreeMap<u64, Channel>,
    unbound: BTreeSet<String>,
    last: u64,
}

#[derive(Default)]
struct Line {
    /// By their place, which a message keeps when it comes back.
    ready: BTreeMap<u64, Stored>,
    consumers: u32,
}

struct Channel {
    queue: String,
    held: BTreeMap<u64, Stored>,
}

fn key(source: &Source) -> String {
    match source {
        Source::Tasks(queue) => queue.to_string(),
        Source::Returned(queue) => format!("{queue}.returned"),
        Source::Dead(queue) => format!("{queue}.dead"),
    }
}

impl Server {
    /// One without queues; `limit`: how often a message may come back before it goes to `.returned`.
    pub fn new(limit: u32, choice: Choice) -> Server {
        Server { state: Arc::default(), news: Arc::default(), choice, limit }
    }

    /// Wakes whoever waits, in their order, whenever a message may have become ready.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    fn tell(&self) {
        self.news.notify_waiters();
    }

    /// Make a logical queue's three.
    pub fn declare(&self, queue: &str) {
        let mut state = lock(&self.state);
        let queue: Arc<str> = queue.into();
        for source in [Source::Tasks(queue.clone()), Source::Returned(queue.clone()), Source::Dead(queue)] {
            state.queues.entry(key(&source)).or_default();
        }
    }

    /// Take a message in.
    pub fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        let name = match publication.target {
            Target::Tasks(queue) => queue,
            Target::Returned(queue) => format!("{queue}.returned"),
            Target::Dead(queue) => format!("{queue}.dead"),
            Target::Queue(name) => name,
        };
        let stored = Stored { message: publication.message, redelivered: false, returns: 0 };
        let mut state = lock(&self.state);
        state.last += 1;
        let place = state.last;
        let bound = !state.unbound.contains(&name);
        match state.queues.get_mut(&name).filter(|_| bound) {
            Some(line) => line.ready.insert(place, stored),
            None => return Err(PublishError::Unroutable(format!("{name:?}"))),
        };
        drop(state);
        self.tell();
        Ok(())
    }

    /// A channel for one consumer; `None`: there is no such queue.
    pub fn open(&self, source: &Source) -> Option<u64> {
        let mut state = lock(&self.state);
        let queue = key(source);
        state.queues.contains_key(&queue).then(|| {
            state.last += 1;
            let id = state.last;
            state.channels.insert(id, Channel { queue, held: BTreeMap::new() });
            id
        })
    }

    /// Its consumer comes or goes.
    pub fn consumes(&self, source: &Source, comes: bool) {
        if let Some(line) = lock(&self.state).queues.get_mut(&key(source)) {
            line.consumers = if comes { line.consumers + 1 } else { line.consumers.saturating_sub(1) };
        }
    }

    /// The next message for a channel that holds fewer than so many.
    pub fn take(&self, channel: u64, prefetch: usize) -> Option<(u64, Stored)> {
        let mut state = lock(&self.state);
        let State { queues, channels, .. } = &mut *state;
        let channel = channels.get_mut(&channel).filter(|channel| channel.held.len() < prefetch)?;
        let line = queues.get_mut(&channel.queue)?;
        let which = if line.ready.is_empty() { 0 } else { (self.choice)(line.ready.len()) };
        let place = *line.ready.keys().nth(which)?;
        let stored = line.ready.remove(&place)?;
        channel.held.insert(place, stored.clone());
        Some((place, stored))
    }

    /// How many a channel holds; `None`: it is gone.
    pub fn holds(&self, channel: u64) -> Option<usize> {
        lock(&self.state).channels.get(&channel).map(|channel| channel.held.len())
    }

    /// Gone for good, if the channel still lives.
    pub fn acknowledge(&self, channel: u64, tag: u64) {
        if let Some(channel) = lock(&self.state).channels.get_mut(&channel) {
            channel.held.remove(&tag);
        }
        self.tell(); // there is room
    }

    /// Ready again, if the channel still lives.
    pub fn give_back(&self, channel: u64, tag: u64) {
        let mut state = lock(&self.state);
        if let Some(channel) = state.channels.get_mut(&channel)
            && let Some(stored) = channel.held.remove(&tag)
        {
            let queue = channel.queue.clone();
            state.requeue(&queue, tag, stored, self.limit);
        }
        drop(state);
        self.tell();
    }

    /// A channel ends: what it holds is ready again.
    pub fn end(&self, channel: u64) {
        let mut state = lock(&self.state);
        if let Some(channel) = state.channels.remove(&channel) {
            for (place, stored) in channel.held {
                state.requeue(&channel.queue, place, stored, self.limit);
            }
        }
        drop(state);
        self.tell();
    }

    /// What it counts.
    pub fn facts(&self, source: &Source) -> Option<QueueFacts> {
        let state = lock(&self.state);
        let line = state.queues.get(&key(source))?;
        Some(QueueFacts { ready: u32::try_from(line.ready.len()).unwrap_or(u32::MAX), consumers: line.consumers })
    }

    /// Everything in a queue: ready, and with somebody.
    pub fn contents(&self, source: &Source) -> (Vec<Stored>, Vec<Stored>) {
        let state = lock(&self.state);
        let queue = key(source);
        let ready = state.queues.get(&queue).into_iter().flat_map(|line| line.ready.values().cloned()).collect();
        let channels = state.channels.values().filter(|channel| channel.queue == queue);
        (ready, channels.flat_map(|channel| channel.held.values().cloned()).collect())
    }

    /// A message that nobody has taken is thrown out, to those that the broker gives up on; which.
    pub fn throw_out(&self, queue: &str, reason: &str) -> Option<String> {
        let mut state = lock(&self.state);
        let (place, stored) = state.queues.get_mut(queue)?.ready.pop_first()?;
        let id = stored.message.message_id.clone();
        state.give_up(queue, place, stored.message, reason);
        drop(state);
        self.tell();
        id
    }

    /// The exchange knows the way to a queue, or does not.
    pub fn bind(&self, queue: &str, bound: bool) {
        let mut state = lock(&self.state);
        if bound {
            state.unbound.remove(queue)
        } else {
            state.unbound.insert(queue.to_owned())
        };
    }
}

impl State {
    /// Back to its place, or, once too often, to those that the broker gives up on (RabbitMQ, "Quorum Queues": poison message
    /// handling).
    fn requeue(&mut self, queue: &str, place: u64, mut stored: Stored, limit: u32) {
        stored.redelivered = true;
        stored.returns += 1;
        if stored.returns > limit && !queue.contains('.') {
            self.give_up(queue, place, stored.message, "delivery_limit");
        } else if let Some(line) = self.queues.get_mut(queue) {
            line.ready.insert(place, stored);
        }
    }

    fn give_up(&mut self, queue: &str, place: u64, mut message: Message, reason: &str) {
        message.headers.insert("x-death".into(), json!([{"reason": reason, "queue": queue, "count": 1}]));
        if let Some(line) = self.queues.get_mut(&format!("{queue}.returned")) {
            line.ready.insert(place, Stored { message, redelivered: false, returns: 0 });
        }
    }
}
