//! How many deliveries this host has in hand.
//!
//! What is in hand and has not begun could begin on another host, so there should be little of it; yet a host that takes as
//! many as it can run waits a round trip to broker and database for every one of them. So each queue has a small subscription
//! that is always there: it holds no more than can run at once. Beside it there is a
//! [`reserve`](super::reserve) while no delivery waits for long, and further ones of [`WindowConfig::step`] deliveries each:
//!
//! - as many as it takes to hold what runs: a delivery stays unacknowledged until its task has ended;
//! - and up to [`WindowConfig::ahead`] more while deliveries begin at once: as many as begin in [`REACH`]. They go as soon as
//!   one has to wait, and what has not begun by then goes back to the broker. Since each return counts against a quorum queue's
//!   delivery limit, the next time comes after a pause that doubles.
//!
//! No queue gets more than twice its slots, and none reaches ahead while messages are so large that [`AHEAD_BYTES`] would not
//! hold what is ahead: an AMQP client's buffer has no bound of its own.

use super::dead::Burial;
use super::reserve::Reserve;
use super::unclaimed::Ways;
use super::{Shared, receive};
use crate::broker::{BrokerError, Source};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// How often the window is looked at while something begins.
const PERIOD: Duration = Duration::from_millis(100);
/// What is ahead begins within this time, in tenths of a second.
const REACH: u64 = 2;
/// Periods after a narrowing before the window is widened again: at first, and at most.
const PAUSES: std::ops::RangeInclusive<u32> = 20..=600;
/// The longest wait of a delivery that counts as having begun at once.
const PATIENCE: Duration = Duration::from_millis(250);
/// The most bytes of messages that one queue holds ahead, if all are as large as the largest of a period.
const AHEAD_BYTES: u64 = 64 << 20;
/// Periods without a beginning after which further subscriptions go.
const IDLE: u32 = 20;

/// How large the window may be.
#[derive(Clone, Copy, Debug)]
pub struct WindowConfig {
    /// Deliveries of the subscription that is always there, and of its reserve: twice as many as compute at once.
    pub least: u16,
    /// Deliveries of each further one.
    pub step: u16,
    /// Further subscriptions while deliveries begin at once, at most.
    pub ahead: u16,
}

impl WindowConfig {
    /// For a host on which so many guests compute at once.
    pub fn of(computing: u32) -> WindowConfig {
        let least = u16::try_from(computing.saturating_mul(2)).unwrap_or(u16::MAX).clamp(2, 1_024);
        WindowConfig { least, step: 256, ahead: 4 }
    }
}

/// What has begun lately, on all queues.
#[derive(Default)]
pub struct Window {
    begun: AtomicU32,
    /// The longest wait, in microseconds.
    waited: AtomicU64,
    /// The largest message, in bytes.
    bytes: AtomicU64,
    stirred: Notify,
    /// Deliveries that may be in hand, of all queues.
    size: AtomicU32,
    queues: HashMap<String, OfQueue>,
}

/// What is counted of one queue.
#[derive(Default)]
struct OfQueue {
    /// Deliveries that wait for long.
    delayed: Arc<AtomicU32>,
    /// Deliveries that arrived since the start.
    arrived: AtomicU64,
}

/// A delivery that waits for long. Dropped: it does not wait any more.
pub struct Delayed(Arc<AtomicU32>);

impl Drop for Delayed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Window {
    /// The window of a host that consumes these queues.
    pub fn of(queues: &[String]) -> Window {
        Window { queues: queues.iter().map(|queue| (queue.clone(), OfQueue::default())).collect(), ..Window::default() }
    }

    /// A delivery of this queue has waited for long, and still does.
    pub fn delayed(&self, queue: &str) -> Option<Delayed> {
        let count = &self.queues.get(queue)?.delayed;
        count.fetch_add(1, Ordering::Relaxed);
        self.stirred.notify_one();
        Some(Delayed(count.clone()))
    }

