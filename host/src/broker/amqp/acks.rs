//! Which delivery tags of which channel are outstanding, and how to acknowledge them in few frames.
//!
//! A delivery tag means something on one channel only. Sent on another it acknowledges a stranger's message, or closes
//! that channel with `PRECONDITION_FAILED`. So every channel that ever consumed has a number of its own, its incarnation,
//! and a receipt of an incarnation that is gone is counted and dropped: the broker delivers the message again.
//!
//! Frames go through [`Channel`], not through lapin's `Acker`: an `Acker` answers `Ok(false)` for what it did not send,
//! and takes one hop more through lapin's task; a channel that is not open answers with an error.

pub(super) use super::outstanding::Settle;
use super::outstanding::{Frame, HELD, Outstanding, Plan};
use super::topology::CALL;
use crate::broker::{Acknowledged, Receipt};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, join_all, maybe_done};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One channel that consumes.
pub(super) struct Incarnation {
    pub(super) id: u64,
    pub(super) channel: Channel,
    outstanding: Mutex<Outstanding>,
    drained: Notify,
    /// Woken when something may be held, and when this is dropped.
    holding: Arc<Notify>,
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.holding.notify_one();
    }
}

/// Send acknowledgements that are held, each when it is due, until the channel is about to be closed.
async fn send_held(incarnation: Weak<Incarnation>, holding: Arc<Notify>) {
    loop {
        let due = match incarnation.upgrade() {
            Some(incarnation) if !incarnation.lock().ended => incarnation.lock().next_due(),
            _ => return,
        };
        let Some(due) = due else {
            holding.notified().await;
            continue;
        };
        tokio::time::sleep_until(due).await;
        if let Some(incarnation) = incarnation.upgrade() {
            let due = |outstanding: &mut Outstanding| outstanding.due(Instant::now(), HELD);
            incarnation.send(|outstanding| Plan { frames: due(outstanding), ..Plan::default() }).await;
        }
    }
}

type Written<'a> = (usize, MaybeDone<BoxFuture<'a, lapin::Result<()>>>);

impl Incarnation {
    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enter a delivery.
    pub(super) async fn delivered(&self, tag: u64) {
        let missing = self.lock().delivered(tag, Instant::now());
        if !missing.is_empty() {
            tracing::warn!(?missing, "deliveries of a cancelled consumer are given back");
            let frame = |tag| Frame { tag, settles: 1, how: Settle::GiveBack };
            self.send(|_| Plan { frames: missing.clone().map(frame).collect(), ..Plan::default() }).await;
        }
    }

    /// Settle tags of this channel. Some acknowledgements may be held for a moment; see [`send_held`].
    pub(super) async fn settle(&self, tags: Vec<u64>, how: Settle) -> Acknowledged {
        self.send(|outstanding| outstanding.settle(tags.clone(), how, Instant::now())).await
    }

    /// Send everything that is held, and hold nothing from now on: the channel is about to be closed.
    pub(super) async fn flush(&self) {
        self.send(|outstanding| {
            outstanding.ended = true;
            Plan { frames: outstanding.due(Instant::now(), Duration::ZERO), ..Plan::default() }
        })
        .await;
    }

    /// Whether nothing is outstanding.
    pub(super) fn is_drained(&self) -> bool {
        let outstanding = self.lock();
        outstanding.tags.is_empty() && outstanding.held.is_empty()
    }

    /// Wait for a moment in which nothing is outstanding.
    pub(super) async fn drained(&self) {
        while !self.is_drained() {
            self.drained.notified().await;
        }
    }

