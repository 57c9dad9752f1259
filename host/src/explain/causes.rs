//! From facts to causes. Pure.

use super::{Cause, Explanation, Facts, QueueError, QueueLook, Recorded};
use crate::db::{DeadRow, HostRow, TaskRow};
use crate::task::{PluginRef, State, WaitCode};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// After so many sixths of a lease without a renewal an owner is called silent: it renews every sixth.
const MISSED: i32 = 3;
const SIXTHS: i32 = 6;
/// How long a task may be with a host that has not begun it before this is worth a remedy.
const HELD: TimeDelta = TimeDelta::seconds(10);

/// What follows from the facts.
pub fn explain(facts: &Facts) -> Explanation {
    let mut causes = Vec::new();
    let (mut state, mut since) = (None, None);
    match &facts.database {
        Err(why) => {
            causes.push(Cause::new("database_away", format!("the database does not answer: {why}")).remedy(
                "check the server and database.url; until it answers, no task begins and no result is recorded",
            ));
            causes.extend(broker(facts));
            causes.extend(facts.queues.iter().filter_map(|look| unconsumed(look, facts)));
        }
        Ok(recorded) => match &recorded.task {
            None => causes.extend(unrecorded(facts, recorded)),
            Some(task) => {
                state = Some(task.state);
                since = task.waiting_for.as_ref().map(|waiting| waiting.since);
                since = since.or(if task.state.is_terminal() { task.finished_at } else { task.started_at });
                let letters = recorded.letters.first();
                match task.state {
                    State::Running => causes.extend(running(facts, recorded, task)),
                    state if state.is_terminal() => causes.push(ended(task, letters)),
                    _ => causes.extend(waiting(facts, recorded, task)),
                }
            }
        },
    }
    let named: Vec<&str> = causes.iter().map(|cause| cause.code).collect();
    // What the daemon says against itself is a cause only of what has not ended, and only where nothing above says the same.
    if state.is_none_or(|state| !state.is_terminal()) {
        let said = |code: &str| match code {
            "database" => named.contains(&"database_away"),
            "broker" => named.contains(&"broker_away"),
            _ => false,
        };
        let against: Vec<Cause> = facts
            .reasons
            .iter()
            .filter(|(code, _)| !said(code))
            .map(|(code, message)| {
                Cause::new("host_not_ready", format!("the daemon that answers is not ready: {message}"))
                    .remedy("see /readyz and the daemon's log")
                    .detail(json!({"code": code}))
            })
            .collect();
        causes.extend(against);
    }
    Explanation { id: facts.id, state, since, at: facts.now, summary: summary(&causes), causes, facts: shown(facts) }
}

fn summary(causes: &[Cause]) -> String {
    let Some(first) = causes.first() else { return String::new() };
    match &first.remedy {
        Some(remedy) => format!("{}: {remedy}", first.message),
        None => first.message.clone(),
    }
}

/// A task without a row.
fn unrecorded(facts: &Facts, recorded: &Recorded) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(letter) = recorded.letters.first() {
        causes.push(dead_letter(letter));
        return causes;
    }
    causes.extend(broker(facts));
    let stuck: Vec<Cause> = facts.queues.iter().filter_map(|look| unconsumed(look, facts)).collect();
    let waits: u32 = facts.queues.iter().filter_map(|look| look.tasks.as_ref().ok()).map(|facts| facts.ready).sum();
    causes.extend(stuck);
    let none = "there is no record of this task: one that came over AMQP has none until a host has claimed it";
    causes.push(if waits > 0 {
        Cause::new("no_record", format!("{none}, and {}", messages(waits)))
            .remedy("if its id is right, it is one of these messages")
            .detail(json!({"ready": waits}))
    } else {
        Cause::new("no_record", format!("{none}, and no message waits in the queues that were asked")).remedy(
            "check the id, and that its producer published to this broker and virtual host, to the exchange of \
                     broker.prefix, with confirms and `mandatory`; or it was pruned (retention.*)",
        )
    });
    causes
}

