//! Asking the database and the broker, for a bounded time each.

use super::{Facts, QueueError, QueueLook, Recorded};
use crate::broker::{Broker, BrokerError, Health, Source};
use crate::db::{Db, DbError, DeadFilter, Fields};
use crate::task::TaskId;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// How long each source may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Dead letters of one task that are looked at.
const LETTERS: u32 = 5;

/// Where to ask.
pub struct Places {
    /// The database; the error says why there is none.
    pub db: Result<Arc<dyn Db>, String>,
    /// The broker; the error says why there is none.
    pub broker: Result<Arc<dyn Broker>, String>,
    /// Logical queues to ask about where the task has no row.
    pub queues: Vec<String>,
    /// What the answering daemon says against itself.
    pub reasons: Vec<(String, String)>,
    /// Whether broker and database are embedded in one daemon.
    pub embedded: bool,
}

/// Asks everything that [`super::explain`] needs.
pub async fn look(id: TaskId, places: Places) -> Facts {
    let (database, now) = match places.db {
        Ok(db) => match bounded(async move { recorded(&*db, id).await }).await {
            Ok((recorded, now)) => (Ok(recorded), now),
            Err(why) => (Err(why), Utc::now()),
        },
        Err(why) => (Err(why), Utc::now()),
    };
    let queues = match database.as_ref().ok().and_then(|recorded| recorded.task.as_ref()) {
        Some(task) => vec![task.queue.clone()],
        None => {
            // Those of other hosts as well: the message may wait in any of them.
            let hosts = database.as_ref().map(|recorded| recorded.hosts.as_slice()).unwrap_or_default();
            let alive = hosts.iter().filter(|host| host.alive).flat_map(|host| host.record.queues.iter().cloned());
            let mut queues: Vec<String> = places.queues.into_iter().chain(alive).collect();
            queues.sort();
            queues.dedup();
            queues
        }
    };
    let mut facts = Facts {
        id,
        now,
        database,
        broker: None,
        refusal: None,
        queues: Vec::new(),
        reasons: places.reasons,
        embedded: places.embedded,
    };
    match places.broker {
        Err(why) => facts.broker = Some(why),
        Ok(broker) => {
            facts.broker = match &*broker.health().borrow() {
                Health::Up(_) => None,
                Health::Down(since, why) => Some(format!("{why} (since {})", since.format("%FT%TZ"))),
            };
            facts.refusal = broker.refusal();
            facts.queues = join_all(queues.into_iter().map(|queue| queue_look(broker.clone(), queue))).await;
            let away = facts.queues.iter().find_map(|look| match &look.tasks {
                Err(QueueError::Away(why)) => Some(why.clone()),
                _ => None,
            });
            facts.broker = facts.broker.take().or(away);
        }
    }
    facts
}

async fn recorded(db: &dyn Db, id: TaskId) -> Result<(Recorded, DateTime<Utc>), DbError> {
    let now = db.ping().await?;
    let task = db.task(id, Fields::default()).await?;
    let hosts = db.hosts().await?;
    let filter = DeadFilter { task: Some(id), limit: LETTERS, ..DeadFilter::default() };
    let letters = db.dead_letters(&filter).await?.rows;
    Ok((Recorded { task, letters, hosts }, now))
}

async fn queue_look(broker: Arc<dyn Broker>, queue: String) -> QueueLook {
    let name: Arc<str> = queue.as_str().into();
    let tasks = count(&broker, Source::Tasks(name.clone())).await;
    // The others are not asked where the first has no answer: each would take as long.
    let (returned, dead) = match tasks {
        Ok(_) => (count(&broker, Source::Returned(name.clone())).await, count(&broker, Source::Dead(name)).await),
        Err(_) => (tasks.clone(), tasks.clone()),
    };
    let ready = |counted: Result<crate::broker::QueueFacts, QueueError>| counted.ok().map(|facts| facts.ready);
    QueueLook { queue, tasks, returned: ready(returned), dead: ready(dead) }
}

async fn count(broker: &Arc<dyn Broker>, source: Source) -> Result<crate::broker::QueueFacts, QueueError> {
    let broker = broker.clone();
    // On a task of its own: a question to the broker is never dropped half-way.
    let asked = tokio::spawn(async move { broker.facts(source).await });
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(facts))) => Ok(facts),
        Ok(Ok(Err(BrokerError::Unavailable(why)))) => Err(QueueError::Away(why)),
        Ok(Ok(Err(BrokerError::Refused(why)))) => Err(QueueError::Refused(why)),
        Ok(Err(e)) => Err(QueueError::Away(e.to_string())),
        Err(_) => Err(QueueError::Away(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// An operation of the database on a task of its own: it is not to be cancelled in flight.
async fn bounded<T: Send + 'static>(
    ask: impl Future<Output = Result<T, DbError>> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, tokio::spawn(ask)).await {
        Ok(Ok(answer)) => answer.map_err(|e| e.to_string()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