    /// Deliveries that may be in hand, of all queues.
    pub fn size(&self) -> u32 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether a delivery of this queue has waited for long, and still does.
    pub fn is_delayed(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|of| of.delayed.load(Ordering::Relaxed) > 0)
    }

    /// A delivery of this queue has arrived.
    pub fn arrived(&self, queue: &str) {
        if let Some(of) = self.queues.get(queue) {
            of.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Deliveries of this queue that arrived since the start.
    pub fn arrivals(&self, queue: &str) -> u64 {
        self.queues.get(queue).map_or(0, |of| of.arrived.load(Ordering::Relaxed))
    }

    /// A delivery of so many bytes that waited so long has begun.
    pub fn begun(&self, waited: Duration, bytes: usize) {
        self.bytes.fetch_max(bytes as u64, Ordering::Relaxed);
        self.waited.fetch_max(waited.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.stirred.notify_one();
        }
    }

    /// Beginnings since the last look, and the longest wait and the largest message among them.
    fn look(&self) -> Lately {
        Lately {
            begun: self.begun.swap(0, Ordering::Relaxed),
            waited: Duration::from_micros(self.waited.swap(0, Ordering::Relaxed)),
            bytes: self.bytes.swap(0, Ordering::Relaxed),
        }
    }
}

/// What began in one period.
#[derive(Clone, Copy, Debug)]
struct Lately {
    begun: u32,
    waited: Duration,
    bytes: u64,
}

/// Whether deliveries begin at once, judged period by period.
#[derive(Debug)]
struct Pace {
    /// Further subscriptions that reach ahead.
    ahead: u32,
    idle: u32,
    /// Periods until the window may be widened again, and how many there will be the next time.
    pause: u32,
    next_pause: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { ahead: 0, idle: 0, pause: 0, next_pause: *PAUSES.start() }
    }
}

impl Pace {
    fn next(&mut self, lately: Lately, config: &WindowConfig) {
        self.idle = if lately.begun == 0 { self.idle + 1 } else { 0 };
        self.pause = self.pause.saturating_sub(1);
        let step = u64::from(config.step.max(1));
        let within_reach = u64::from(lately.begun) * REACH / step;
        let within_memory = AHEAD_BYTES / lately.bytes.max(1) / step;
        let most = within_memory.min(u64::from(config.ahead)).try_into().unwrap_or(u32::MAX);
        let narrow = self.ahead > 0 && lately.waited > PATIENCE;
        if narrow || self.idle >= IDLE {
            self.ahead = 0;
        } else if self.pause == 0 && lately.waited <= PATIENCE {
            // More at once, fewer only when there is a reason.
            self.ahead = self.ahead.max(within_reach.try_into().unwrap_or(u32::MAX));
        }
        self.ahead = self.ahead.min(most);
        if narrow {
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 2).min(*PAUSES.end());
        } else if self.idle >= IDLE {
            self.next_pause = *PAUSES.start();
        }
    }

    /// Nothing is expected to happen: no look is due before something begins.
    fn is_quiet(&self) -> bool {
        self.idle >= IDLE
    }
}

/// Further subscriptions that a queue is to have.
fn further(config: &WindowConfig, slots: u32, busy: u32, ahead: u32) -> usize {
    let (least, step) = (u32::from(config.least), u32::from(config.step.max(1)));
    let most = slots.saturating_mul(2).saturating_sub(least) / step;
    let running = (busy.saturating_mul(2).min(busy.saturating_add(least / 2))).saturating_sub(least).div_ceil(step);
    (running + ahead).min(most) as usize
}

/// Keep the further subscriptions of all queues until the worker closes.
pub async fn run(shared: Arc<Shared>, ways: Ways, dead: mpsc::Sender<Burial>) {
    let mut pace = Pace::default();
    let mut queues: Vec<Queue> = shared.config.queues.iter().map(|name| Queue::of(name)).collect();
    loop {
        let room = shared.room.can_begin();
        let mut size = 0;
        for queue in &mut queues {
            let (least, step) = (shared.config.reserve(&queue.name), shared.config.window.step);
            let here = usize::from(queue.reserve.next(shared.window.is_delayed(&queue.name), room));
            let slots = shared.config.slots_of(&queue.name);
            let wanted = further(&shared.config.window, slots, shared.room.busy(), pace.ahead);
            let Queue { name, held, further, .. } = queue;
            // A new one would fetch messages that no task may begin with, and each that goes back counts against its delivery limit.
            let stopped = shared.stopped(name).is_some();
            for (subscriptions, wanted, prefetch) in [(held, here, least), (further, wanted, step)] {
                while subscriptions.len() > wanted {
                    subscriptions.pop().into_iter().for_each(|end| end.cancel());
                }
                while subscriptions.len() < wanted && !stopped {
                    let end = shared.closing.child_token();
                    if let Err(error) = subscribe(&shared, name, prefetch, &ways, &dead, &end).await {
                        tracing::debug!(%error, queue = %name, "no further subscription");
                        break;
                    }
                    subscriptions.push(end);
                }
                size += subscriptions.len() as u32 * u32::from(prefetch);
            }
            size += u32::from(shared.config.prefetch(name));
        }
        shared.window.size.store(size, Ordering::Relaxed);
        let quiet = pace.is_quiet() && queues.iter().all(Queue::is_quiet);
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.window.stirred.notified(), if quiet => {}
            () = tokio::time::sleep(PERIOD), if !quiet => {}
        }
        pace.next(shared.window.look(), &shared.config.window);
    }
}

