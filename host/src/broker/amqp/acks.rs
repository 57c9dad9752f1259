//! Which delivery tags of which channel are outstanding, and how to acknowledge them in few frames.
//!
//! A delivery tag means something on one channel only. Sent on another it acknowledges a stranger's message, or closes
//! that channel with `PRECONDITION_FAILED`. So every channel that ever consumed has a number of its own, its incarnation,
//! and a receipt of an incarnation that is gone is counted and dropped: the broker delivers the message again.
//!
//! Frames go through [`Channel`], not through lapin's `Acker`: an `Acker` answers `Ok(false)` for what it did not send,
//! and takes one hop more through lapin's task; a channel that is not open answers with an error.

use super::topology::CALL;
use crate::broker::{Acknowledged, Receipt};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, join_all, maybe_done};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What to do with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settle {
    Ack,
    GiveBack,
}

/// The longest that an acknowledgement is held for the sake of those before it.
const HELD: Duration = Duration::from_millis(50);
/// Acknowledgements wait for a delivery that arrived within this time: its task may end soon. They do not wait for an older
/// one, whose task runs for longer.
const YOUNG: Duration = Duration::from_millis(250);

/// The tags of one channel. RabbitMQ numbers them from 1 without gaps.
#[derive(Debug, Default)]
struct Outstanding {
    /// Not settled, and since when they are here.
    tags: BTreeMap<u64, Instant>,
    /// To be acknowledged, behind one that is not settled; and since when.
    held: BTreeMap<u64, Instant>,
    /// A task is waiting to send what is held.
    armed: bool,
    last: u64,
}

/// A frame that settles some tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    tag: u64,
    /// How many it settles. More than one: this tag and all below it.
    settles: usize,
    how: Settle,
}

/// What is sent for some tags.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    frames: Vec<Frame>,
    /// Tags of this channel that were outstanding.
    known: usize,
    /// Never delivered here, or settled before.
    unknown: usize,
}

impl Outstanding {
    /// Enter a delivery. Returns the tags that were skipped: lapin drops a delivery whose consumer it no longer knows, so
    /// that one is never acknowledged. It must be given back *before* any `multiple` passes over it.
    fn delivered(&mut self, tag: u64, now: Instant) -> std::ops::Range<u64> {
        let missing = self.last + 1..tag;
        self.last = self.last.max(tag);
        self.tags.insert(tag, now);
        missing
    }

    fn settle(&mut self, mut tags: Vec<u64>, how: Settle, now: Instant) -> Plan {
        tags.sort_unstable();
        tags.dedup();
        let asked = tags.len();
        tags.retain(|tag| self.tags.contains_key(tag));
        let (known, unknown) = (tags.len(), asked - tags.len());
        let frames = match how {
            Settle::Ack => {
                for tag in tags {
                    self.tags.remove(&tag);
                    self.held.insert(tag, now);
                }
                self.due(now, HELD)
            }
            Settle::GiveBack => {
                // Nothing that is held may lie below a `multiple`.
                let mut frames = self.due(now, Duration::ZERO);
                frames.extend(self.give_back(tags));
                frames
            }
        };
        Plan { frames, known, unknown }
    }

    /// Acknowledgements to be sent now. All that lie below the lowest outstanding tag are one frame. Each of the others costs
    /// the broker as much as that one, so they wait for it if it may come soon.
    fn due(&mut self, now: Instant, most: Duration) -> Vec<Frame> {
        let mut frames = Vec::new();
        let lowest = self.tags.first_key_value().map(|(tag, since)| (*tag, *since));
        let beyond = match lowest {
            Some((tag, _)) => self.held.split_off(&tag),
            None => BTreeMap::new(),
        };
        let below = std::mem::replace(&mut self.held, beyond);
        if let Some((tag, _)) = below.last_key_value() {
            frames.push(Frame { tag: *tag, settles: below.len(), how: Settle::Ack });
        }
        let is_young = lowest.is_some_and(|(_, since)| now.saturating_duration_since(since) < YOUNG);
        self.held.retain(|tag, since| {
            let wait = is_young && now.saturating_duration_since(*since) < most;
            if !wait {
                frames.push(Frame { tag: *tag, settles: 1, how: Settle::Ack });
            }
            wait
        });
        frames
    }

