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
use std::collections::{BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tokio::sync::Notify;

/// What to do with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settle {
    Ack,
    GiveBack,
}

/// The tags of one channel. RabbitMQ numbers them from 1 without gaps.
#[derive(Debug, Default)]
struct Outstanding {
    tags: BTreeSet<u64>,
    last: u64,
}

/// The frames that settle some tags.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// With `multiple`: this tag and all below it, how many those are.
    upto: Option<(u64, usize)>,
    /// One by one.
    single: Vec<u64>,
    /// Never delivered here, or settled before.
    unknown: usize,
}

impl Outstanding {
    /// Enter a delivery. Answers the tags that were skipped: lapin drops a delivery whose consumer it no longer knows,
    /// and nobody will ever acknowledge that one. It must be given back *before* any `multiple` passes over it.
    fn delivered(&mut self, tag: u64) -> std::ops::Range<u64> {
        let missing = self.last + 1..tag;
        self.last = self.last.max(tag);
        self.tags.insert(tag);
        missing
    }

    /// A contiguous run from the lowest outstanding tag is one frame; what lies beyond a gap goes out at once, alone.
    fn settle(&mut self, mut tags: Vec<u64>) -> Plan {
        tags.sort_unstable();
        tags.dedup();
        let mut plan = Plan::default();
        for tag in tags {
            if !self.tags.contains(&tag) {
                plan.unknown += 1;
            } else if plan.single.is_empty() && self.tags.first() == Some(&tag) {
                self.tags.remove(&tag);
                plan.upto = Some((tag, plan.upto.map_or(1, |(_, n)| n + 1)));
            } else {
                plan.single.push(tag);
            }
        }
        for tag in &plan.single {
            self.tags.remove(tag);
        }
        plan
    }
}

/// One channel that consumes.
pub(super) struct Incarnation {
    pub(super) id: u64,
    pub(super) channel: Channel,
    outstanding: Mutex<Outstanding>,
    drained: Notify,
}

type Frame<'a> = (usize, MaybeDone<BoxFuture<'a, lapin::Result<()>>>);

impl Incarnation {
    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enter a delivery.
    pub(super) async fn delivered(&self, tag: u64) {
        let missing = self.lock().delivered(tag);
        if !missing.is_empty() {
            tracing::warn!(?missing, "deliveries of a cancelled consumer are given back");
            self.send(|_| Plan { single: missing.clone().collect(), ..Plan::default() }, Settle::GiveBack).await;
        }
    }

    /// Settle tags of this channel.
    pub(super) async fn settle(&self, tags: Vec<u64>, how: Settle) -> Acknowledged {
        let done = self.send(|outstanding| outstanding.settle(tags.clone()), how).await;
        if self.is_drained() {
            self.drained.notify_one();
        }
        done
    }

    /// Whether nothing is outstanding.
    pub(super) fn is_drained(&self) -> bool {
        self.lock().tags.is_empty()
    }

    /// Wait for a moment in which nothing is outstanding.
    pub(super) async fn drained(&self) {
        while !self.is_drained() {
            self.drained.notified().await;
        }
    }

