//! Asking the database and the broker, at once and for a bounded time.

use super::{DatabaseError, Facts, QueueError, QueueLook, Recorded, Responding};
use crate::broker::{Broker, BrokerError, Health, QueueFacts, Source};
use crate::db::{Db, DbError, DeadFilter, Fields, TaskRow};
use crate::task::{FailureKind, TaskId};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The time that all questions together may take.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// The part of it after which the database is not waited for: queues that only its rows name are asked after it.
const DATABASE: Duration = Duration::from_millis(2_500);
/// Dead letters of one task that are looked at.
const LETTERS: u32 = 5;

/// Where to ask.
pub struct Places {
    /// The database; the error says why there is none.
    pub db: Result<Arc<dyn Db>, DatabaseError>,
    /// The broker; the error says why there is none.
    pub broker: Result<Arc<dyn Broker>, String>,
    /// Logical queues to ask about where the task has no row.
    pub queues: Vec<String>,
    /// The daemon that asks; `None`: the command line.
    pub daemon: Option<Responding>,
    /// Set if the queue is embedded in a daemon that does not respond.
    pub embedded: bool,
}

/// Asks for queues and hosts alone: no task has the id that is looked for.
pub async fn survey(places: Places) -> Facts {
    look(TaskId::nil(), places).await
}

/// Asks everything that [`super::explain`] needs.
pub async fn look(id: TaskId, places: Places) -> Facts {
    let end = Instant::now() + PATIENCE;
    let (broker, away) = match places.broker {
        Ok(broker) => match broker.health().borrow().clone() {
            Health::Up(_) => (Some(broker), None),
            Health::Down(since, why) => {
                let why = format!("{why} (since {})", since.format("%FT%TZ"));
                (Some(broker), Some(why))
            }
        },
        Err(why) => (None, Some(why)),
    };
    let reachable = || broker.clone().filter(|_| away.is_none());
    let (database, known) =
        tokio::join!(recorded(places.db, id), queues(reachable(), places.queues.clone(), end, away.clone()));
    let (database, now) = match database {
        Ok((recorded, now)) => (Ok(recorded), now),
        Err(why) => (Err(why), Utc::now()),
    };
    let wanted: Vec<String> = match database.as_ref().map(|recorded| (recorded.task.as_ref(), recorded)) {
        Ok((Some(task), _)) => vec![task.queue.clone()],
        // Those of other hosts as well: the message may wait in any of them.
        Ok((None, recorded)) => {
            let of_hosts = recorded.alive().flat_map(|host| host.record.queues.iter().cloned());
            places.queues.into_iter().chain(of_hosts).collect()
        }
        Err(_) => places.queues,
    };
    let mut known = known;
    let more: Vec<String> =
        wanted.iter().filter(|name| known.iter().all(|look| look.queue != **name)).cloned().collect();
    known.extend(queues(reachable(), more, end, away.clone()).await);
    known.retain(|look| wanted.contains(&look.queue));
    known.sort_by(|a, b| a.queue.cmp(&b.queue));
    known.dedup_by(|a, b| a.queue == b.queue);
    let silent = known.iter().find_map(|look| match &look.tasks {
        Err(QueueError::Away(why)) => Some(why.clone()),
        _ => None,
    });
    Facts {
        id,
        now,
        database,
        place: broker.as_ref().map(|broker| broker.describe()),
        refusal: broker.as_ref().and_then(|broker| broker.refusal()),
        broker: away.or(silent),
        queues: known,
        daemon: places.daemon,
        embedded: places.embedded,
    }
}

/// The facts of the database. Each part is read by a task of its own: an operation must not be cancelled in flight.
async fn recorded(
    db: Result<Arc<dyn Db>, DatabaseError>,
    id: TaskId,
) -> Result<(Recorded, DateTime<Utc>), DatabaseError> {
    let db = db?;
    let now = bounded(&db, |db| async move { db.ping().await });
    let task = bounded(&db, move |db| async move { db.task(id, Fields::default()).await });
    let hosts = bounded(&db, |db| async move { db.hosts().await });
    let brakes = bounded(&db, |db| async move { db.steering().brakes().await });
    let filter = DeadFilter { task: Some(id), limit: LETTERS, ..DeadFilter::default() };
    let letters = || {
        let filter = filter.clone();
        bounded(&db, move |db| async move { db.dead_letters(&filter).await })
    };
    let (now, task, hosts, brakes, first) = tokio::join!(now, task, hosts, brakes, letters());
    let (task, mut found) = (task?, first?.rows);
    let is_rejected = |task: &TaskRow| task.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Rejected);
    if found.is_empty() && task.as_ref().is_some_and(is_rejected) {
        // Its letter was recorded between the two readings.
        found = letters().await?.rows;
    }
    Ok((Recorded { task, letters: found, hosts: hosts?, brakes: brakes? }, now?))
}

async fn bounded<T, A>(db: &Arc<dyn Db>, ask: impl FnOnce(Arc<dyn Db>) -> A) -> Result<T, DatabaseError>
where
    T: Send + 'static,
    A: Future<Output = Result<T, DbError>> + Send + 'static,
{
    match tokio::time::timeout(DATABASE, tokio::spawn(ask(db.clone()))).await {
        Ok(Ok(answer)) => Ok(answer?),
        Ok(Err(error)) => Err(DatabaseError::Away(error.to_string())),
        Err(_) => Err(DatabaseError::Away(format!("no response within {} s", DATABASE.as_secs_f32()))),
    }
}

async fn queues(
    broker: Option<Arc<dyn Broker>>,
    names: Vec<String>,
    end: Instant,
    away: Option<String>,
) -> Vec<QueueLook> {
    let Some(broker) = broker else {
        let why = away.unwrap_or_default();
        let unknown =
            |queue| QueueLook { queue, tasks: Err(QueueError::Away(why.clone())), returned: None, dead: None };
        return names.into_iter().map(unknown).collect();
    };
    join_all(names.into_iter().map(|queue| queue_look(broker.clone(), queue, end))).await
}

async fn queue_look(broker: Arc<dyn Broker>, queue: String, end: Instant) -> QueueLook {
    let name: Arc<str> = queue.as_str().into();
    let (tasks, returned, dead) = tokio::join!(
        count(&broker, Source::Tasks(name.clone()), end),
        count(&broker, Source::Returned(name.clone()), end),
        count(&broker, Source::Dead(name), end)
    );
    let ready = |counted: Result<QueueFacts, QueueError>| counted.ok().map(|facts| facts.ready);
    QueueLook { queue, tasks, returned: ready(returned), dead: ready(dead) }
}

async fn count(broker: &Arc<dyn Broker>, source: Source, end: Instant) -> Result<QueueFacts, QueueError> {
    let broker = broker.clone();
    // On a task of its own: a question to the broker is never dropped half-way.
    let asked = tokio::spawn(async move { broker.facts(source).await });
    match tokio::time::timeout_at(end, asked).await {
        Ok(Ok(Ok(facts))) => Ok(facts),
        Ok(Ok(Err(BrokerError::Unavailable(why)))) => Err(QueueError::Away(why)),
        Ok(Ok(Err(BrokerError::Refused(why)))) => Err(QueueError::Refused(why)),
        Ok(Err(error)) => Err(QueueError::Away(error.to_string())),
        Err(_) => Err(QueueError::Away(format!("no response within {} s", PATIENCE.as_secs()))),
    }
}