    /// A contiguous run from the lowest outstanding tag is one frame; what lies beyond a gap goes out alone.
    fn give_back(&mut self, tags: Vec<u64>) -> Vec<Frame> {
        let mut run: Option<Frame> = None;
        let mut single = Vec::new();
        for tag in tags {
            let is_lowest = self.tags.first_key_value().is_some_and(|(lowest, _)| *lowest == tag);
            self.tags.remove(&tag);
            if is_lowest && single.is_empty() {
                let settles = run.map_or(1, |run| run.settles + 1);
                run = Some(Frame { tag, settles, how: Settle::GiveBack });
            } else {
                single.push(Frame { tag, settles: 1, how: Settle::GiveBack });
            }
        }
        run.into_iter().chain(single).collect()
    }
}

/// One channel that consumes.
pub(super) struct Incarnation {
    pub(super) id: u64,
    pub(super) channel: Channel,
    outstanding: Mutex<Outstanding>,
    drained: Notify,
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

    /// Settle tags of this channel. Some acknowledgements may be held for a moment; see [`Incarnation::send_held`].
    pub(super) async fn settle(&self, tags: Vec<u64>, how: Settle) -> Acknowledged {
        self.send(|outstanding| outstanding.settle(tags.clone(), how, Instant::now())).await
    }

    /// Send acknowledgements that are held, each when it is due, until none is left.
    async fn send_held(&self) {
        loop {
            tokio::time::sleep(HELD).await;
            self.send(|outstanding| Plan { frames: outstanding.due(Instant::now(), HELD), ..Plan::default() }).await;
            let mut outstanding = self.lock();
            if outstanding.held.is_empty() {
                outstanding.armed = false;
                return;
            }
        }
    }

