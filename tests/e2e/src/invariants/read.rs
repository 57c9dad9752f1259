//! The world as database and broker have it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::world::{Attempt, End, Ends, Event, Host, Row, World};
use crate::database::{Database, queued_in};
use crate::patience::patience;
use crate::site::{Mode, Site};

const TASKS: [&str; 2] = [
    "SELECT tasks.id::text, state, md5(output), extract(epoch FROM finished_at)::text, last_seq::text,
        CASE state WHEN 'failed' THEN failure END, max_attempts::text, burnt::text, attempt::text, host_losses::text,
        child_losses::text, fence::text, owner::text
    FROM agentry.tasks",
    "SELECT id, state, output, finished_at, CAST(last_seq AS TEXT),
        CASE state WHEN 'failed' THEN failure END, CAST(max_attempts AS TEXT), CAST(burnt AS TEXT),
        CAST(attempt AS TEXT), CAST(host_losses AS TEXT), CAST(child_losses AS TEXT), CAST(fence AS TEXT), owner
    FROM tasks",
];
const EVENTS: [&str; 2] = [
    "SELECT task_id::text, task_events.seq::text, event, attempt::text, fence::text, host::text
    FROM agentry.task_events ORDER BY task_events.task_id, task_events.seq",
    "SELECT task_id, CAST(seq AS TEXT), event, CAST(attempt AS TEXT), CAST(fence AS TEXT), host
    FROM task_events ORDER BY task_id, task_events.seq",
];
const ATTEMPTS: [&str; 2] = [
    "SELECT task_id::text, fence::text, host::text, ended FROM agentry.task_attempts",
    "SELECT task_id, CAST(fence AS TEXT), host, ended FROM task_attempts",
];
const HOSTS: [&str; 2] = [
    "SELECT id::text, name, (lease_until > clock_timestamp() AND NOT ended)::text FROM agentry.hosts",
    "SELECT id, name, CASE WHEN lease_until > strftime('%Y-%m-%dT%H:%M:%f', 'now') AND NOT ended THEN 'true' END
    FROM hosts",
];
/// The latest; enough to notice, and little enough to be read again and again.
const ENDS: [&str; 2] = [
    "SELECT tasks.id::text, state, md5(output), extract(epoch FROM finished_at)::text, last_seq::text
    FROM agentry.tasks WHERE state IN ('completed', 'failed', 'cancelled') ORDER BY tasks.id DESC LIMIT 5000",
    "SELECT id, state, output, finished_at, CAST(last_seq AS TEXT)
    FROM tasks WHERE state IN ('completed', 'failed', 'cancelled') ORDER BY tasks.id DESC LIMIT 5000",
];

/// How tasks have ended: some thousand of them, the latest.
pub async fn ends(database: &Database) -> Result<Ends, String> {
    let rows = database.rows(ENDS).await?;
    Ok(rows.into_iter().map(|row| (id(&row[0]), end(&row[1..]))).collect())
}

/// Waits until the outbox is empty, dead letters are published and the queue is empty, not for ever: what is left then is a violation. A message that was
/// published twice may still lie in the queue when its task has long ended, and goes back there when its consumer leaves.
pub async fn nothing_on_its_way(site: &Site, database: &Database) {
    soon(async || database.outbox().await, |left| *left == 0).await;
    soon(async || database.unpublished().await, |left| *left == 0).await;
    if site.mode == Mode::Services {
        let queue = site.queue("default");
        // A queue that is not there holds nothing; whoever needs it says so.
        let empty = |seen: &Result<(u32, u32), String>| seen.as_ref().is_ok_and(|(ready, _)| *ready == 0);
        let _ = soon(async || site.amqp().count(&queue).await, empty).await;
    }
}

/// Reads all there is. Every daemon has ended, so that nobody holds messages.
pub async fn world(site: &Site, database: &Database) -> World {
    let mut world = World { outbox: database.outbox().await, dead: database.dead_letters().await, ..World::default() };
    let read = async |statements| database.rows(statements).await.expect("the database answers");
    world.rows = read(TASKS).await.into_iter().map(|row| (id(&row[0]), task(&row))).collect();
    for row in read(EVENTS).await {
        let event = Event {
            seq: value(&row[1]),
            event: row[2].clone(),
            attempt: known(&row[3]),
            fence: known(&row[4]),
            host: known(&row[5]),
        };
        world.histories.entry(id(&row[0])).or_default().push(event);
    }
    for row in read(ATTEMPTS).await {
        let attempt = Attempt { fence: value(&row[1]), host: id(&row[2]), ended: row[3].clone() };
        world.attempts.entry(id(&row[0])).or_default().push(attempt);
    }
    let host = |row: Vec<String>| (id(&row[0]), Host { name: row[1].clone(), is_alive: row[2] == "true" });
    world.hosts = read(HOSTS).await.into_iter().map(host).collect();
    match site.mode {
        Mode::Services => broker(site, &mut world).await,
        Mode::Embedded => world.queues = queued_in(&site.data("data")).await,
    }
    world
}

async fn broker(site: &Site, world: &mut World) {
    for queue in ["default", "default.returned.v2", "default.returned"] {
        let name = site.queue(queue);
        if queue == "default.returned" && site.amqp().count(&name).await.is_err() {
            continue; // of an earlier build: a daemon that declares nothing does not need it
        }
        // The broker takes a moment to see that a consumer is gone, and to count what it held.
        let seen = soon(async || site.amqp().count(&name).await, |seen| *seen == Ok((0, 0))).await;
        world.queues.insert(queue.to_owned(), seen.map(|(ready, _)| ready));
    }
    let letters = site.amqp().take_all(&site.queue("default.dead")).await;
    world.wire = Some(letters.iter().map(|letter| letter.header("agentry-reason")).collect());
}

/// What is seen when it is `good`, or when patience ends.
async fn soon<T>(mut look: impl AsyncFnMut() -> T, good: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let seen = look().await;
        if good(&seen) || began.elapsed() > patience() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

fn task(row: &[String]) -> Row {
    let failure = serde_json::from_str::<Value>(&row[5]).unwrap_or_default();
    Row {
        end: end(&row[1..5]),
        failure: failure["kind"].as_str().unwrap_or_default().to_owned(),
        max_attempts: value(&row[6]),
        burnt: value(&row[7]),
        attempt: value(&row[8]),
        host_losses: value(&row[9]),
        child_losses: value(&row[10]),
        fence: value(&row[11]),
        owner: known(&row[12]),
    }
}

fn end(row: &[String]) -> End {
    let [state, output, finished_at, last_seq] = [0, 1, 2, 3].map(|column| row[column].clone());
    End { state, output, finished_at, last_seq: value(&last_seq) }
}

fn id(text: &str) -> Uuid {
    value(text)
}

fn value<T: FromStr<Err: Display>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Nothing where there is no value.
fn known<T: FromStr<Err: Display>>(text: &str) -> Option<T> {
    (!text.is_empty()).then(|| value(text))
}
