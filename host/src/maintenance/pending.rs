//! The look at what waits: a sample of tasks, outbox and queues for the metrics, and a warning when something waits too long.
//!
//! Each host takes its own sample, which is bounded ([`WaitingLook`]) and reads no task twice. Of the hosts of one build, the first by id
//! warns: once for each queue and reason, however many tasks there are, with the sentence that `explain` says of the task that has
//! waited longest. Tasks that wait for a time of their own are not looked at.

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;

use super::Parts;
use crate::db::{DbError, HostRow, WaitingLook, WaitingNow, WaitingTask};
use crate::explain::{self, Cause, Facts, Places, QueueError};
use crate::metrics::{QUEUES, QueueLevels, Sampled, WaitingTasks};
use crate::task::{HostId, TaskId, WaitCode};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often is looked, at most and at least.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The time after which the same is said again while it lasts.
const AGAIN: Duration = Duration::from_secs(600);
/// Warnings of one look: each asks database and broker. The others follow in the next.
const WARNINGS: usize = 8;
/// How long a queue of another host is not asked about that is missing: each question is an error in the broker's log.
const MISSING: Duration = Duration::from_secs(600);

/// What the look is given.
#[derive(Clone)]
pub struct PendingConfig {
    /// This host.
    pub host: HostId,
    /// `log.warn_pending_after_seconds`; zero: no warnings.
    pub warn_after: Duration,
    /// Where `explain` looks.
    pub places: Arc<dyn Fn() -> Places + Send + Sync>,
}

/// A queue and what its tasks wait for.
type Key = (String, WaitCode);

/// Tasks of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    tasks: u64,
    overdue: u64,
    oldest: TaskId,
    since: DateTime<Utc>,
}

/// Look until told to end.
pub async fn run(parts: Parts, config: PendingConfig, closing: CancellationToken) {
    let mut said = Said::default();
    let mut trouble = false;
    let pause = match config.warn_after {
        Duration::ZERO => LOOKS.1,
        after => (after / 4).clamp(LOOKS.0, LOOKS.1),
    };
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let looked = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            looked = look(&parts, &config, &mut said) => looked,
        };
        match looked {
            Ok(()) => trouble = false,
            Err(error) => {
                parts.metrics.sampled(None);
                if !trouble {
                    tracing::warn!(duty = "pending", %error, "failed to look for waiting tasks; retrying");
                }
                trouble = true;
            }
        }
    }
}

async fn look(parts: &Parts, config: &PendingConfig, said: &mut Said) -> Result<(), DbError> {
    // On tasks of their own: an operation of the database is not cancelled in flight.
    let db = parts.db.clone();
    let found = tokio::spawn(async move { db.waiting(WaitingLook::default()).await }).await;
    let db = parts.db.clone();
    let hosts = tokio::spawn(async move { db.hosts().await }).await;
    let broken = |error: tokio::task::JoinError| DbError::Defect(error.to_string());
    let (found, hosts) = (found.map_err(broken)??, hosts.map_err(broken)??);
    let groups = groups(&found, config.warn_after);
    // Without a task: what `explain` finds of the queues.
    let mut places = (config.places)();
    let (own, now) = (places.queues.clone(), Instant::now());
    places.queues = queues(&own, &hosts);
    places.queues.retain(|queue| own.contains(queue) || !said.is_missing(queue, now));
    let facts = explain::look(TaskId::nil(), places).await;
    for look in facts.queues.iter().filter(|look| matches!(look.tasks, Err(QueueError::Refused(_)))) {
        said.missing.insert(look.queue.clone(), now);
    }
    parts.metrics.sampled(Some(sample(&found, &groups, &facts)));
    if config.warn_after.is_zero() || !is_first(config.host, &hosts) {
        return Ok(());
    }
    let overdue: Vec<(&Key, &Group)> = groups.iter().filter(|(_, group)| group.overdue > 0).collect();
    let due: Vec<&(&Key, &Group)> =
        overdue.iter().filter(|(key, _)| said.is_due(&Subject::Tasks((*key).clone()), now)).take(WARNINGS).collect();
    for (key, group) in due {
        warn(parts, config, key, group, found.now).await;
        said.say(Subject::Tasks((*key).clone()), now);
    }
    // The warning about tasks of such a queue has the same sentence.
    let told = |queue: &str| overdue.iter().any(|((of, code), _)| of == queue && *code == WaitCode::Queued);
    let mut unconsumed = explain::unconsumed_queues(&facts);
    unconsumed.retain(|(queue, _)| !told(queue));
    for (queue, cause) in &unconsumed {
        let subject = Subject::Queue(queue.clone());
        if said.lasts(&subject, config.warn_after, now) && said.is_due(&subject, now) {
            warn_of_queue(parts, queue, cause);
            said.say(subject, now);
        }
    }
    let still = overdue.iter().map(|(key, _)| Subject::Tasks((*key).clone()));
    let still: BTreeSet<Subject> =
        still.chain(unconsumed.into_iter().map(|(queue, _)| Subject::Queue(queue))).collect();
    for subject in said.forget(&still) {
        let (queue, code) = subject.names();
        tracing::info!(queue, code, "nothing waits for long any more");
    }
    Ok(())
}