    /// Send everything that is held: the channel is about to be closed.
    pub(super) async fn flush(&self) {
        self.send(|outstanding| Plan { frames: outstanding.due(Instant::now(), Duration::ZERO), ..Plan::default() })
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

    pub(super) fn begin(&self, channel: Channel) -> Arc<Incarnation> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let incarnation =
            Arc::new(Incarnation { id, channel, outstanding: Mutex::default(), drained: Notify::default() });
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
        for (incarnation, _) in found {
            let mut outstanding = incarnation.lock();
            if !outstanding.held.is_empty() && !std::mem::replace(&mut outstanding.armed, true) {
                drop(outstanding);
                tokio::spawn(async move { incarnation.send_held().await });
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Deliveries 1 to this one, that arrived just now.
    fn delivered(upto: u64) -> (Outstanding, Instant) {
        let (mut outstanding, now) = (Outstanding::default(), Instant::now());
        for tag in 1..=upto {
            assert!(outstanding.delivered(tag, now).is_empty());
        }
        (outstanding, now)
    }

    /// Tag and number of each frame.
    fn frames(frames: &[Frame], how: Settle) -> Vec<(u64, usize)> {
        assert!(frames.iter().all(|frame| frame.how == how), "{frames:?}");
        frames.iter().map(|frame| (frame.tag, frame.settles)).collect()
    }

    fn ack(outstanding: &mut Outstanding, tags: &[u64], now: Instant) -> Vec<(u64, usize)> {
        frames(&outstanding.settle(tags.to_vec(), Settle::Ack, now).frames, Settle::Ack)
    }

    #[test]
    fn acknowledgements_below_the_lowest_outstanding_tag_are_one_frame() {
        let (mut outstanding, now) = delivered(6);
        assert_eq!(ack(&mut outstanding, &[3, 1, 2], now), [(3, 3)]);
        assert_eq!(ack(&mut outstanding, &[4], now), [(4, 1)]);
        assert_eq!(ack(&mut outstanding, &[6], now), []);
        assert_eq!(ack(&mut outstanding, &[5], now), [(6, 2)], "with the one that was held for it");
        assert!(outstanding.tags.is_empty() && outstanding.held.is_empty());
    }

    #[test]
    fn acknowledgements_behind_a_young_delivery_are_held_for_a_moment() {
        let (mut outstanding, now) = delivered(6);
        assert_eq!(ack(&mut outstanding, &[2, 3, 6], now), []);
        assert_eq!(frames(&outstanding.due(now + HELD / 2, HELD), Settle::Ack), []);
        assert_eq!(frames(&outstanding.due(now + HELD, HELD), Settle::Ack), [(2, 1), (3, 1), (6, 1)]);
        assert_eq!(ack(&mut outstanding, &[1, 4], now), [(4, 2)]);
    }

    #[test]
    fn acknowledgements_behind_a_long_run_go_out_at_once() {
        let (mut outstanding, now) = delivered(3);
        assert_eq!(ack(&mut outstanding, &[2, 3], now + YOUNG), [(2, 1), (3, 1)]);
    }

    #[test]
    fn what_is_held_goes_out_before_anything_is_given_back() {
        let (mut outstanding, now) = delivered(4);
        assert_eq!(ack(&mut outstanding, &[2], now), []);
        let plan = outstanding.settle(vec![1, 3], Settle::GiveBack, now);
        let all: Vec<_> = plan.frames.iter().map(|f| (f.tag, f.settles, f.how)).collect();
        assert_eq!(all, [(2, 1, Settle::Ack), (3, 2, Settle::GiveBack)]);
    }

    #[test]
    fn a_multiple_never_passes_over_an_outstanding_tag() {
        // Every subset of six tags, acknowledged or given back in two steps, with and without what is held being sent between:
        // what is settled is what was asked for, never more, and as it was asked for.
        for (first, second) in (0u32..64).flat_map(|first| (0u32..64).map(move |second| (first, second))) {
            for hows in [[Settle::Ack, Settle::Ack], [Settle::Ack, Settle::GiveBack], [Settle::GiveBack, Settle::Ack]] {
                for flushed in [false, true] {
                    let (mut outstanding, now) = delivered(6);
                    let mut settled = BTreeMap::new();
                    let mut wanted = BTreeMap::new();
                    for (mask, how) in [first, second & !first].into_iter().zip(hows) {
                        let asked: Vec<u64> = (1..=6).filter(|tag| mask & (1 << (tag - 1)) != 0).collect();
                        wanted.extend(asked.iter().map(|tag| (*tag, how)));
                        let mut frames = outstanding.settle(asked, how, now).frames;
                        if flushed {
                            frames.extend(outstanding.due(now, Duration::ZERO));
                        }
                        apply(&frames, &mut settled);
                    }
                    apply(&outstanding.due(now, Duration::ZERO), &mut settled);
                    assert_eq!(settled, wanted, "{first:b} {second:b} {hows:?} {flushed}");
                }
            }
        }
    }

    /// What RabbitMQ does with frames.
    fn apply(frames: &[Frame], settled: &mut BTreeMap<u64, Settle>) {
        for frame in frames {
            let range = if frame.settles > 1 { 1..=frame.tag } else { frame.tag..=frame.tag };
            let before = settled.len();
            for tag in range {
                settled.entry(tag).or_insert(frame.how);
            }
            assert_eq!(settled.len() - before, frame.settles, "{frame:?}");
        }
    }

    #[test]
    fn a_tag_settled_before_is_unknown() {
        let (mut outstanding, now) = delivered(2);
        outstanding.settle(vec![1], Settle::Ack, now);
        let plan = outstanding.settle(vec![1, 2, 2, 9], Settle::Ack, now);
        assert_eq!((plan.known, plan.unknown), (1, 2));
    }

    #[test]
    fn a_skipped_tag_is_noticed() {
        let (mut outstanding, now) = delivered(2);
        assert_eq!(outstanding.delivered(5, now), 3..5);
    }
}
