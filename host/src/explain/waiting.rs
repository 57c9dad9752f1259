//! A task that waits: the reason of its row, corrected by what hosts and broker say. Pure.

use super::brakes;
use super::services::{ahead, blocked, broker, no_host, span, strangers, unconsumed};
use super::{Cause, Facts, Recorded};
use crate::db::{HostRow, TaskRow};
use crate::task::{PluginRef, State, WaitCode};
use serde_json::json;
use std::collections::BTreeSet;

/// Code of a task whose message no queue holds any more.
const DELIVERED: &str = "delivered";

/// Causes of a task that is scheduled, pending or retrying.
pub(super) fn waiting(facts: &Facts, recorded: &Recorded, task: &TaskRow) -> Vec<Cause> {
    let Some(waiting) = &task.waiting_for else {
        return vec![Cause::new("queued", format!("it is {}", task.state.as_str()))];
    };
    let row = |message: String| {
        Cause::new(waiting.code.as_str(), message)
            .since(waiting.since)
            .until(waiting.until)
            .detail(waiting.detail.clone())
    };
    let until = waiting.until.map(|until| ahead(facts.now, until)).unwrap_or_default();
    let braked = brakes::causes(facts, recorded, task);
    let mut causes = match waiting.code {
        _ if !braked.is_empty() => braked,
        WaitCode::Scheduled => vec![row(format!("its run_at is {until}"))],
        WaitCode::Snoozed => vec![row(format!("its plugin asked to run again {until}"))],
        WaitCode::Backoff => {
            let failure = task.failure.as_ref().map(|f| format!(" ({}, {})", f.kind, f.message)).unwrap_or_default();
            let of = format!("attempt {} of {}", task.attempt, task.max_attempts);
            vec![row(format!("{of} failed{failure}, and the next begins {until}"))]
        }
        WaitCode::NotPublished => {
            let mut causes: Vec<Cause> = broker(facts).or_else(|| blocked(facts)).into_iter().collect();
            let reason = facts.daemon.as_ref().and_then(|d| d.reasons.iter().find(|(code, _)| code == "publishing"));
            let reason = reason.map(|(_, message)| format!(" ({message})")).unwrap_or_default();
            // The words of the relay, which names the queues.
            let remedy = match causes.is_empty() && reason.contains("refuses tasks of queue") {
                true => {
                    "see the limits of the queue (`rabbitmqctl list_queues name messages policy`, `rabbitmqctl list_policies`): one with \
                     max-length and reject-publish refuses while it is full; raise it, or add hosts that consume the queue"
                }
                false => "see /readyz of the hosts, whose reason `publishing` names what the broker refuses",
            };
            causes.push(row(format!("it is committed and not yet published{reason}")).remedy(remedy));
            causes
        }
        WaitCode::Unroutable => {
            let queue = &task.queue;
            let remedy = format!("start a host with {queue:?} in broker.queues, or check who deleted or unbound it");
            vec![row(format!("the broker has no queue for {queue:?}")).remedy(remedy)]
        }
        WaitCode::NoPlugin | WaitCode::PluginBroken | WaitCode::Paused => vec![parked(recorded, task, &row)],
        WaitCode::NoSlot => {
            let name = task.plugin.split('@').next().unwrap_or_default();
            let cause = match waiting.detail["limit"].as_str() {
                Some(limit) => row(format!("the guests before it compute for too long ({limit})"))
                    .remedy(format!("raise {limit}, or add a host")),
                None => {
                    let all = waiting.detail["concurrency"].as_u64().map(|all| format!(", {all}")).unwrap_or_default();
                    row(format!("{name} is at its concurrency{all}"))
                        .remedy(format!("raise concurrency in [plugins.\"{name}\"] of the settings, or add a host"))
                }
            };
            vec![cause]
        }
        WaitCode::Isolation => vec![
            row("it was inside a guest when its host died, and waits for a free place in the isolation lane".into())
                .remedy("it runs when a task of the lane ends"),
        ],
        WaitCode::Held => {
            let named = |name: &str| waiting.detail[name].as_str().unwrap_or("unknown").to_owned();
            let message = format!("the host that received it cannot use it ({}, {})", named("reason"), named("detail"));
            let remedy =
                "raise the limit that it names, start a host of the build that published it, or cancel the task";
            vec![row(message).remedy(remedy)]
        }
        WaitCode::Queued | WaitCode::NoConsumer => queued(facts, recorded, task, row(String::new())),
    };
    // Nothing is claimed, published or woken without a host.
    if let Some(none) = no_host(facts, recorded) {
        let first = causes.iter().position(|cause| !matches!(cause.code, "broker_away" | "no_consumer" | "no_queue"));
        causes.insert(first.unwrap_or(causes.len()), none);
    }
    if let Some(deadline) = task.deadline.filter(|_| task.state != State::Running) {
        causes.push(
            Cause::new("deadline", format!("it fails {} if it has not begun", ahead(facts.now, deadline)))
                .until(deadline),
        );
    }
    causes
}