fn messages(ready: u32) -> String {
    if ready == 1 { "1 message waits in its queue".into() } else { format!("{ready} messages wait in the queues") }
}

fn dead_letter(letter: &DeadRow) -> Cause {
    let cause = Cause::new(
        "dead_letter",
        format!("its message could not be used and is a dead letter: {}: {}", letter.reason, letter.detail),
    )
    .since(letter.at)
    .detail(
        json!({"letter": letter.id, "reason": letter.reason, "queue": letter.queue, "redriven_as": letter.redriven_as}),
    );
    match letter.redriven_as {
        Some(id) => cause.remedy(format!("it was delivered again as task {id}: ask about that")),
        None => cause.remedy(format!(
            "correct the producer and publish it again, or `agentry dead redrive {}` once the cause is gone",
            letter.id
        )),
    }
}

fn ended(task: &TaskRow, letter: Option<&DeadRow>) -> Cause {
    let cause = match (task.state, &task.failure) {
        (State::Completed, _) => Cause::new("completed", "it has completed"),
        (State::Cancelled, _) => Cause::new("cancelled", "it was cancelled"),
        (_, Some(failure)) => {
            let cause = Cause::new("failed", format!("it has failed: {}: {}", failure.kind, failure.message))
                .detail(json!({"kind": failure.kind, "detail": failure.detail}));
            match letter {
                Some(letter) if letter.redriven_as.is_none() => cause.remedy(format!(
                    "correct the producer and publish it again, or `agentry dead redrive {}` once the cause is gone",
                    letter.id
                )),
                Some(letter) => match letter.redriven_as {
                    Some(id) => cause.remedy(format!("it was delivered again as task {id}: ask about that")),
                    None => cause,
                },
                None => cause.remedy(format!(
                    "host/docs/failures.md has the remedy for {}; then `agentry task retry {}`",
                    failure.kind, task.id
                )),
            }
        }
        (_, None) => Cause::new("failed", "it has failed"),
    };
    cause.since(task.finished_at)
}

fn running(facts: &Facts, recorded: &Recorded, task: &TaskRow) -> Vec<Cause> {
    let owner = task.host.and_then(|id| recorded.hosts.iter().find(|host| host.record.id == id));
    let started = task.started_at;
    let since = started.map(|at| format!(" for {}", seconds(facts.now - at))).unwrap_or_default();
    let of = format!("attempt {} of {}", task.attempt, task.max_attempts);
    let Some(owner) = owner else {
        return vec![
            Cause::new(
                "owner_lost",
                format!("it runs{since} ({of}), and the host that claimed it is not known any more"),
            )
            .since(started)
            .remedy(
                "another host takes it over within seconds; if none does, check that one is alive: `agentry host list`",
            ),
        ];
    };
    let name = &owner.record.name;
    let detail = json!({"host": owner.record.id, "renewed_at": owner.renewed_at, "lease_until": owner.lease_until});
    let silent = facts.now - owner.renewed_at;
    let lease = owner.lease_until - owner.renewed_at;
    if !owner.alive {
        return vec![
            Cause::new(
                "owner_lost",
                format!("its host {name} has not renewed its lease for {} and is taken for dead", seconds(silent)),
            )
            .since(owner.lease_until)
            .remedy(
                "a live host takes it over within seconds; if none does, check that one is alive: `agentry host list`",
            )
            .detail(detail),
        ];
    }
    if silent > lease / SIXTHS * MISSED {
        let left = owner.lease_until - facts.now;
        return vec![
            Cause::new(
                "owner_silent",
                format!(
                    "its host {name} has not renewed its lease for {}; if it is dead, another takes over in about {}",
                    seconds(silent),
                    seconds(left)
                ),
            )
            .since(owner.renewed_at)
            .until(owner.lease_until)
            .remedy("wait for the lease to end, or look at that host")
            .detail(detail),
        ];
    }
    vec![Cause::new("running", format!("it runs on {name}{since} ({of})")).since(started).detail(detail)]
}

