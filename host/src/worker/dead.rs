//! Dead letters: unusable messages are recorded in batches, and then acknowledged. A duty publishes them to their dead-letter
//! queue ([`crate::maintenance::letters`]): one that accepts nothing is not to hold up what is delivered behind them.
//!
//! A message that a relay published is no dead letter: its task has a row, which would wait for a message that is gone. The limits of this host may
//! have changed since, or a host of a newer build may have published it. The row waits for a host that can use it.

use super::acknowledge::Done;
use super::receive::relayed;
use super::settle::STATEMENT_BYTES;
use super::{Shared, batch};
use crate::broker::{Delivery, Publication, Target, buried};
use crate::db::{Claimant, DeadAnswer, DeadLetter, Unusable, UnusableAnswer};
use crate::task::{Rejection, TaskId};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// The pause after which a task is published again whose row this build can neither read nor write.
const AGAIN: Duration = Duration::from_secs(60);

/// A message to be dead-lettered.
pub struct Burial {
    delivery: Delivery,
    reason: String,
    detail: String,
    task_id: Option<TaskId>,
    plugin: Option<String>,
}

impl Burial {
    /// It could not be decoded.
    pub fn rejected(delivery: Delivery, rejection: Rejection) -> Burial {
        let Rejection { code, detail, id, plugin } = rejection;
        Burial { delivery, reason: code.into(), detail, task_id: id, plugin }
    }

    /// Its id belongs to another message.
    pub fn conflict(delivery: Delivery, id: TaskId) -> Burial {
        let detail = format!("task {id} exists with another plugin, input or options; publish under a new id");
        Burial { delivery, reason: "conflict".into(), detail, task_id: Some(id), plugin: None }
    }

    /// The database does not take it.
    pub fn refused(delivery: Delivery, id: TaskId, reason: String) -> Burial {
        Burial { delivery, reason: "unstorable".into(), detail: reason, task_id: Some(id), plugin: None }
    }

    /// The broker gave up on it.
    pub fn returned(delivery: Delivery, id: Option<TaskId>) -> Burial {
        let detail = format!("the broker returned it: {}", death(&delivery));
        Burial { delivery, reason: "returned".into(), detail, task_id: id, plugin: None }
    }

    /// Reason for its task's row, if a relay published it.
    fn unusable(&self) -> Option<Unusable> {
        relayed(&self.delivery)?;
        Some(Unusable { id: self.task_id?, reason: self.reason.clone(), detail: self.detail.clone() })
    }

    fn letter(&self) -> DeadLetter {
        let message = &self.delivery.message;
        DeadLetter {
            reason: self.reason.clone(),
            detail: self.detail.clone(),
            queue: self.delivery.source.queue().to_string(),
            task_id: self.task_id,
            plugin: self.plugin.clone(),
            body: Arc::from(&message.body[..]),
            properties: message.properties(),
            redelivered: self.delivery.redelivered,
        }
    }
}

/// Why the broker gave up on a message, in its own word: `delivery_limit`, `expired`, `maxlen`, `rejected`
/// (RabbitMQ, "Dead Letter Exchanges"; of several deaths the last).
pub fn death(delivery: &Delivery) -> &str {
    let headers = &delivery.message.headers;
    let last = headers.get("x-death").and_then(|deaths| deaths.get(0)?.get("reason")?.as_str());
    last.or_else(|| headers.get("x-first-death-reason")?.as_str()).unwrap_or("unknown")
}

/// Record until all senders are gone.
pub async fn run(shared: Arc<Shared>, mut burials: mpsc::Receiver<Burial>, acks: mpsc::Sender<Done>) {
    while let Some(batch) = batch::next(&mut burials).await {
        for part in batch::parts(batch, STATEMENT_BYTES, |burial| burial.delivery.message.body.len()) {
            record(&shared, part, &acks).await;
        }
    }
}

