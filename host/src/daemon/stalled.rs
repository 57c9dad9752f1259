//! Queues that have messages ready for this host while none arrives: a consumer that the broker has confirmed and does not serve.
//!
//! Only a queue that this host could take from is judged: its consumer is confirmed, a slot is free, no delivery in hand waits for
//! one, and fewer tasks run than its prefetch lets in. A queue that is paused, or held while the database is away, has no
//! confirmed consumer. A queue that another host drains is found empty, or gives this host its part. The broker is asked only while
//! nothing arrives.

use crate::broker::{Broker, Source};
use crate::worker::{Intake, Remote};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// The time without an arrival after which the host is not ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue that is stalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The time of the first look that found messages.
    pub since: DateTime<Utc>,
    /// Messages that were ready then.
    pub ready: u32,
}

/// The stalled queues by name.
pub type StalledQueues = BTreeMap<String, Stalled>;

/// One look at a queue.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    intake: Intake,
    /// The consumer is confirmed.
    consuming: bool,
    /// Messages that are ready; `None`: not asked, or the broker did not respond.
    ready: Option<u32>,
}

/// The judgement of one queue over its looks.
#[derive(Debug, Default)]
struct Watch {
    arrived: u64,
    /// The first of an unbroken row of looks that found messages.
    began: Option<(Instant, Stalled)>,
}

impl Watch {
    /// Whether the broker has to be asked: nothing has arrived since the last look.
    fn is_quiet(&self, intake: Intake, consuming: bool) -> bool {
        consuming && intake.open && intake.arrived == self.arrived
    }

    /// Takes a look in. Returns the queue's state if it is stalled.
    fn next(&mut self, look: Look) -> Option<Stalled> {
        let is_quiet = self.is_quiet(look.intake, look.consuming);
        self.arrived = look.intake.arrived;
        match look.ready {
            _ if !is_quiet => self.began = None,
            Some(0) => self.began = None,
            Some(ready) => {
                self.began.get_or_insert_with(|| (look.at, Stalled { since: Utc::now(), ready }));
            }
            // A broker that does not respond neither begins a row nor ends one.
            None => {}
        }
        let (began, stalled) = self.began.as_ref()?;
        (look.at.duration_since(*began) >= PATIENCE).then(|| stalled.clone())
    }
}

/// Whether the broker has confirmed each queue's consumer.
pub type Consuming = Vec<(String, watch::Receiver<Option<DateTime<Utc>>>)>;

/// Looks at every queue until the daemon closes.
pub async fn watch(
    consuming: Consuming,
    remote: Remote,
    broker: Arc<dyn Broker>,
    stalled: watch::Sender<StalledQueues>,
    closing: CancellationToken,
) {
    let mut watches: Vec<Watch> = consuming.iter().map(|_| Watch::default()).collect();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut found = StalledQueues::new();
        for ((queue, confirmed), watch) in consuming.iter().zip(&mut watches) {
            let is_confirmed = || confirmed.borrow().is_some();
            let mut ready = None;
            if watch.is_quiet(remote.intake(queue), is_confirmed()) {
                // Not dropped half-way: the next look waits for the answer, which has bounds of its own.
                ready = broker.facts(Source::Tasks(queue.as_str().into())).await.ok().map(|facts| facts.ready);
            }
            // What has arrived while the broker was asked is counted: it was ready a moment ago.
            let look = Look { at: Instant::now(), intake: remote.intake(queue), consuming: is_confirmed(), ready };
            if let Some(queue_is) = watch.next(look) {
                found.insert(queue.clone(), queue_is);
            }
        }
        stalled.send_if_modified(|now| std::mem::replace(now, found.clone()) != found);
    }
}

/// The reason for a person.
pub fn told(queue: &str, stalled: &Stalled) -> String {
    format!(
        "the queue {queue:?} has messages ready ({} when it was first seen) and slots are free, and none has arrived since {}; see its \
         consumers (`rabbitmqctl list_consumers`) and whether its leader is running (`rabbitmq-queues quorum_status`), or restart this daemon",
        stalled.ready,
        stalled.since.format("%FT%TZ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Staged {
        watch: Watch,
        at: Instant,
    }

    impl Staged {
        fn new() -> Staged {
            Staged { watch: Watch::default(), at: Instant::now() }
        }

        /// A look after the usual time; whether the queue is stalled.
        fn look(&mut self, arrived: u64, open: bool, consuming: bool, ready: Option<u32>) -> bool {
            self.at += LOOK;
            let intake = Intake { arrived, open };
            self.watch.next(Look { at: self.at, intake, consuming, ready }).is_some()
        }
    }

    #[test]
    fn queue_is_stalled_after_ten_seconds_with_messages_and_without_an_arrival() {
        let mut staged = Staged::new();
        let looks: Vec<bool> = (0..7).map(|_| staged.look(0, true, true, Some(3))).collect();
        assert_eq!(looks, [false, false, false, false, false, true, true]);
        assert!(!staged.look(1, true, true, None), "an arrival ends it");
        assert!(!staged.look(1, true, true, Some(3)), "and it begins anew");
    }

    #[test]
    fn queue_that_another_host_drains_or_that_this_host_cannot_take_from_is_not_stalled() {
        let mut staged = Staged::new();
        for look in 0..40 {
            assert!(!staged.look(0, true, true, Some(u32::from(look % 4 != 0) * 5)), "drained between looks");
        }
        for (open, consuming) in [(false, true), (true, false)] {
            let mut staged = Staged::new();
            assert!((0..40).all(|_| !staged.look(0, open, consuming, Some(3))), "{open} {consuming}");
        }
        let mut staged = Staged::new();
        assert!((0..40).all(|n| !staged.look(n, true, true, Some(3))), "it gets its part");
    }

    #[test]
    fn broker_that_does_not_respond_neither_begins_nor_ends_it() {
        let mut staged = Staged::new();
        assert!((0..40).all(|_| !staged.look(0, true, true, None)));
        let looks: Vec<bool> = (0..8).map(|n| staged.look(0, true, true, (n != 3).then_some(1))).collect();
        assert_eq!(looks, [false, false, false, false, false, true, true, true]);
    }
}