    async fn send(&self, plan: impl Fn(&mut Outstanding) -> Plan) -> Acknowledged {
        let mut frames: Vec<Written<'_>> = Vec::new();
        let (mut known, mut unknown) = (0, 0);
        // lapin queues a frame at the first poll. Planned and queued under one lock, or another caller's `multiple` could
        // overtake a frame that it counts on.
        poll_fn(|cx| {
            let mut outstanding = self.lock();
            let mut plan = plan(&mut outstanding);
            if !outstanding.held.is_empty() && !self.channel.status().connected() {
                // They fail at once, and are counted.
                plan.frames.extend(outstanding.due(Instant::now(), Duration::ZERO));
            }
            (known, unknown) = (plan.known, plan.unknown);
            frames.extend(plan.frames.iter().map(|frame| (frame.settles, maybe_done(self.frame(*frame)))));
            for (_, frame) in &mut frames {
                // Done at once only if the channel is closed; the outcome is taken below.
                let _ = Pin::new(frame).poll(cx);
            }
            Poll::Ready(())
        })
        .await;

        let (total, mut sent) = (frames.iter().map(|(n, _)| n).sum::<usize>(), 0);
        let written = tokio::time::timeout(CALL, async {
            for (n, frame) in &mut frames {
                Pin::new(&mut *frame).await;
                match Pin::new(frame).take_output() {
                    Some(Ok(())) => sent += *n,
                    Some(Err(error)) => tracing::debug!(%error, channel = self.id, "the channel is gone"),
                    None => {}
                }
            }
        })
        .await;
        if written.is_err() {
            tracing::warn!(channel = self.id, "RabbitMQ did not take acknowledgements in time");
        }
        if self.is_drained() {
            self.drained.notify_one();
        } else {
            self.holding.notify_one();
        }
        // What is held counts as sent, and what was held before was counted then.
        let failed = (total - sent).min(known);
        Acknowledged { sent: known - failed, stale: unknown + failed }
    }

    fn frame(&self, Frame { tag, settles, how }: Frame) -> BoxFuture<'_, lapin::Result<()>> {
        let multiple = settles > 1;
        match how {
            Settle::Ack => self.channel.basic_ack(tag, BasicAckOptions { multiple }).boxed(),
            Settle::GiveBack => self.channel.basic_nack(tag, BasicNackOptions { multiple, requeue: true }).boxed(),
        }
    }
}

/// The channels that consume now.
#[derive(Default)]
pub(super) struct Incarnations {
    last: AtomicU64,
    alive: Mutex<HashMap<u64, Arc<Incarnation>>>,
}

impl Incarnations {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Incarnation>>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that begins to consume with this prefetch.
    pub(super) fn begin(&self, channel: Channel, prefetch: u16) -> Arc<Incarnation> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let outstanding = Mutex::new(Outstanding::new(prefetch));
        let (drained, holding) = (Notify::default(), Arc::<Notify>::default());
        let incarnation = Arc::new(Incarnation { id, channel, outstanding, drained, holding: holding.clone() });
        tokio::spawn(send_held(Arc::downgrade(&incarnation), holding));
        self.lock().insert(id, incarnation.clone());
        incarnation
    }

    /// From now on its receipts are stale.
    pub(super) fn end(&self, incarnation: &Incarnation) {
        self.lock().remove(&incarnation.id);
    }

    /// Settle receipts of any channels.
    pub(super) async fn settle(&self, receipts: Vec<Receipt>, how: Settle) -> Acknowledged {
        let mut by_channel: HashMap<u64, Vec<u64>> = HashMap::new();
        // The receipts live until their frames are planned: see `Feed::linger`.
        for receipt in &receipts {
            by_channel.entry(receipt.channel).or_default().push(receipt.tag);
        }
        let mut total = Acknowledged::default();
        let mut found = Vec::new();
        {
            let alive = self.lock();
            for (channel, tags) in by_channel {
                match alive.get(&channel) {
                    Some(incarnation) => found.push((incarnation.clone(), tags)),
                    None => total.stale += tags.len(),
                }
            }
        }
        for done in join_all(found.iter_mut().map(|(i, tags)| i.settle(std::mem::take(tags), how))).await {
            total.sent += done.sent;
            total.stale += done.stale;
        }
        total
    }
}

#[cfg(test)]
impl Incarnations {
    /// A channel that consumes.
    pub(super) fn any_channel(&self) -> Channel {
        self.lock().values().next().expect("something consumes").channel.clone()
    }

    /// Whether a receipt is stale.
    pub(super) fn is_gone(&self, receipt: &Receipt) -> bool {
        !self.lock().contains_key(&receipt.channel)
    }
}