/// A task that waits: what its row says, refined by what hosts and broker say.
fn waiting(facts: &Facts, recorded: &Recorded, task: &TaskRow) -> Vec<Cause> {
    let Some(waiting) = &task.waiting_for else {
        return vec![Cause::new("queued", format!("it is {}", task.state.as_str()))];
    };
    let cause = |message: String| {
        Cause::new(waiting.code.as_str(), message)
            .since(waiting.since)
            .until(waiting.until)
            .detail(waiting.detail.clone())
    };
    let until = waiting.until.map(|until| in_time(facts.now, until)).unwrap_or_default();
    let alive = || recorded.hosts.iter().filter(|host| host.alive);
    let mut causes = match waiting.code {
        WaitCode::Scheduled => vec![cause(format!("it is to run {until}"))],
        WaitCode::Snoozed => vec![cause(format!("its plugin asked to run again {until}"))],
        WaitCode::Backoff => {
            let failure = task.failure.as_ref().map(|f| format!(" ({}: {})", f.kind, f.message)).unwrap_or_default();
            let of = format!("attempt {} of {}", task.attempt, task.max_attempts);
            vec![cause(format!("{of} failed{failure}, and the next begins {until}"))]
        }
        WaitCode::NotPublished => {
            let mut causes = broker(facts);
            if causes.is_empty() && alive().next().is_none() {
                causes.push(no_host(recorded, "it is committed, and no host is alive to hand it to the broker"));
            }
            let remedy = "see /readyz of the hosts: the reason `publishing` says what the broker refuses";
            causes.push(cause("it is committed, and not yet handed to the broker".into()).remedy(remedy));
            causes
        }
        WaitCode::Unroutable => {
            let queue = &task.queue;
            vec![
                cause(format!("the broker has no queue for {queue:?}"))
                    .remedy(format!("start a host with {queue:?} in broker.queues, or check who deleted it")),
            ]
        }
        WaitCode::NoPlugin => vec![
            cause(format!("no live host serves the plugin {}", task.plugin))
                .remedy("install the plugin on a host (plugins.dir), or correct the name; it fails after plugins.unknown_grace_seconds"),
        ],
        WaitCode::PluginBroken => {
            let why = waiting.detail["cause"].as_str().map(str::to_owned).or_else(|| broken(recorded, task));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            vec![
                cause(format!("the plugin {} failed to load{why}", task.plugin))
                    .remedy("repair the plugin: the host loads it again when its files change; it fails after plugins.unknown_grace_seconds"),
            ]
        }
        WaitCode::Paused => vec![
            cause(format!("the plugin {} is turned off", task.plugin))
                .remedy("set enabled = true in [plugins.\"NAME\"] of a host's settings and restart it"),
        ],
        WaitCode::NoSlot => vec![
            cause(format!("the plugin {} is at its concurrency, or guests compute for too long", task.plugin))
                .remedy("raise `concurrency` in plugin.toml or worker.computing, or add a host"),
        ],
        WaitCode::Isolation => vec![
            cause("it was inside a guest when its host died, and waits for a free place in the isolation lane".into())
                .remedy("it runs when a task of the lane ends"),
        ],
        WaitCode::Queued | WaitCode::Held | WaitCode::NoConsumer => queued(facts, recorded, task, cause("".into())),
    };
    // Nothing that the row says matters as long as no host is alive to act on it.
    if alive().next().is_none() && causes.iter().all(|cause| !matches!(cause.code, "no_host" | "no_consumer")) {
        causes.insert(0, no_host(recorded, "no host is alive"));
    }
    causes
}