/// Subscriptions of a queue beside the one that is always there.
struct Queue {
    name: Arc<str>,
    reserve: Reserve,
    /// That of the reserve, while it is there.
    held: Vec<CancellationToken>,
    further: Vec<CancellationToken>,
}

impl Queue {
    fn of(name: &str) -> Queue {
        Queue { name: name.into(), reserve: Reserve::default(), held: Vec::new(), further: Vec::new() }
    }

    fn is_quiet(&self) -> bool {
        self.reserve.is_quiet() && self.held.len() == 1 && self.further.is_empty()
    }
}

async fn subscribe(
    shared: &Arc<Shared>,
    queue: &Arc<str>,
    prefetch: u16,
    ways: &Ways,
    dead: &mpsc::Sender<Burial>,
    end: &CancellationToken,
) -> Result<(), BrokerError> {
    let subscription = shared.parts.broker.subscribe(Source::Tasks(queue.clone()), prefetch).await?;
    shared.flows.add(shared, queue, subscription.flow.clone());
    let receive = receive::tasks(shared.clone(), subscription, ways.clone(), dead.clone(), end.clone());
    shared.receivers.spawn(receive);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: WindowConfig = WindowConfig { least: 64, step: 256, ahead: 4 };

    #[test]
    fn further_subscriptions_hold_what_runs_and_reach_ahead() {
        for (slots, busy, ahead, expected) in [
            (10_000, 0, 0, 0),
            (10_000, 32, 0, 0),
            (10_000, 100, 0, 1),
            (10_000, 32, 4, 4),
            (10_000, 1_000, 0, 4),
            (10_000, 10_000, 0, 39),
            (32, 32, 4, 0),
            (200, 200, 4, 1),
        ] {
            assert_eq!(further(&CONFIG, slots, busy, ahead), expected, "{slots} {busy} {ahead}");
        }
    }

    #[test]
    fn the_window_reaches_as_far_as_begins_soon_and_narrows_when_a_delivery_waits() {
        let mut pace = Pace::default();
        let mut next = |begun, ms, bytes| {
            pace.next(Lately { begun, waited: Duration::from_millis(ms), bytes }, &CONFIG);
            (pace.ahead, pace.is_quiet())
        };
        assert_eq!(next(127, 1, 100), (0, false), "too few for one step");
        assert_eq!(next(128, 1, 100), (1, false));
        assert_eq!(next(2_000, 1, 100), (4, false), "and no more than that");
        assert_eq!(next(5, 100, 100), (4, false), "few again, and none of them waited");
        assert_eq!(next(500, 300, 100), (0, false));
        let pause = (0..*PAUSES.start()).map(|_| next(2_000, 0, 100).0).collect::<Vec<_>>();
        assert_eq!(pause.iter().filter(|ahead| **ahead == 0).count() as u32, PAUSES.start() - 1, "a pause");
        assert_eq!(next(2_000, 0, 32 << 10), (4, false));
        assert_eq!(next(2_000, 0, 128 << 10), (2, false), "large messages");
        assert_eq!(next(2_000, 0, 1 << 20), (0, false));
        next(2_000, 0, 100);
        let idle = (0..IDLE).map(|_| next(0, 0, 0)).last();
        assert_eq!(idle, Some((0, true)));
    }
}
