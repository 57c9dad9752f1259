//! Publishes the replies of tasks that have ended, whoever ended them: takes them for a while, publishes with confirm, and marks what
//! is done. A host that dies between the two publishes twice.
//!
//! Replies have a connection of their own to the broker: a queue of a producer that accepts nothing holds up no task.

mod destinations;

use super::{HELD, Parts, publish};
use crate::broker::{PublishError, reply};
use crate::db::{DbError, Reply};
use crate::metrics::Replied;
use crate::task::TaskId;
use chrono::Utc;
use destinations::Destinations;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Replies of one publication. Each has its task in memory, with input and output.
const BATCH: u32 = 16;
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
    let mut destinations = Destinations::default();
    loop {
        ended.borrow_and_update();
        let pause = match round(&parts, &mut destinations).await {
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
async fn round(parts: &Parts, destinations: &mut Destinations) -> Result<Option<Duration>, DbError> {
    if !parts.broker.health().borrow().is_up() || parts.broker.refusal().is_some() {
        return Ok(Some(AWAY));
    }
    let (old, replies): (Vec<Reply>, Vec<Reply>) =
        parts.db.take_replies(BATCH, HELD).await?.into_iter().partition(is_old);
    if replies.is_empty() && old.is_empty() {
        return Ok(Some(LOOK));
    }
    let mut done: Vec<TaskId> = Vec::new();
    let mut end = |id: TaskId, outcome: Replied| {
        parts.metrics.reply(outcome);
        done.push(id);
    };
    for reply in &old {
        tracing::warn!(task = %reply.task.id, "a reply is dropped: its queue did not accept it for a day");
        end(reply.task.id, Replied::Expired);
    }
    let ids: Vec<TaskId> = replies.iter().map(|reply| reply.task.id).collect();
    let names: Vec<String> = replies.iter().map(|reply| reply.reply_to.clone()).collect();
    let plan = {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        destinations.plan(&names, Instant::now(), rand::random())
    };
    for index in plan.nowhere {
        tracing::debug!(task = %ids[index], "a reply is dropped: its direct reply-to is none of RabbitMQ's");
        end(ids[index], Replied::Unroutable);
    }
    let mut left: Vec<TaskId> = plan.later.iter().map(|index| ids[*index]).collect();
    let mut replies: Vec<Option<Reply>> = replies.into_iter().map(Some).collect();
    for group in plan.publications {
        let taken = group.iter().filter_map(|index| replies[*index].take());
        let publications = taken.map(|Reply { task, reply_to, correlation_id }| reply(&task, reply_to, correlation_id));
        // All that were taken, since the others wait for these.
        let answers = publish(parts, publications.collect(), || parts.db.defer_replies(&ids, HELD)).await;
        for (index, answer) in group.into_iter().zip(answers) {
            let (id, name) = (ids[index], &names[index]);
            destinations.answered(name, !matches!(answer, Err(PublishError::Unconfirmed(_))), Instant::now());
            match answer {
                Ok(()) => end(id, Replied::Published),
                Err(PublishError::Unroutable(place)) => {
                    tracing::debug!(task = %id, place, "a reply is dropped: its queue does not exist");
                    end(id, Replied::Unroutable);
                }
                Err(PublishError::Unconfirmed(why)) => {
                    tracing::debug!(task = %id, why, retry_after = ?AGAIN, "a reply is not accepted");
                    left.push(id);
                }
            }
        }
    }
    if !done.is_empty() {
        parts.db.replied(&done).await?;
    }
    if !left.is_empty() {
        parts.db.defer_replies(&left, AGAIN).await?;
    }
    Ok(done.is_empty().then_some(AWAY))
}

fn is_old(reply: &Reply) -> bool {
    reply.task.finished_at.is_some_and(|at| Utc::now() - at > LONGEST)
}