/// One line for all of them, with the sentence for the oldest.
async fn warn(parts: &Parts, config: &PendingConfig, (queue, code): &Key, group: &Group, now: DateTime<Utc>) {
    let explanation = explain::explain(&explain::look(group.oldest, (config.places)()).await);
    parts.metrics.warned(queue, *code);
    tracing::warn!(
        queue,
        code = code.as_str(),
        tasks = group.overdue,
        oldest = %group.oldest,
        waits_seconds = (now - group.since).num_seconds(),
        "tasks wait longer than log.warn_pending_after_seconds: {}",
        explanation.summary
    );
}

fn warn_of_queue(parts: &Parts, queue: &str, cause: &Cause) {
    parts.metrics.warned(queue, WaitCode::NoConsumer);
    let remedy = cause.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    tracing::warn!(
        queue,
        code = WaitCode::NoConsumer.as_str(),
        "messages wait longer than log.warn_pending_after_seconds: {}{remedy}",
        cause.message
    );
}

/// By queue and code. Nothing is overdue if `after` is zero.
fn groups(found: &WaitingNow, after: Duration) -> BTreeMap<Key, Group> {
    let after = TimeDelta::from_std(after).ok().filter(|after| !after.is_zero());
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for WaitingTask { id, queue, code, since } in &found.tasks {
        let group =
            groups.entry((queue.clone(), *code)).or_insert(Group { tasks: 0, overdue: 0, oldest: *id, since: *since });
        group.tasks += 1;
        group.overdue += u64::from(after.is_some_and(|after| found.now - *since >= after));
        if (*since, *id) < (group.since, group.oldest) {
            (group.oldest, group.since) = (*id, *since);
        }
    }
    groups
}

fn sample(found: &WaitingNow, groups: &BTreeMap<Key, Group>, facts: &Facts) -> Sampled {
    let since = |then: DateTime<Utc>| (found.now - then).to_std().unwrap_or_default();
    let waiting = groups.iter().map(|((queue, code), group)| WaitingTasks {
        queue: queue.clone(),
        code: *code,
        tasks: group.tasks,
        overdue: group.overdue,
        oldest: since(group.since),
    });
    let queues = facts.queues.iter().map(|look| QueueLevels {
        queue: look.queue.clone(),
        tasks: look.tasks.as_ref().ok().copied(),
        returned: look.returned,
        dead: look.dead,
    });
    Sampled {
        at: Some(SystemTime::now()),
        waiting: waiting.collect(),
        outbox: Some(found.outbox),
        relay_lag: found.outbox_due.map(since),
        queues: queues.collect(),
    }
}

/// The queues of this host, and those of every host of the last day: what waits in one that nothing consumes any more is told too.
fn queues(own: &[String], hosts: &[HostRow]) -> Vec<String> {
    let mut names: Vec<String> = own.to_vec();
    for queue in hosts.iter().flat_map(|host| &host.record.queues) {
        if names.len() < QUEUES && !names.contains(queue) {
            names.push(queue.clone());
        }
    }
    names
}

/// Whether this host warns: of the live hosts of its build the first by id. Those of an older build may not know how.
fn is_first(me: HostId, hosts: &[HostRow]) -> bool {
    let Some(own) = hosts.iter().find(|host| host.record.id == me && host.alive) else { return false };
    let of_build = hosts.iter().filter(|host| host.alive && host.record.build == own.record.build);
    of_build.map(|host| host.record.id).min() == Some(me)
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Tasks(Key),
    Queue(String),
}

impl Subject {
    fn names(&self) -> (&str, &'static str) {
        match self {
            Subject::Tasks((queue, code)) => (queue, code.as_str()),
            Subject::Queue(queue) => (queue, WaitCode::NoConsumer.as_str()),
        }
    }
}

/// What was said, and when.
#[derive(Default)]
struct Said {
    last: BTreeMap<Subject, Instant>,
    /// Since when it is so, of subjects that have no time of their own.
    since: BTreeMap<Subject, Instant>,
    /// Queues that the broker did not have, and when.
    missing: BTreeMap<String, Instant>,
}

impl Said {
    fn is_due(&self, subject: &Subject, now: Instant) -> bool {
        self.last.get(subject).is_none_or(|last| now.duration_since(*last) >= AGAIN)
    }

    fn say(&mut self, subject: Subject, now: Instant) {
        self.last.insert(subject, now);
    }

    fn is_missing(&self, queue: &str, now: Instant) -> bool {
        self.missing.get(queue).is_some_and(|then| now.duration_since(*then) < MISSING)
    }

    /// Whether it has been so at every look for that long.
    fn lasts(&mut self, subject: &Subject, after: Duration, now: Instant) -> bool {
        now.duration_since(*self.since.entry(subject.clone()).or_insert(now)) >= after
    }

    /// Forgets what is not so any more. Returns what had been said of it.
    fn forget(&mut self, still: &BTreeSet<Subject>) -> Vec<Subject> {
        self.since.retain(|subject, _| still.contains(subject));
        let over: Vec<Subject> = self.last.keys().filter(|subject| !still.contains(*subject)).cloned().collect();
        for subject in &over {
            self.last.remove(subject);
        }
        over
    }
}