/// A task in its queue: nothing consumes it, or it is behind others, or a host has it in hand.
fn queued(facts: &Facts, recorded: &Recorded, task: &TaskRow, row: Cause) -> Vec<Cause> {
    let mut causes = broker(facts);
    let look = facts.queues.iter().find(|look| look.queue == task.queue);
    causes.extend(look.and_then(|look| unconsumed(look, facts)));
    let hosts: Vec<&HostRow> =
        recorded.hosts.iter().filter(|host| host.alive && host.record.queues.contains(&task.queue)).collect();
    if let Some(why) = unserved(recorded, task) {
        causes.push(why);
    }
    if !causes.is_empty() {
        return causes;
    }
    let Some(Ok(counted)) = look.map(|look| &look.tasks) else {
        return vec![Cause { message: "it is in its queue, or with a host that has not begun it".into(), ..row }];
    };
    if hosts.is_empty() {
        return vec![
            Cause {
                code: "unknown_consumer",
                message: format!(
                    "the queue {:?} has {} consumers, and none is a live host of this database",
                    task.queue, counted.consumers
                ),
                ..row
            }
            .remedy(
                "find them in RabbitMQ's list of consumers and stop what does not belong there: it takes tasks away",
            )
            .detail(json!({"consumers": counted.consumers})),
        ];
    }
    let (slots, busy) =
        hosts.iter().fold((0, 0), |(slots, busy), host| (slots + host.record.slots, busy + host.record.busy));
    let detail = json!({"ready": counted.ready, "consumers": counted.consumers, "hosts": hosts.len(), "slots": slots, "busy": busy});
    if counted.ready == 0 {
        let held = Cause {
            code: WaitCode::Held.as_str(),
            message: "its message is with a host that has not begun it, or on its way there".into(),
            ..row
        }
        .detail(detail);
        let long = held.since.is_some_and(|since| facts.now - since > HELD);
        return vec![if long {
            held.remedy("see which host is not ready: `agentry host list`, /readyz of each")
        } else {
            held
        }];
    }
    let behind = match counted.ready {
        1 => "it is in its queue and next".to_owned(),
        ready => format!("it is in its queue, behind up to {} others", ready - 1),
    };
    let full = busy >= slots;
    let taken = if full { format!(", and all {slots} slots of its hosts are in use") } else { String::new() };
    let cause = Cause { message: format!("{behind}{taken}"), ..row }.detail(detail);
    vec![if full { cause.remedy("add a host, or raise worker.slots") } else { cause }]
}

/// Why the broker hands nothing over or takes nothing.
fn broker(facts: &Facts) -> Vec<Cause> {
    if let Some(why) = &facts.broker {
        let remedy = match facts.embedded {
            true => "start the daemon: its queue is embedded (`agentry up`)",
            false => "check the server, broker.url and the network; hosts connect again by themselves",
        };
        return vec![Cause::new("broker_away", format!("the broker does not answer: {why}")).remedy(remedy)];
    }
    let blocked = facts.refusal.as_ref().map(|why| {
        Cause::new("broker_blocked", format!("the broker accepts no messages: {why}"))
            .remedy("free memory or disk on the broker (`rabbitmqctl list_alarms`), or raise its limits; tasks wait in the database meanwhile")
    });
    blocked.into_iter().collect()
}

/// A queue that is missing, or that nothing consumes.
fn unconsumed(look: &QueueLook, facts: &Facts) -> Option<Cause> {
    let queue = &look.queue;
    match &look.tasks {
        Err(QueueError::Away(_)) => None,
        Err(QueueError::Refused(why)) => Some(
            Cause::new("no_queue", format!("the broker has no queue {queue:?} that a host could consume: {why}"))
                .remedy(format!("start a host with {queue:?} in broker.queues"))
                .detail(json!({"queue": queue})),
        ),
        Ok(counted) if counted.consumers > 0 => None,
        Ok(counted) => {
            let waits =
                if counted.ready == 1 { "1 message waits".into() } else { format!("{} messages wait", counted.ready) };
            let alive = facts.database.as_ref().map(|recorded| recorded.hosts.iter().filter(|host| host.alive).count());
            let remedy = match alive {
                Ok(0) => format!("start a host with {queue:?} in broker.queues (`agentry up`)"),
                _ => format!("start a host with {queue:?} in broker.queues, or see /readyz of those that have it"),
            };
            Some(
                Cause::new(
                    WaitCode::NoConsumer.as_str(),
                    format!("nothing consumes the queue {queue:?}: {waits} there"),
                )
                .remedy(remedy)
                .detail(json!({"queue": queue, "ready": counted.ready, "consumers": 0})),
            )
        }
    }
}

