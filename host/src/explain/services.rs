//! Causes that lie with the broker, a queue or the hosts, whatever task is asked about. And the facts as JSON.

use super::{Cause, DatabaseError, Facts, QueueError, QueueLook, Recorded};
use crate::db::HostRow;
use crate::task::WaitCode;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// The database says nothing.
pub(super) fn database(error: &DatabaseError, facts: &Facts) -> Cause {
    // The daemon's own words hold the reason where a time-out here has none.
    let of_daemon = facts.daemon.as_ref().and_then(|daemon| daemon.reasons.iter().find(|(code, _)| code == "database"));
    match error {
        DatabaseError::Away(why) => {
            let why = of_daemon.map_or(why, |(_, message)| message);
            Cause::new("database_away", format!("the database does not respond ({why})")).remedy(
                "check its server and database.url; until it responds, no task is claimed and results are kept by their hosts",
            )
        }
        DatabaseError::Schema(why) => {
            Cause::new("database_schema", why.clone()).remedy("ask with the build of the daemons, or `agentry migrate`")
        }
        DatabaseError::Refused(why) => Cause::new("database_refused", format!("the database refuses ({why})"))
            .remedy("check database.url, data.dir and --config: they must be those of the daemon"),
    }
}

/// The broker does not respond.
pub(super) fn broker(facts: &Facts) -> Option<Cause> {
    let why = facts.broker.as_ref()?;
    if facts.embedded {
        let message = "the queue is embedded in a daemon that does not respond at the address of --server";
        let remedy = "start the daemon (`agentry up`), or name its address with --server";
        return Some(Cause::new("broker_away", message).remedy(remedy));
    }
    let message = format!("the broker does not respond ({why})");
    Some(Cause::new("broker_away", message).remedy("check its server and broker.url; hosts reconnect by themselves"))
}

/// The broker accepts no messages.
pub(super) fn blocked(facts: &Facts) -> Option<Cause> {
    let why = facts.refusal.as_ref()?;
    Some(Cause::new("broker_blocked", format!("the broker accepts no messages ({why})")).remedy(
        "free memory or disk on the broker (`rabbitmqctl list_alarms`), or raise its limits; tasks wait in the database meanwhile",
    ))
}

/// A queue that is missing, or that nothing consumes.
pub(super) fn unconsumed(look: &QueueLook, facts: &Facts) -> Option<Cause> {
    let queue = &look.queue;
    let recorded = facts.database.as_ref().ok();
    let host = recorded.and_then(|recorded| recorded.consuming(queue).next());
    let start = format!("start a host with {queue:?} in broker.queues");
    let other = |host: &HostRow| {
        format!(
            "{} should consume it; compare its broker.url, virtual host and broker.prefix with these settings, and see its /readyz",
            host.record.name
        )
    };
    match &look.tasks {
        Err(QueueError::Away(_)) => None,
        Err(QueueError::Refused(why)) => {
            let missing = why.contains("does not exist") && !why.contains("down");
            let (code, message) = match missing {
                true => ("no_queue", format!("the broker has no queue {queue:?}")),
                false => ("queue_refused", format!("the broker does not give access to the queue {queue:?}")),
            };
            let remedy = match (missing, host) {
                (_, Some(host)) => other(host),
                (true, None) => start,
                (false, None) => "see the broker's log".into(),
            };
            Some(Cause::new(code, message).remedy(remedy).detail(json!({"queue": queue, "reason": why})))
        }
        Ok(counted) if counted.consumers > 0 => None,
        Ok(counted) => {
            let waits = match counted.ready {
                1 => "1 message waits".to_owned(),
                ready => format!("{ready} messages wait"),
            };
            let message = format!("nothing consumes the queue {queue:?}, where {waits}");
            let remedy = host.map_or_else(|| format!("{start} (`agentry up`)"), other);
            let detail = json!({"queue": queue, "ready": counted.ready, "consumers": 0});
            Some(Cause::new(WaitCode::NoConsumer.as_str(), message).remedy(remedy).detail(detail))
        }
    }
}

/// Causes of every queue, whatever task is asked about: nothing consumes it, or consumers that are not known.
pub fn of_queues(facts: &Facts) -> Vec<Cause> {
    let recorded = facts.database.as_ref().ok();
    let of = |look| [unbraked(look, facts), recorded.and_then(|recorded| strangers(look, recorded))];
    facts.queues.iter().flat_map(of).flatten().collect()
}

/// The queues in which messages wait and that nothing consumes, each with its cause.
pub fn unconsumed_queues(facts: &Facts) -> Vec<(String, Cause)> {
    let waits = |look: &&QueueLook| look.tasks.as_ref().is_ok_and(|counted| counted.ready > 0);
    let looks = facts.queues.iter().filter(waits);
    looks.filter_map(|look| Some((look.queue.clone(), unbraked(look, facts)?))).collect()
}

