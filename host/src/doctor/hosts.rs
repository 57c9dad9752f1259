//! Hosts with their leases, and tasks that wait or run without one.

use super::database::{Opened, ask, or_skipped};
use super::{Check, count, span};
use crate::db::{HostRow, LetterFacts, RunningFacts, WaitingFacts};
use crate::explain::Facts;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::collections::BTreeSet;

/// The longest wait of a task that is not worth a word.
const WAIT: TimeDelta = TimeDelta::minutes(5);
/// The same of a dead letter that is recorded and not published.
const UNPUBLISHED: TimeDelta = TimeDelta::minutes(1);

pub(super) async fn checks(db: &Opened, survey: &Facts) -> Vec<Check> {
    let Opened::There(examined) = db else {
        return ["hosts", "tasks"].map(|name| Check::skipped(name, "there is no database")).into();
    };
    let recorded = match &survey.database {
        Ok(recorded) => recorded,
        Err(_) => {
            let reason = "the database does not respond, or its schema does not fit";
            return ["hosts", "tasks"].map(|name| Check::skipped(name, reason)).into();
        }
    };
    let (running, waiting, letters) = tokio::join!(
        ask(examined, |e| async move { e.running().await }),
        ask(examined, |e| async move { e.waiting().await }),
        ask(examined, |e| async move { e.letters().await }),
    );
    let hosts = hosts(&recorded.hosts, &running.unwrap_or_default(), survey.now);
    let tasks = or_skipped("tasks", waiting, |waiting| {
        or_skipped("tasks", letters, |letters| tasks(&waiting, letters, survey.now))
    });
    vec![hosts, tasks]
}

/// Leases, builds, plugins and running tasks of the hosts.
pub(super) fn hosts(hosts: &[HostRow], running: &[RunningFacts], now: DateTime<Utc>) -> Check {
    let of = |host: &HostRow| running.iter().find(|of| of.host == host.record.id).map_or(0, |of| of.tasks);
    let alive: Vec<&HostRow> = hosts.iter().filter(|host| host.alive).collect();
    let listed: Vec<_> = hosts
        .iter()
        .map(|host| {
            json!({
                "id": host.record.id, "name": host.record.name, "build": host.record.build, "alive": host.alive,
                "renewed_at": host.renewed_at, "lease_until": host.lease_until, "queues": host.record.queues,
                "busy": host.record.busy, "slots": host.record.slots, "running": of(host),
                "settings_digest": host.record.settings_digest,
            })
        })
        .collect();
    let builds: BTreeSet<&str> = alive.iter().map(|host| host.record.build.as_str()).collect();
    let live = i64::try_from(alive.len()).unwrap_or(i64::MAX);
    let summary = match alive.iter().map(|host| host.renewed_at).max() {
        Some(renewed) => {
            format!("{} with a lease, last renewed {} ago", count(live, "host", "hosts"), span(now - renewed))
        }
        None => "no host has a lease".to_owned(),
    };
    let mut check = Check::new("hosts", summary).with(json!({"hosts": listed, "builds": builds}));
    let last = hosts.iter().max_by_key(|host| host.lease_until);
    match (alive.is_empty(), last) {
        (true, None) => check.warn("no host was registered within the last day", "start a daemon (`agentry up`)"),
        (true, Some(last)) => check.warn(
            format!(
                "no host has a valid lease; that of {} ended {} ago",
                last.record.name,
                span(now - last.lease_until)
            ),
            "start a daemon (`agentry up`)",
        ),
        (false, _) => {}
    }
    if builds.len() > 1 {
        let builds: Vec<&str> = builds.into_iter().collect();
        check.warn(
            format!("live hosts have different builds: {}", builds.join(", ")),
            "finish the rollout; an older build leaves what it does not know to newer ones",
        );
    }
    for host in &alive {
        for broken in &host.record.broken_plugins {
            check.warn(
                format!("{} cannot load a plugin: {broken}", host.record.name),
                "correct the plugin as the message says; the host loads it again by itself",
            );
        }
    }
    for of in running.iter().filter(|of| alive.iter().all(|host| host.record.id != of.host)) {
        let former = hosts.iter().find(|host| host.record.id == of.host);
        let name = former
            .map_or_else(|| format!("a host that is not known any more ({})", of.host), |h| h.record.name.clone());
        let remedy = match alive.is_empty() {
            true => "start a daemon, which takes them over",
            false => {
                "live hosts take them over within a lease time (lease.ttl_seconds); if they stay, see the log of a live host"
            }
        };
        check.warn(
            format!("{} running under the ended lease of {name}", count(of.tasks, "task is", "tasks are")),
            remedy,
        );
    }
    check
}

/// The longest waits by reason, and dead letters that are not published.
pub(super) fn tasks(waiting: &[WaitingFacts], letters: LetterFacts, now: DateTime<Utc>) -> Check {
    let listed: Vec<_> =
        waiting.iter().map(|w| json!({"waiting_for": w.code, "since": w.since, "tasks": w.tasks})).collect();
    let oldest = waiting.iter().min_by_key(|waiting| waiting.since);
    let summary = match oldest {
        Some(oldest) => format!("the oldest waits for {} ({})", span(now - oldest.since), oldest.code),
        None => "none waits".to_owned(),
    };
    let mut check = Check::new("tasks", summary).with(json!({
        "waiting": listed,
        "letters": {"unpublished": letters.unpublished, "oldest": letters.oldest},
    }));
    for WaitingFacts { code, since, tasks } in waiting.iter().filter(|waiting| now - waiting.since > WAIT) {
        // An operator's own decision.
        if code == "paused" {
            continue;
        }
        let many = count(*tasks, "task waits", "tasks wait");
        let what = match is_timed(code) {
            true => format!("{many} although due ({code}), the longest for {}", span(now - *since)),
            false => format!("{many} ({code}), the longest for {}", span(now - *since)),
        };
        check.warn(what, remedy(code));
    }
    if let Some(oldest) = letters.oldest.filter(|oldest| now - *oldest > UNPUBLISHED) {
        let letters = match letters.unpublished {
            1_000.. => "1,000 or more dead letters are".to_owned(),
            number => count(number, "dead letter is", "dead letters are"),
        };
        check.warn(
            format!("{letters} recorded and not published, the oldest for {}", span(now - oldest)),
            "see broker.topology and broker.connection; hosts publish them once the dead-letter queue accepts them",
        );
    }
    check
}

/// Whether a task with this code waits for a time.
fn is_timed(code: &str) -> bool {
    matches!(code, "scheduled" | "backoff" | "snoozed")
}

fn remedy(code: &str) -> &'static str {
    match code {
        "scheduled" | "backoff" | "snoozed" => {
            "start a daemon (`agentry up`), which wakes what is due; see its log if one runs"
        }
        "not_published" | "unroutable" => {
            "see broker.topology and broker.connection; `agentry task explain ID` names the reason"
        }
        "no_plugin" | "plugin_broken" => {
            "install or repair the plugin: `agentry task list --state pending` shows which"
        }
        "no_slot" | "isolation" => "raise worker.slots or the plugin's concurrency, or start a further host",
        _ => "see broker.queues and hosts; `agentry task explain ID` names the reason of one task",
    }
}
