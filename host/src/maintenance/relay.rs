//! The relay hands outbox rows to the broker: claims them under a token, publishes with confirm and `mandatory`, deletes
//! what was confirmed. A relay that dies between publishing and deleting publishes twice; the claim recognises it.
//!
//! A queue for which the broker accepts nothing rests: its rows are set aside unread, and a few are tried again after a
//! pause that grows to [`LONGEST`]. Rows of other queues are published meanwhile.

#[cfg(test)]
pub(super) mod tests;

use super::refusals::{LONGEST, Refusals, why};
use super::{HELD, Parts, publish};
use crate::broker::{Message, Publication, PublishError, Target};
use crate::db::{DbError, Halving, OutboxBatch, OutboxReason, OutboxRow, OutboxTake, Unread};
use crate::task::TaskId;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Rows of one publication.
const BATCH: u32 = 500;
/// The same when a queue is tried again.
const PROBE: u32 = 50;
/// How often the outbox is looked at when nobody in this process said that there is something.
const LOOK: Duration = Duration::from_millis(500);
/// Rows of resting queues that are written per second if there are many, and the longest rest of one.
const ASIDE_PER_SECOND: u32 = 4_000;
const LONGEST_ASIDE: Duration = Duration::from_secs(600);

/// How far before the first due row is looked: a row may be committed so long after its statement began.
const MARGIN: Duration = Duration::from_secs(15);
/// How often is looked without a bound, for a row that others held at the time, or that was committed later.
const WHOLE: Duration = Duration::from_secs(60);
/// The pause after which a task is tried again whose row this build cannot read. A host with a newer build may publish it.
const UNREAD: Duration = Duration::from_secs(60);

/// The step after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More is due. It ends: each row of a round is deleted, or due later.
    AtOnce,
    /// Nothing is due.
    Look,
    /// The database failed. A new row does not end the pause.
    Pause,
}

/// Publish until told to end.
pub async fn run(parts: Parts, closing: CancellationToken) {
    let mut refusals = Refusals::of("tasks");
    let mut aside = Aside::default();
    let mut bound = Bound::default();
    let mut size = Halving::new(BATCH as usize);
    let mut trouble = false;
    loop {
        let next = match round(&parts, &mut refusals, &mut aside, &mut bound, size.size() as u32).await {
            Ok(next) => {
                trouble = false;
                size.ended();
                next
            }
            Err(error) => {
                if !trouble {
                    tracing::warn!(duty = "relay", %error, "failed to read the outbox; retrying");
                }
                trouble = true;
                if error.is_timed_out() {
                    size.timed_out(size.size());
                }
                Next::Pause
            }
        };
        let text = refusals.text();
        parts.unpublished.send_if_modified(|known| std::mem::replace(known, text.clone()) != text);
        let (pause, woken) = match next {
            Next::AtOnce => (Duration::ZERO, false),
            Next::Look => (LOOK, true),
            Next::Pause => (LOOK, false),
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = parts.outbox.notified(), if woken => {}
            () = tokio::time::sleep(pause), if pause > Duration::ZERO => {}
            () = std::future::ready(()), if pause.is_zero() => {}
        }
    }
}

/// Takes rows and publishes them.
async fn round(
    parts: &Parts,
    refusals: &mut Refusals,
    aside: &mut Aside,
    bound: &mut Bound,
    most: u32,
) -> Result<Next, DbError> {
    if !parts.broker.health().borrow().is_up() || parts.broker.refusal().is_some() {
        return Ok(Next::Look); // The rows stay as they are: `not_published`.
    }
    let limit = if refusals.is_probing() { PROBE.min(most) } else { most };
    let (resting, rest) = (refusals.resting(), aside.rest());
    let take = OutboxTake { aside: resting, rest, from: bound.from(), ..OutboxTake::new(limit, HELD) };
    let batch = parts.db.take_outbox(&take).await?;
    bound.found(batch.first_due);
    aside.count(batch.aside);
    if !batch.unread.is_empty() {
        for Unread { id, reason } in &batch.unread {
            tracing::error!(task = %id, reason, retry_after = ?UNREAD, "a task cannot be published");
        }
        let ids: Vec<TaskId> = batch.unread.iter().map(|unread| unread.id).collect();
        parts.db.defer_outbox(batch.token, &ids, OutboxReason::NotPublished, UNREAD).await?;
    }
    if !batch.rows.is_empty() {
        let ids: Vec<TaskId> = batch.rows.iter().map(|row| row.id).collect();
        let hold = || parts.db.hold_outbox(batch.token, &ids, HELD);
        let answers = publish(parts, batch.rows.iter().map(publication).collect(), hold).await;
        settle(parts, &batch, answers, refusals).await?;
    }
    refusals.forget();
    Ok(if batch.more { Next::AtOnce } else { Next::Look })
}

