//! Delivery tags of one channel: which are outstanding, and which frames settle some of them.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What to do with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    Ack,
    GiveBack,
}

/// The longest that an acknowledgement is held for the sake of those before it.
pub const HELD: Duration = Duration::from_millis(50);
/// Acknowledgements wait for a delivery that arrived within this time: its task may end soon. They do not wait for an older
/// one, whose task runs for longer.
const YOUNG: Duration = Duration::from_millis(250);

/// The tags of one channel. RabbitMQ numbers them from 1 without gaps.
#[derive(Debug, Default)]
pub struct Outstanding {
    /// Not settled, and since when they are here.
    pub tags: BTreeMap<u64, Instant>,
    /// To be acknowledged, behind one that is not settled; and since when.
    pub held: BTreeMap<u64, Instant>,
    /// How many may be held. RabbitMQ counts them as not acknowledged, so no large part of the prefetch may be held.
    may_hold: usize,
    /// The channel is about to be closed: nothing is held any more.
    pub ended: bool,
    last: u64,
}

/// A frame that settles some tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub tag: u64,
    /// How many it settles. More than one: this tag and all below it.
    pub settles: usize,
    pub how: Settle,
}

/// What is sent for some tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub frames: Vec<Frame>,
    /// Tags of this channel that were outstanding.
    pub known: usize,
    /// Never delivered here, or settled before.
    pub unknown: usize,
}

impl Outstanding {
    /// Nothing yet, on a channel with this prefetch.
    pub fn new(prefetch: u16) -> Outstanding {
        Outstanding { may_hold: usize::from(prefetch) / 4, ..Outstanding::default() }
    }

    /// When the first of the acknowledgements that are held has been held for long enough.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.values().min().map(|since| *since + HELD)
    }

    /// Enter a delivery. Returns the tags that were skipped: lapin drops a delivery whose consumer it no longer knows, so
    /// that one is never acknowledged. It must be given back *before* any `multiple` passes over it.
    pub fn delivered(&mut self, tag: u64, now: Instant) -> std::ops::Range<u64> {
        let missing = self.last + 1..tag;
        self.last = self.last.max(tag);
        self.tags.insert(tag, now);
        missing
    }

    pub fn settle(&mut self, mut tags: Vec<u64>, how: Settle, now: Instant) -> Plan {
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
    pub fn due(&mut self, now: Instant, most: Duration) -> Vec<Frame> {
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
        let may_wait = is_young && !self.ended && self.held.len() <= self.may_hold;
        self.held.retain(|tag, since| {
            let wait = may_wait && now.saturating_duration_since(*since) < most;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Deliveries 1 to this one, that arrived just now.
    fn delivered(upto: u64) -> (Outstanding, Instant) {
        with_prefetch(64, upto)
    }

    /// The same on a channel with this prefetch.
    fn with_prefetch(prefetch: u16, upto: u64) -> (Outstanding, Instant) {
        let (mut outstanding, now) = (Outstanding::new(prefetch), Instant::now());
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
    fn no_more_than_a_quarter_of_the_prefetch_is_held() {
        let (mut outstanding, now) = with_prefetch(8, 8);
        assert_eq!(ack(&mut outstanding, &[2, 3], now), []);
        assert_eq!(ack(&mut outstanding, &[5], now), [(2, 1), (3, 1), (5, 1)]);
        let (mut smallest, now) = with_prefetch(2, 2);
        assert_eq!(ack(&mut smallest, &[2], now), [(2, 1)]);
    }

    #[test]
    fn nothing_is_held_on_a_channel_that_is_about_to_be_closed() {
        let (mut outstanding, now) = delivered(3);
        assert_eq!(ack(&mut outstanding, &[2], now), []);
        assert_eq!(outstanding.next_due(), Some(now + HELD));
        outstanding.ended = true;
        assert_eq!(ack(&mut outstanding, &[3], now), [(2, 1), (3, 1)]);
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
