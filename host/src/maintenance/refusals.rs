//! Queues for which the broker refuses messages, and since when.

use crate::broker::PublishError;
use crate::db::OutboxReason;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before a queue is tried again.
const FIRST: Duration = Duration::from_millis(500);
/// The longest one.
pub(super) const LONGEST: Duration = Duration::from_secs(5);
/// How often a refusal is logged while it lasts.
const REPEATED: Duration = Duration::from_secs(60);
/// After this time without a row of a queue its refusal is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// A queue accepts tasks again after this time without a refusal. One that is full accepts as many as are consumed: without it each
/// second would bring a line for either.
const STEADY: Duration = Duration::from_secs(10);

/// Effect of a refusal, for the row and for a person.
pub(super) fn why(error: PublishError) -> (OutboxReason, String) {
    match error {
        PublishError::Unroutable(place) => (OutboxReason::Unroutable, format!("no queue is bound for it ({place})")),
        PublishError::Unconfirmed(why) => (OutboxReason::NotPublished, why),
    }
}

struct Refusal {
    reason: OutboxReason,
    why: String,
    since: DateTime<Utc>,
    /// Times that nothing was accepted, without one between them at which something was.
    tries: u32,
    /// The queue is tried again.
    next: Instant,
    logged: Instant,
    /// Everything has been accepted since.
    accepting: Option<Instant>,
}

impl Refusal {
    fn rests(&self, now: Instant) -> bool {
        self.accepting.is_none() && self.next > now
    }
}

/// By queue.
pub(super) struct Refusals {
    /// Name of the messages in logs and texts.
    what: &'static str,
    queues: BTreeMap<String, Refusal>,
}

impl Refusals {
    /// None yet.
    pub fn of(what: &'static str) -> Refusals {
        Refusals { what, queues: BTreeMap::new() }
    }

    /// Whether a queue refused what was last published to it.
    pub fn is_refusing(&self) -> bool {
        self.queues.values().any(|refusal| refusal.accepting.is_none())
    }

    /// Queues that are not to be tried yet.
    pub fn resting(&self) -> Vec<(String, OutboxReason)> {
        let now = Instant::now();
        let resting = self.queues.iter().filter(|(_, refusal)| refusal.rests(now));
        resting.map(|(queue, refusal)| (queue.clone(), refusal.reason)).collect()
    }

    /// Whether a queue that accepted nothing is to be tried again.
    pub fn is_probing(&self) -> bool {
        let now = Instant::now();
        self.queues.values().any(|refusal| refusal.accepting.is_none() && refusal.next <= now)
    }

    /// Some or all messages of a batch were refused. Returns the pause until they are tried again.
    pub fn refused(&mut self, queue: &str, reason: OutboxReason, why: String, accepted: usize) -> Duration {
        let now = Instant::now();
        let known = self.queues.remove(queue);
        let tries = if accepted > 0 { 0 } else { known.as_ref().map_or(0, |known| known.tries.saturating_add(1)) };
        let pause = FIRST.saturating_mul(1 << tries.min(10)).min(LONGEST);
        let since = known.as_ref().map_or_else(Utc::now, |known| known.since);
        let changed = known.as_ref().is_none_or(|known| known.reason != reason);
        let logged = match known {
            Some(known) if !changed && now.duration_since(known.logged) < REPEATED => known.logged,
            _ => {
                tracing::warn!(queue, why, %since, "the broker refuses {} of this queue; retrying", self.what);
                now
            }
        };
        let next = now + pause;
        self.queues.insert(queue.to_owned(), Refusal { reason, why, since, tries, next, logged, accepting: None });
        pause
    }

    /// A whole batch was accepted.
    pub fn accepted(&mut self, queue: &str) {
        if let Some(refusal) = self.queues.get_mut(queue) {
            refusal.tries = 0;
            refusal.accepting.get_or_insert_with(Instant::now);
        }
    }

    /// Forget queues that accept everything, and queues of which no row has come for long: their tasks were cancelled, or
    /// published by another host.
    pub fn forget(&mut self) {
        let now = Instant::now();
        self.queues.retain(|queue, refusal| match refusal.accepting {
            Some(accepting) if now.duration_since(accepting) >= STEADY => {
                tracing::info!(queue, since = %refusal.since, "the broker accepts {} of this queue again", self.what);
                false
            }
            Some(_) => true,
            None => now.duration_since(refusal.next) < FORGOTTEN,
        });
    }

    /// Queues whose tasks are refused, for a person; `None` if there are none.
    pub fn text(&self) -> Option<String> {
        let one = |(queue, refusal): (&String, &Refusal)| {
            format!(
                "the broker refuses {} of queue {queue} since {}: {}",
                self.what,
                refusal.since.format("%FT%TZ"),
                refusal.why
            )
        };
        (!self.queues.is_empty()).then(|| self.queues.iter().map(one).collect::<Vec<_>>().join("; "))
    }
}