/// A task that was parked for its plugin. Its row keeps the reason of the host that parked it until a host claims it, while
/// plugins come and go: the live hosts are asked first.
fn parked(recorded: &Recorded, task: &TaskRow, row: &dyn Fn(String) -> Cause) -> Cause {
    if let Some(host) = serving(recorded, task) {
        let HostRow { record, .. } = host;
        let message = format!(
            "{} serves {} now, with {} of {} slots in use",
            record.name, task.plugin, record.busy, record.slots
        );
        let cause = Cause { code: WaitCode::Queued.as_str(), ..row(message) };
        return if record.busy >= record.slots {
            cause.remedy("it begins when a task there ends; add a host")
        } else {
            cause
        };
    }
    let fails = "it fails after plugins.unknown_grace_seconds";
    let waiting = task.waiting_for.as_ref();
    let recorded_cause = waiting.and_then(|waiting| waiting.detail["cause"].as_str().map(str::to_owned));
    if let Some(why) = broken(recorded, task).or(recorded_cause) {
        return Cause {
            code: WaitCode::PluginBroken.as_str(),
            ..row(format!("{} failed to load ({why})", task.plugin))
        }
        .remedy(match why.contains("settings") {
            true => format!("change the settings of its host and restart it; {fails}"),
            false => format!("repair it: its host loads it again when its files change; {fails}"),
        });
    }
    // One that a brake parked says so; it was released meanwhile.
    if waiting.is_some_and(|waiting| waiting.code == WaitCode::Paused && waiting.detail["brake"].is_null()) {
        let remedy = "set enabled = true in [plugins.\"NAME\"] of a host's settings, and restart it";
        return row(format!("{} is turned off", task.plugin)).remedy(remedy);
    }
    Cause { code: WaitCode::NoPlugin.as_str(), ..row(format!("no live host serves {}", task.plugin)) }
        .remedy(format!("install it in plugins.dir of a host, or correct its name; {fails}"))
}

/// A task in its queue: nothing consumes it, or it is behind others, or a host has it in hand.
fn queued(facts: &Facts, recorded: &Recorded, task: &TaskRow, row: Cause) -> Vec<Cause> {
    let look = facts.queues.iter().find(|look| look.queue == task.queue);
    let mut causes: Vec<Cause> = broker(facts).into_iter().collect();
    causes.extend(look.and_then(|look| unconsumed(look, facts)));
    causes.extend(look.and_then(|look| strangers(look, recorded)));
    if recorded.alive().next().is_some() && serving(recorded, task).is_none() {
        causes.push(parked(recorded, task, &|message| Cause { message, ..row.clone() }));
    }
    if !causes.is_empty() {
        return causes;
    }
    let Some(Ok(counted)) = look.map(|look| &look.tasks) else {
        return vec![Cause { message: "it is in its queue, or with a host that has not begun it".into(), ..row }];
    };
    let hosts: Vec<&HostRow> = recorded.consuming(&task.queue).collect();
    let total = |of: fn(&HostRow) -> u32| hosts.iter().map(|host| of(host)).fold(0, u32::saturating_add);
    let (slots, busy) = (total(|host| host.record.slots), total(|host| host.record.busy));
    let detail = json!({
        "ready": counted.ready, "consumers": counted.consumers, "hosts": hosts.len(), "slots": slots, "busy": busy,
    });
    let cause = if counted.ready == 0 {
        let since = row.since.map(|at| format!(", {} after it was recorded as waiting", span(facts.now - at)));
        let message =
            format!("no message waits in its queue, so a host or another consumer has it{}", since.unwrap_or_default());
        let remedy = "it begins within seconds; if it does not, compare `rabbitmqctl list_consumers` with `agentry host list`, and see \
                      /readyz of each host";
        Cause { code: DELIVERED, message, ..row }.remedy(remedy)
    } else {
        let behind = match counted.ready {
            1 => "it is in its queue, and next".to_owned(),
            ready => format!("it is in its queue, behind up to {} others", ready - 1),
        };
        match busy >= slots {
            true => Cause { message: format!("{behind}, and all {slots} slots of its hosts are in use"), ..row }
                .remedy("add a host, or raise worker.slots"),
            false => Cause { message: behind, ..row }
                .remedy("if it does not move, see `agentry host list`, and worker.computing, queues.NAME.slots and worker.memory_mib"),
        }
    };
    let mut causes = vec![cause.detail(detail)];
    let builds: BTreeSet<&str> = hosts.iter().map(|host| &*host.record.build).collect();
    if builds.len() > 1 {
        let message = format!("the hosts of its queue run {} different builds", builds.len());
        causes.push(Cause::new("mixed_builds", message).detail(json!({"builds": builds})));
    }
    causes
}

/// The first live host that serves the task's plugin.
fn serving<'r>(recorded: &'r Recorded, task: &TaskRow) -> Option<&'r HostRow> {
    let plugin: PluginRef = task.plugin.parse().ok()?;
    recorded.alive().find(|host| host.record.serves(&plugin))
}

/// The cause, if the task's plugin failed to load on a live host.
fn broken(recorded: &Recorded, task: &TaskRow) -> Option<String> {
    let plugin: PluginRef = task.plugin.parse().ok()?;
    recorded.alive().find_map(|host| host.record.broken(&plugin).map(str::to_owned))
}
