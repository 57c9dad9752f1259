//! Publishes the dead letters of one queue that were recorded and acknowledged: takes them for a while, publishes with confirm
//! and `mandatory`, marks what was confirmed as published. A host that dies between the two publishes twice.
//!
//! Each queue has a duty of its own: a dead-letter queue that accepts nothing, or does not answer, holds up no other.

use super::refusals::{Refusals, why};
use super::{HELD, Parts, publish};
use crate::broker::{Message, Publication, Target, buried};
use crate::db::{DbError, Halving, UnpublishedLetter};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Letters of one publication.
const BATCH: u32 = 500;
/// The same when the queue is tried again.
const PROBE: u32 = 50;
/// How often letters are looked for that another process recorded.
const LOOK: Duration = Duration::from_secs(5);
/// The pause while the broker accepts nothing at all, or the database failed.
const AWAY: Duration = Duration::from_millis(500);

/// The step after a round.
enum Next {
    /// More may be due.
    AtOnce,
    /// Nothing is due.
    Look,
    /// Nothing can be done for so long. A new letter does not end the pause.
    Pause(Duration),
}

/// Publish until told to end, and then what is left if that is possible at once and before it is `over`.
pub async fn run(parts: Parts, queue: String, closing: CancellationToken, over: CancellationToken) {
    let mut recorded = parts.letters.subscribe();
    let mut refusals = Refusals::of("dead letters");
    let mut size = Halving::new(BATCH as usize);
    let mut trouble = false;
    loop {
        recorded.borrow_and_update();
        let next = match round(&parts, &queue, &mut refusals, size.size() as u32).await {
            Ok(next) => {
                trouble = false;
                size.ended();
                next
            }
            Err(error) => {
                if !trouble {
                    tracing::warn!(duty = "letters", queue, %error, "failed to read dead letters; retrying");
                }
                trouble = true;
                if error.is_timed_out() {
                    size.timed_out(size.size());
                }
                Next::Pause(AWAY)
            }
        };
        report(&parts, &queue, refusals.text());
        let last = closing.is_cancelled();
        let (pause, woken) = match next {
            Next::AtOnce if !over.is_cancelled() => continue,
            Next::AtOnce => return,
            Next::Look | Next::Pause(_) if last => return,
            Next::Look => (LOOK, true),
            Next::Pause(pause) => (pause, false),
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            changed = recorded.changed(), if woken => if changed.is_err() { tokio::time::sleep(LOOK).await },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Takes letters and publishes them.
async fn round(parts: &Parts, queue: &str, refusals: &mut Refusals, most: u32) -> Result<Next, DbError> {
    if !parts.broker.health().borrow().is_up() || parts.broker.refusal().is_some() {
        return Ok(Next::Pause(AWAY));
    }
    let limit = if refusals.is_refusing() { PROBE.min(most) } else { most };
    let letters = parts.db.take_letters(queue, limit, HELD).await?;
    if letters.is_empty() {
        refusals.forget();
        return Ok(Next::Look);
    }
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    let publications = letters.into_iter().map(|letter| publication(queue, letter)).collect();
    let answers = publish(parts, publications, || parts.db.defer_letters(&ids, HELD)).await;
    let (mut published, mut left, mut refused) = (Vec::new(), Vec::new(), None);
    for (id, answer) in ids.into_iter().zip(answers) {
        match answer {
            Ok(()) => published.push(id),
            Err(error) => {
                left.push(id);
                refused = Some(why(error));
            }
        }
    }
    if !published.is_empty() {
        parts.db.letters_published(&published).await?;
    }
    let Some((reason, why)) = refused else {
        refusals.accepted(queue);
        return Ok(Next::AtOnce);
    };
    let pause = refusals.refused(queue, reason, why, published.len());
    parts.db.defer_letters(&left, Duration::ZERO).await?;
    Ok(Next::Pause(pause))
}

fn publication(queue: &str, letter: UnpublishedLetter) -> Publication {
    let UnpublishedLetter { reason, detail, body, properties, .. } = letter;
    let message = buried(Message::with_properties(body, properties), reason, detail);
    Publication { target: Target::Dead(queue.to_owned()), message }
}

/// Report why letters of this queue are not published; `None`: they are.
fn report(parts: &Parts, queue: &str, why: Option<String>) {
    parts.unpublished_letters.send_if_modified(|queues| match why {
        Some(why) => queues.insert(queue.to_owned(), why.clone()).as_ref() != Some(&why),
        None => queues.remove(queue).is_some(),
    });
}