/// The time before which no row is looked for.
#[derive(Default)]
struct Bound {
    from: Option<DateTime<Utc>>,
    /// The last look without it.
    whole: Option<Instant>,
}

impl Bound {
    fn from(&mut self) -> Option<DateTime<Utc>> {
        if self.whole.is_none_or(|whole| whole.elapsed() >= WHOLE) {
            (self.from, self.whole) = (None, Some(Instant::now()));
        }
        self.from
    }

    /// The first of the rows that were found was due then.
    fn found(&mut self, first_due: Option<DateTime<Utc>>) {
        self.from = first_due.map(|due| due - MARGIN).max(self.from);
    }
}

/// Counts rows of resting queues, and derives how long each rests. Each rest ends with a write of the row, so that many rows must rest
/// longer than few.
struct Aside {
    /// Begin of the count, which lasts one rest. A row is counted twice at most, if the rest grew meanwhile.
    since: Instant,
    counted: u32,
    /// The previous count.
    known: u32,
}

impl Default for Aside {
    fn default() -> Self {
        Aside { since: Instant::now(), counted: 0, known: 0 }
    }
}

impl Aside {
    fn count(&mut self, rows: u32) {
        let rest = self.rest();
        if self.since.elapsed() >= rest {
            *self = Aside { since: Instant::now(), counted: 0, known: self.counted };
        }
        self.counted = self.counted.saturating_add(rows);
    }

    /// The rest of one row: the longest time until it is published after its queue accepts tasks again.
    fn rest(&self) -> Duration {
        let rows = self.known.max(self.counted);
        Duration::from_secs((rows / ASIDE_PER_SECOND).into()).clamp(LONGEST, LONGEST_ASIDE)
    }
}

/// Deletes what was confirmed and gives the rest back.
async fn settle(
    parts: &Parts,
    batch: &OutboxBatch,
    answers: Vec<Result<(), PublishError>>,
    refusals: &mut Refusals,
) -> Result<(), DbError> {
    let mut published: Vec<TaskId> = Vec::new();
    let mut of_queues: BTreeMap<&str, Answers> = BTreeMap::new();
    for (row, answer) in batch.rows.iter().zip(answers) {
        let queue = of_queues.entry(&row.queue).or_default();
        match answer {
            Ok(()) => {
                published.push(row.id);
                queue.accepted += 1;
            }
            Err(error) => {
                queue.ids.push(row.id);
                queue.why = Some(why(error));
            }
        }
    }
    let db = &parts.db;
    if !published.is_empty() {
        db.drop_outbox(batch.token, &published).await?;
    }
    for (queue, answers) in of_queues {
        let Some((reason, why)) = answers.why else {
            refusals.accepted(queue);
            continue;
        };
        let pause = refusals.refused(queue, reason, why, answers.accepted);
        db.defer_outbox(batch.token, &answers.ids, reason, pause).await?;
    }
    Ok(())
}

/// Results of a publication for one queue.
#[derive(Default)]
struct Answers {
    accepted: usize,
    ids: Vec<TaskId>,
    why: Option<(OutboxReason, String)>,
}

/// A task as any producer would publish it.
fn publication(row: &OutboxRow) -> Publication {
    let message = Message::from(&row.message).relayed(row.fence);
    Publication { target: Target::Tasks(row.queue.clone()), message }
}