    async fn send(&self, plan: impl Fn(&mut Outstanding) -> Plan, how: Settle) -> Acknowledged {
        let mut frames: Vec<Frame<'_>> = Vec::new();
        let mut unknown = 0;
        // lapin queues a frame at the first poll. Planned and queued under one lock, or another caller's `multiple` could
        // overtake a frame that it counts on.
        poll_fn(|cx| {
            let mut outstanding = self.lock();
            let plan = plan(&mut outstanding);
            unknown = plan.unknown;
            if let Some((tag, n)) = plan.upto {
                frames.push((n, maybe_done(self.frame(tag, n > 1, how))));
            }
            frames.extend(plan.single.iter().map(|tag| (1, maybe_done(self.frame(*tag, false, how)))));
            for (_, frame) in &mut frames {
                // Done at once only if the channel is closed; the outcome is taken below.
                let _ = Pin::new(frame).poll(cx);
            }
            Poll::Ready(())
        })
        .await;

        let mut done = Acknowledged { sent: 0, stale: unknown };
        let total: usize = frames.iter().map(|(n, _)| n).sum();
        let written = tokio::time::timeout(CALL, async {
            for (n, frame) in &mut frames {
                Pin::new(&mut *frame).await;
                match Pin::new(frame).take_output() {
                    Some(Ok(())) => done.sent += *n,
                    Some(Err(error)) => tracing::debug!(%error, channel = self.id, ?how, "the channel is gone"),
                    None => {}
                }
            }
        })
        .await;
        if written.is_err() {
            tracing::warn!(channel = self.id, ?how, "RabbitMQ did not take acknowledgements in time");
        }
        done.stale += total - done.sent;
        done
    }

    fn frame(&self, tag: u64, multiple: bool, how: Settle) -> BoxFuture<'_, lapin::Result<()>> {
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
        for receipt in receipts {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(upto: u64) -> Outstanding {
        let mut outstanding = Outstanding::default();
        for tag in 1..=upto {
            assert!(outstanding.delivered(tag).is_empty());
        }
        outstanding
    }

    fn plan(upto: Option<(u64, usize)>, single: &[u64], unknown: usize) -> Plan {
        Plan { upto, single: single.to_vec(), unknown }
    }

    #[test]
    fn a_run_from_the_lowest_goes_out_as_one() {
        let mut outstanding = delivered(6);
        assert_eq!(outstanding.settle(vec![3, 1, 2]), plan(Some((3, 3)), &[], 0));
        assert_eq!(outstanding.settle(vec![4]), plan(Some((4, 1)), &[], 0));
    }

    #[test]
    fn what_lies_beyond_a_gap_goes_out_alone_and_at_once() {
        let mut outstanding = delivered(6);
        assert_eq!(outstanding.settle(vec![2, 3, 6]), plan(None, &[2, 3, 6], 0));
        // 2 and 3 are settled, so the run from 1 is 1, 4.
        assert_eq!(outstanding.settle(vec![1, 4]), plan(Some((4, 2)), &[], 0));
        assert_eq!(outstanding.settle(vec![5]), plan(Some((5, 1)), &[], 0));
        assert!(outstanding.tags.is_empty());
    }

    #[test]
    fn a_multiple_never_passes_over_an_outstanding_tag() {
        // Every subset of six tags in two steps: what is acknowledged is what was asked for, never more.
        for first in 0u32..64 {
            for second in 0u32..64 {
                let mut outstanding = delivered(6);
                let mut unacked: BTreeSet<u64> = (1..=6).collect();
                for mask in [first, second & !first] {
                    let asked: Vec<u64> = (1..=6).filter(|t| mask & (1 << (t - 1)) != 0).collect();
                    let plan = outstanding.settle(asked.clone());
                    let before = unacked.clone();
                    if let Some((upto, n)) = plan.upto {
                        let held = unacked.len();
                        unacked.retain(|t| *t > upto);
                        assert_eq!(held - unacked.len(), n);
                    }
                    for tag in plan.single {
                        assert!(unacked.remove(&tag), "{tag} twice");
                    }
                    let gone: Vec<u64> = before.difference(&unacked).copied().collect();
                    assert_eq!(gone, asked);
                }
            }
        }
    }

    #[test]
    fn a_tag_settled_before_is_unknown() {
        let mut outstanding = delivered(2);
        outstanding.settle(vec![1]);
        assert_eq!(outstanding.settle(vec![1, 2, 2, 9]), plan(Some((2, 1)), &[], 2));
    }

    #[test]
    fn a_skipped_tag_is_noticed() {
        let mut outstanding = delivered(2);
        assert_eq!(outstanding.delivered(5), 3..5);
    }
}