fn no_host(recorded: &Recorded, message: &str) -> Cause {
    let last = recorded.hosts.iter().max_by_key(|host| host.lease_until);
    let cause = Cause::new("no_host", message).remedy("start a daemon: `agentry up`");
    match last {
        Some(host) => Cause { message: format!("{message}; the last, {}, ended", host.record.name), ..cause }
            .since(host.lease_until),
        None => cause,
    }
}

/// A live host serves the task's queue, and none of them its plugin.
fn unserved(recorded: &Recorded, task: &TaskRow) -> Option<Cause> {
    let wanted: PluginRef = task.plugin.parse().ok()?;
    let alive = || recorded.hosts.iter().filter(|host| host.alive);
    alive().next()?;
    let serves = |plugin: &String| {
        plugin.split_once('@').is_some_and(|(name, version)| {
            *name == *wanted.name && version.parse().is_ok_and(|version| wanted.requirement.matches(&version))
        })
    };
    if alive().any(|host| host.record.plugins.iter().any(serves)) {
        return None;
    }
    let (code, message) = match broken(recorded, task) {
        Some(why) => (WaitCode::PluginBroken, format!("the plugin {} failed to load: {why}", task.plugin)),
        None => (WaitCode::NoPlugin, format!("no live host serves the plugin {}", task.plugin)),
    };
    Some(Cause::new(code.as_str(), message).remedy("install or repair the plugin on a host (plugins.dir)"))
}

/// Why a live host failed to load the task's plugin.
fn broken(recorded: &Recorded, task: &TaskRow) -> Option<String> {
    let name = task.plugin.split('@').next().unwrap_or_default();
    let alive = recorded.hosts.iter().filter(|host| host.alive);
    alive.flat_map(|host| &host.record.broken_plugins).find_map(|line| {
        let (broken, cause) = line.split_once(": ")?;
        (broken.split('@').next() == Some(name)).then(|| cause.to_owned())
    })
}

/// The facts for programs, and for a person who doubts the sentence.
fn shown(facts: &Facts) -> Value {
    let queues: Vec<Value> = facts
        .queues
        .iter()
        .map(|look| {
            let error = match &look.tasks {
                Ok(_) => None,
                Err(QueueError::Away(why) | QueueError::Refused(why)) => Some(why),
            };
            let tasks = look.tasks.as_ref().ok();
            json!({
                "queue": look.queue, "ready": tasks.map(|t| t.ready), "consumers": tasks.map(|t| t.consumers),
                "returned": look.returned, "dead": look.dead, "error": error,
            })
        })
        .collect();
    let recorded = facts.database.as_ref().ok();
    let hosts: Vec<Value> = recorded
        .map(|recorded| recorded.hosts.as_slice())
        .unwrap_or_default()
        .iter()
        .filter(|host| host.alive)
        .map(|host| {
            let HostRow { record, renewed_at, lease_until, .. } = host;
            json!({
                "host": record.id, "name": record.name, "build": record.build, "queues": record.queues, "busy": record.busy,
                "slots": record.slots, "renewed_at": renewed_at, "lease_until": lease_until,
            })
        })
        .collect();
    json!({
        "database": facts.database.as_ref().err(),
        "broker": facts.broker.as_ref().or(facts.refusal.as_ref()),
        "queues": queues,
        "hosts": hosts,
    })
}

fn seconds(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn in_time(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    if then <= now { "now".into() } else { format!("in {}", seconds(then - now)) }
}
