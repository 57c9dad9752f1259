//! The brake that keeps a task from beginning. Pure.

use super::services::span;
use super::{Cause, Facts, Recorded};
use crate::db::{Brake, BrakeKind, Brakes, HostRecord, TaskRow};
use crate::task::{State, WaitCode, Waiting};
use serde_json::json;

/// The brake that a task waits for. One whose time has not come waits for that first, and one that no host can use or no queue takes for that.
pub fn brake_of<'b>(task: &TaskRow, brakes: &'b Brakes) -> Option<&'b Brake> {
    let waiting = task.waiting_for.as_ref().filter(|_| task.state == State::Pending)?;
    if matches!(waiting.code, WaitCode::Held | WaitCode::Unroutable) {
        return None;
    }
    let name = task.plugin.split('@').next().unwrap_or_default();
    // Which version a task asks for only a host knows: the one that parked it wrote down the brake.
    let parked = waiting.detail["brake"]["target"].as_str().filter(|_| waiting.code == WaitCode::Paused);
    let of_version = || brakes.held.iter().find(|brake| parked.is_some_and(|of| brake.is_of(BrakeKind::Plugin, of)));
    brakes.queue(&task.queue).or_else(|| brakes.plugin(name)).or_else(of_version)
}

/// The task, shown as waiting for its brake if it has one.
pub fn with_brake(mut task: TaskRow, brakes: &Brakes) -> TaskRow {
    if let (Some(brake), Some(waiting)) = (brake_of(&task, brakes), task.waiting_for.as_ref()) {
        task.waiting_for = Some(Waiting {
            code: WaitCode::Paused,
            message: said(brake),
            since: waiting.since.max(brake.since),
            until: None,
            detail: json!({"brake": brake}),
        });
    }
    task
}

/// One clause: what is held, by whom, and why.
pub fn said(brake: &Brake) -> String {
    let target = &brake.target;
    let what = match brake.kind {
        BrakeKind::Queue => format!("the queue {target:?} is paused"),
        BrakeKind::Plugin => format!("the plugin {target} is disabled"),
        BrakeKind::Host => format!("the host {target} is drained"),
    };
    let reason = brake.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{what} by {}{reason}", brake.by)
}

/// The brake of a task, or of every host that consumes its queue, and the hosts that heed none; empty: no brake keeps it.
pub(super) fn causes(facts: &Facts, recorded: &Recorded, task: &TaskRow) -> Vec<Cause> {
    match brake_of(task, &recorded.brakes) {
        Some(brake) => {
            let unaware = if brake.kind == BrakeKind::Host { None } else { unaware(recorded, &task.queue) };
            [Some(held(facts, brake)), unaware].into_iter().flatten().collect()
        }
        None if task.state == State::Pending => drained(facts, recorded, &task.queue).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The brake of a queue, for tasks without a row.
pub(super) fn of_queue(facts: &Facts, recorded: &Recorded, queue: &str) -> Option<Cause> {
    recorded.brakes.queue(queue).map(|brake| held(facts, brake)).or_else(|| drained(facts, recorded, queue))
}

fn held(facts: &Facts, brake: &Brake) -> Cause {
    let message = format!("{}, {} ago", said(brake), span(facts.now - brake.since));
    Cause::new(WaitCode::Paused.as_str(), message)
        .since(brake.since)
        .remedy(format!("release it with `{}`", brake.remedy()))
        .detail(json!({"brake": brake}))
}

/// Every live host that consumes the queue is drained; `None`: one is not, or there is none.
fn drained(facts: &Facts, recorded: &Recorded, queue: &str) -> Option<Cause> {
    let hosts: Option<Vec<&Brake>> =
        recorded.consuming(queue).map(|host| recorded.brakes.host(host.record.id)).collect();
    let (first, others) = hosts.as_ref()?.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(", and {} others are", others.len()) };
    let message = format!(
        "no host takes tasks of the queue {queue:?}: {}, {} ago{more}",
        said(first),
        span(facts.now - first.since)
    );
    let remedy = format!("release it with `{}`, or start another host", first.remedy());
    Some(Cause::new("drained", message).since(first.since).remedy(remedy).detail(json!({"brakes": hosts})))
}

/// A live host of an earlier build consumes the queue: it heeds no brakes.
fn unaware(recorded: &Recorded, queue: &str) -> Option<Cause> {
    let host = recorded.consuming(queue).find(|host| host.record.brakes.is_none())?;
    let HostRecord { name, build, id, .. } = &host.record;
    let message = format!("{name} runs build {build}, which heeds no brakes, and may begin it all the same");
    Some(
        Cause::new("unaware_host", message)
            .remedy("replace it by a host of this build, or stop it")
            .detail(json!({"host": id})),
    )
}
