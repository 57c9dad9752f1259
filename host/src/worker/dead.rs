//! Dead letters: an unusable message is recorded, published to the dead-letter queue, and only then acknowledged.

use super::acknowledge::Done;
use super::{Shared, batch};
use crate::broker::{Delivery, Publication, Target};
use crate::db::DeadLetter;
use crate::task::{Rejection, TaskId};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Header that says why, in a stable word.
pub const REASON: &str = "agentry-reason";
/// Header that says why, in words.
pub const DETAIL: &str = "agentry-detail";

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
}

/// Why the broker gave up on a message, in its own word: `delivery_limit`, `expired`, `maxlen`, `rejected`
/// (RabbitMQ, "Dead Letter Exchanges"; of several deaths the last).
pub fn death(delivery: &Delivery) -> &str {
    let headers = &delivery.message.headers;
    let last = headers.get("x-death").and_then(|deaths| deaths.get(0)?.get("reason")?.as_str());
    last.or_else(|| headers.get("x-first-death-reason")?.as_str()).unwrap_or("unknown")
}

/// Bury until nobody sends any more.
pub async fn run(shared: Arc<Shared>, mut burials: mpsc::Receiver<Burial>, acks: mpsc::Sender<Done>) {
    while let Some(batch) = batch::next(&mut burials).await {
        for burial in batch {
            if let Some(done) = bury(&shared, burial).await {
                let _ = acks.send(done).await;
            }
        }
    }
}

/// `None`: a shutdown could not wait; the broker delivers it again, and its row is recognised.
async fn bury(shared: &Shared, burial: Burial) -> Option<Done> {
    let Burial { delivery, reason, detail, task_id, plugin } = burial;
    let queue = delivery.source.queue().to_string();
    let letter = DeadLetter {
        reason: reason.clone(),
        detail: detail.clone(),
        queue: queue.clone(),
        task_id,
        plugin,
        body: Arc::from(&delivery.message.body[..]),
        properties: delivery.message.properties(),
        redelivered: delivery.redelivered,
    };
    // An answer that never came may have been a commit: what is tried again is to be recognised like a redelivery.
    let tried = AtomicBool::new(false);
    let record = || {
        let redelivered = letter.redelivered | tried.swap(true, Ordering::Relaxed);
        let (db, letter) = (&shared.parts.db, DeadLetter { redelivered, ..letter.clone() });
        async move { db.record_dead(&letter).await }
    };
    let recorded = batch::until_answered(shared, "record a dead letter", record).await?;
    if !recorded.repeated {
        tracing::warn!(queue, reason, detail, task = task_id.map(tracing::field::display), "dead letter");
    }
    let mut message = delivery.message;
    message.headers.insert(REASON.into(), Value::String(reason));
    message.headers.insert(DETAIL.into(), Value::String(detail));
    publish(shared, Publication { target: Target::Dead(queue), message }).await?;
    shared.config.settled.send_modify(|n| *n += 1);
    Some(Done::now(task_id, vec![delivery.receipt]))
}

/// Until the broker has confirmed it.
async fn publish(shared: &Shared, publication: Publication) -> Option<()> {
    let mut pause = Duration::from_millis(100);
    loop {
        match shared.parts.broker.publish(vec![publication.clone()]).await.pop() {
            Some(Ok(())) => return Some(()),
            Some(Err(error)) => tracing::warn!(%error, "a dead letter could not be published yet"),
            None => tracing::error!("a publication was not answered"),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = shared.hurry.cancelled() => return None,
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