/// Leave messages that a relay published to the rows of their tasks. Returns the others, which are dead letters; `None`: a shutdown could
/// not wait, and the broker delivers all of them again.
async fn without_rows(shared: &Shared, burials: Vec<Burial>, acks: &mpsc::Sender<Done>) -> Option<Vec<Burial>> {
    let (relayed, mut dead): (Vec<Burial>, _) = burials.into_iter().partition(|burial| burial.unusable().is_some());
    if relayed.is_empty() {
        return Some(dead);
    }
    let tasks: Vec<Unusable> = relayed.iter().filter_map(Burial::unusable).collect();
    let me = Claimant { host: shared.config.host, steady: shared.lease.is_steady() };
    let call = |range: Range<usize>| shared.parts.db.park_unusable(me, &tasks[range], AGAIN);
    let answers = batch::all_answered(shared, "park unusable tasks", tasks.len(), call).await?;
    shared.config.settled.send_modify(|n| *n += 1);
    for ((burial, task), answer) in relayed.into_iter().zip(tasks).zip(answers) {
        let Unusable { id, reason, detail } = task;
        match answer {
            UnusableAnswer::Unknown => {
                dead.push(burial);
                continue;
            }
            UnusableAnswer::Kept => {
                tracing::warn!(task = %id, reason, detail, "this host cannot use the message of a task; it waits in the database");
            }
            UnusableAnswer::Later(why) => tracing::error!(
                task = %id, reason, detail, why, again_after = ?AGAIN,
                "this build can use neither the message nor the row of a task; it is published again"
            ),
        }
        let _ = acks.send(Done::now(Some(id), vec![burial.delivery.receipt])).await;
    }
    Some(dead)
}

async fn record(shared: &Arc<Shared>, burials: Vec<Burial>, acks: &mpsc::Sender<Done>) {
    let Some(burials) = without_rows(shared, burials, acks).await.filter(|burials| !burials.is_empty()) else { return };
    let letters: Vec<DeadLetter> = burials.iter().map(Burial::letter).collect();
    // An answer that never came may have been a commit: a letter that is tried again is to be recognised like a redelivery.
    let tried: Vec<AtomicBool> = letters.iter().map(|_| AtomicBool::new(false)).collect();
    let call = |range: Range<usize>| {
        let again = |(letter, tried): (&DeadLetter, &AtomicBool)| {
            let redelivered = letter.redelivered | tried.swap(true, Ordering::Relaxed);
            DeadLetter { redelivered, ..letter.clone() }
        };
        let letters: Vec<DeadLetter> = letters[range.clone()].iter().zip(&tried[range]).map(again).collect();
        async move { shared.parts.db.record_dead(&letters).await }
    };
    let Some(answers) = batch::all_answered(shared, "record dead letters", letters.len(), call).await else {
        return; // A shutdown could not wait: the broker delivers them again, and those that have a row are recognised.
    };
    shared.recorded();
    shared.config.letters.send_replace(());
    for (burial, answer) in burials.into_iter().zip(answers) {
        let Burial { delivery, reason, detail, task_id, plugin } = burial;
        let queue = delivery.source.queue().to_string();
        match answer {
            DeadAnswer::Recorded(recorded) => {
                if !recorded.repeated {
                    shared.parts.metrics.letter(&queue, &reason);
                    tracing::warn!(queue, reason, detail, task = task_id.map(tracing::field::display), "dead letter");
                }
                let _ = acks.send(Done::now(task_id, vec![delivery.receipt])).await;
            }
            DeadAnswer::Refused(why) => {
                tracing::error!(
                    queue,
                    reason,
                    detail,
                    why,
                    "the database rejects a dead letter; it is published without a row"
                );
                let burial = Burial { delivery, reason, detail, task_id, plugin };
                tokio::spawn(publish(shared.clone(), burial, acks.clone()));
            }
        }
    }
}

/// Publish a letter that has no row, and acknowledge it then. A shutdown does not wait: the broker delivers it again.
async fn publish(shared: Arc<Shared>, burial: Burial, acks: mpsc::Sender<Done>) {
    let Burial { delivery, reason, detail, task_id, .. } = burial;
    let target = Target::Dead(delivery.source.queue().to_string());
    let publication = Publication { target, message: buried(delivery.message, reason, detail) };
    let mut pause = Duration::from_millis(100);
    loop {
        match shared.parts.broker.publish(vec![publication.clone()]).await.pop() {
            Some(Ok(())) => break,
            Some(Err(error)) => tracing::warn!(%error, "a dead letter without a row is not published; retrying"),
            None => tracing::error!("a publication was not answered"),
        }
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    let _ = acks.send(Done::now(task_id, vec![delivery.receipt])).await;
}

#[cfg(test)]
#[path = "dead_tests.rs"]
mod tests;