/// That nothing consumes a queue, unless an operator wants it.
fn unbraked(look: &QueueLook, facts: &Facts) -> Option<Cause> {
    let recorded = facts.database.as_ref().ok();
    let brake = recorded.and_then(|recorded| super::brakes::of_queue(facts, recorded, &look.queue));
    if brake.is_some() { None } else { unconsumed(look, facts) }
}

/// A queue whose consumers are no live host of this database; `None` if one of them is.
pub(super) fn strangers(look: &QueueLook, recorded: &Recorded) -> Option<Cause> {
    let counted = look.tasks.as_ref().ok().filter(|counted| counted.consumers > 0)?;
    if recorded.consuming(&look.queue).next().is_some() {
        return None;
    }
    let message = format!(
        "the queue {:?} has {} consumers, and no live host of this database consumes it",
        look.queue, counted.consumers
    );
    let remedy = "compare `rabbitmqctl list_consumers` with `agentry host list`: a daemon with another database.url consumes the \
                  tasks, or a program that does not belong there";
    let detail = json!({"queue": look.queue, "consumers": counted.consumers});
    Some(Cause::new("unknown_consumer", message).remedy(remedy).detail(detail))
}

/// No host has a valid lease; `None` if one has.
pub(super) fn no_host(facts: &Facts, recorded: &Recorded) -> Option<Cause> {
    if recorded.alive().next().is_some() {
        return None;
    }
    let last = recorded.hosts.iter().max_by_key(|host| host.lease_until);
    let since = last.map(|host| host.lease_until);
    let ended = match last {
        Some(host) => {
            format!("the lease of the last, {}, ended {} ago", host.record.name, span(facts.now - host.lease_until))
        }
        None => "none was ever registered".to_owned(),
    };
    // A daemon that responds waits for its broker, or could not renew while the database was away.
    let remedy = match &facts.daemon {
        Some(_) => "the daemon that responds renews its lease within seconds, once /readyz has no reason against it",
        None => "start a daemon (`agentry up`)",
    };
    Some(Cause::new("no_host", format!("no host has a valid lease; {ended}")).since(since).remedy(remedy))
}

/// The reasons of the daemon that responds, unless a cause says the same.
pub(super) fn reasons(facts: &Facts, causes: &[Cause]) -> Vec<Cause> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let named = |codes: &[&str]| causes.iter().any(|cause| codes.contains(&cause.code));
    let is_said = |code: &str| match code {
        "database" => named(&["database_away"]),
        "broker" => named(&["broker_away"]),
        "publishing" => named(&["broker_blocked", "broker_away"]),
        "paused" => named(&["paused"]),
        "drained" => named(&["drained"]),
        _ => false,
    };
    let code = if daemon.ready { "host_trouble" } else { "host_not_ready" };
    let state = if daemon.ready { "reports" } else { "is not ready, and reports" };
    let reasons = daemon.reasons.iter().filter(|(reason, _)| !is_said(reason));
    let cause = |(reason, message): &(String, String)| {
        Cause::new(code, format!("the daemon that responds {state} {reason:?} ({message})"))
            .remedy("see /readyz and the daemon's log")
            .detail(json!({"reason": reason}))
    };
    reasons.map(cause).collect()
}

/// The facts for programs, and for a person who doubts the sentence.
pub(super) fn shown(facts: &Facts) -> Value {
    let queue = |look: &QueueLook| {
        let error = match &look.tasks {
            Ok(_) => None,
            Err(QueueError::Away(why) | QueueError::Refused(why)) => Some(why),
        };
        let tasks = look.tasks.as_ref().ok();
        json!({
            "queue": look.queue, "ready": tasks.map(|t| t.ready), "consumers": tasks.map(|t| t.consumers),
            "returned": look.returned, "dead": look.dead, "error": error,
        })
    };
    let host = |host: &HostRow| {
        let HostRow { record, renewed_at, lease_until, .. } = host;
        json!({
            "id": record.id, "name": record.name, "build": record.build, "queues": record.queues, "busy": record.busy,
            "slots": record.slots, "renewed_at": renewed_at, "lease_until": lease_until,
        })
    };
    let recorded = facts.database.as_ref().ok();
    let hosts: Vec<Value> = recorded.into_iter().flat_map(Recorded::alive).map(host).collect();
    let database = facts.database.as_ref().err().map(|error| match error {
        DatabaseError::Away(why) | DatabaseError::Schema(why) | DatabaseError::Refused(why) => why,
    });
    json!({
        "database": database,
        "broker": facts.broker.as_ref().or(facts.refusal.as_ref()),
        "place": facts.place,
        "queues": facts.queues.iter().map(queue).collect::<Vec<_>>(),
        "hosts": hosts,
        "brakes": recorded.map(|recorded| &recorded.brakes.held),
    })
}

/// A time span for a person.
pub fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time ahead for a person.
pub(super) fn ahead(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    if then <= now { "now".into() } else { format!("in {}", span(then - now)) }
}
