//! Publishes the replies of tasks that have ended, whoever ended them: takes them for a while, publishes with confirm, and marks what
//! is done. A host that dies between the two publishes twice.
//!
//! Replies have a connection of their own to the broker: a queue of a producer that accepts nothing holds up no task.

use super::Parts;
use crate::broker::{PublishError, reply};
use crate::db::{DbError, Reply};
use crate::metrics::Replied;
use crate::task::TaskId;
use chrono::Utc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Replies of one publication. Each has its task in memory, with input and output.
const BATCH: u32 = 16;
/// Time after which a reply that was taken is due again: its host may have died. Longer than the broker may take to confirm.
const HELD: Duration = Duration::from_secs(60);
/// How often replies are looked for of tasks that others ended.
const LOOK: Duration = Duration::from_secs(2);
/// The pause while the broker accepts nothing at all, or the database failed.
const AWAY: Duration = Duration::from_millis(500);
/// The pause before a reply that its queue did not accept is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// The time from a task's end after which a reply that is not accepted is given up.
const LONGEST: chrono::TimeDelta = chrono::TimeDelta::hours(24);

/// Publish until told to end, and then what is left if that is possible at once.
pub async fn run(parts: Parts, closing: CancellationToken) {
    let mut ended = parts.replies.subscribe();
    let mut trouble = false;
    loop {
        ended.borrow_and_update();
        let pause = match round(&parts).await {
            Ok(pause) => {
                trouble = false;
                pause
            }
            Err(error) => {
                if !trouble {
                    tracing::warn!(duty = "replies", %error, "failed to read replies; retrying");
                }
                trouble = true;
                Some(AWAY)
            }
        };
        let Some(pause) = pause else { continue };
        if closing.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            changed = ended.changed(), if pause == LOOK => if changed.is_err() { tokio::time::sleep(LOOK).await },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Takes replies and publishes them. Returns the pause; `None`: more may be due.
async fn round(parts: &Parts) -> Result<Option<Duration>, DbError> {
    if !parts.broker.health().borrow().is_up() || parts.broker.refusal().is_some() {
        return Ok(Some(AWAY));
    }
    let replies = parts.db.take_replies(BATCH, HELD).await?;
    if replies.is_empty() {
        return Ok(Some(LOOK));
    }
    let ids: Vec<(TaskId, bool)> = replies.iter().map(|reply| (reply.task.id, is_old(reply))).collect();
    let publications =
        replies.into_iter().map(|Reply { task, reply_to, correlation_id }| reply(&task, reply_to, correlation_id));
    let answers = parts.broker.publish(publications.collect()).await;
    let (mut done, mut left) = (Vec::new(), Vec::new());
    for ((id, old), answer) in ids.into_iter().zip(answers) {
        let outcome = match answer {
            Ok(()) => Replied::Published,
            Err(PublishError::Unroutable(place)) => {
                tracing::debug!(task = %id, place, "a reply is dropped: its queue does not exist");
                Replied::Unroutable
            }
            Err(PublishError::Unconfirmed(why)) if old => {
                tracing::warn!(task = %id, why, "a reply is dropped: its queue did not accept it for a day");
                Replied::Expired
            }
            Err(PublishError::Unconfirmed(why)) => {
                tracing::debug!(task = %id, why, retry_after = ?AGAIN, "a reply is not accepted");
                left.push(id);
                continue;
            }
        };
        parts.metrics.reply(outcome);
        done.push(id);
    }
    if !done.is_empty() {
        parts.db.replied(&done).await?;
    }
    if !left.is_empty() {
        parts.db.defer_replies(&left, AGAIN).await?;
    }
    Ok(None)
}

fn is_old(reply: &Reply) -> bool {
    reply.task.finished_at.is_some_and(|at| Utc::now() - at > LONGEST)
}
