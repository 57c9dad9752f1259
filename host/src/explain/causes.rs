//! From facts to causes: tasks without a row, tasks that run, tasks that have ended. Pure.

use super::brakes;
use super::services::{blocked, broker, database, no_host, reasons, shown, span, strangers, unconsumed};
use super::waiting::waiting;
use super::{Cause, Explanation, Facts, QueueLook, Recorded};
use crate::db::{DeadRow, TaskRow};
use crate::task::{FailureKind, State};
use serde_json::json;

/// Sixths of a lease without a renewal after which an owner is called silent: it renews every sixth.
const MISSED: i32 = 3;
const SIXTHS: i32 = 6;
/// Reason of a dead letter whose id belongs to another task.
const CONFLICT: &str = "conflict";

/// Returns what follows from the facts.
pub fn explain(facts: &Facts) -> Explanation {
    let mut causes = Vec::new();
    let (mut state, mut since) = (None, None);
    match &facts.database {
        Err(error) => {
            causes.push(database(error, facts));
            causes.extend(broker(facts));
        }
        Ok(recorded) => match &recorded.task {
            None => causes.extend(unrecorded(facts, recorded)),
            Some(task) => {
                state = Some(task.state);
                let start = if task.state.is_terminal() { task.finished_at } else { task.started_at };
                since = task.waiting_for.as_ref().map(|waiting| waiting.since).or(start);
                match task.state {
                    State::Running => causes.extend(running(facts, recorded, task)),
                    state if state.is_terminal() => causes.push(ended(task, &recorded.letters)),
                    _ => causes.extend(waiting(facts, recorded, task)),
                }
            }
        },
    }
    if state.is_none_or(|state| !state.is_terminal()) {
        causes.extend(reasons(facts, &causes));
    }
    let summary = causes.first().map(|first| match &first.remedy {
        Some(remedy) => format!("{}; {remedy}", first.message),
        None => first.message.clone(),
    });
    Explanation {
        id: facts.id,
        state,
        since,
        at: facts.now,
        summary: summary.unwrap_or_default(),
        causes,
        facts: shown(facts),
    }
}

/// A task without a row: its message was unusable, waits in a queue, is with a host, or never came.
fn unrecorded(facts: &Facts, recorded: &Recorded) -> Vec<Cause> {
    if let Some(letter) = recorded.letters.iter().find(|letter| letter.reason != CONFLICT) {
        return vec![dead_letter(letter)];
    }
    let mut causes: Vec<Cause> = broker(facts).into_iter().collect();
    let stopped = |look: &QueueLook| brakes::of_queue(facts, recorded, &look.queue);
    causes.extend(facts.queues.iter().filter_map(|look| stopped(look).or_else(|| unconsumed(look, facts))));
    causes.extend(facts.queues.iter().filter_map(|look| strangers(look, recorded)));
    if !causes.is_empty() {
        causes.extend(no_host(facts, recorded));
    }
    causes.push(no_record(facts, recorded));
    causes.extend(blocked(facts));
    causes
}

fn no_record(facts: &Facts, recorded: &Recorded) -> Cause {
    let none = "there is no record of this task";
    let amqp = "one that came over AMQP has none until a host has claimed it or has run it";
    let counted: Vec<_> = facts.queues.iter().filter_map(|look| look.tasks.as_ref().ok().map(|t| (look, t))).collect();
    let waits: u32 = counted.iter().map(|(look, tasks)| tasks.ready.saturating_add(look.returned.unwrap_or(0))).sum();
    let dead = counted.iter().find(|(look, _)| look.dead.is_some_and(|dead| dead > 0)).map(|(look, _)| &look.queue);
    let dead = dead.map(|queue| format!("; a message without a usable id is in `agentry dead list --queue {queue}`"));
    let detail = json!({"ready": waits});
    if facts.embedded {
        let remedy = "check the id and data.dir, or start the daemon; it may have been pruned (retention.*)";
        return Cause::new("no_record", none).remedy(remedy);
    }
    if counted.is_empty() {
        return Cause::new("no_record", format!("{none}; {amqp}, and no queue could be asked"))
            .remedy("check the id, and ask again once the broker responds");
    }
    if waits > 0 {
        let messages = if waits == 1 { "1 message waits".to_owned() } else { format!("{waits} messages wait") };
        return Cause::new("no_record", format!("{none}; {amqp}, and {messages} in the queues"))
            .remedy(format!("if its id is right, it is one of them{}", dead.unwrap_or_default()))
            .detail(detail);
    }
    let held =
        counted.iter().any(|(look, tasks)| tasks.consumers > 0 && recorded.consuming(&look.queue).next().is_some());
    let held = if held { "a host may hold its message, or run it now: ask again in 10 s; otherwise " } else { "" };
    Cause::new("no_record", format!("{none}; {amqp}, and no message waits in the queues"))
        .remedy(format!(
            "{held}check the id, and that its producer publishes to this broker and virtual host, to the exchange broker.prefix, \
             with confirms and `mandatory`; it may have been pruned (retention.*){}",
            dead.unwrap_or_default()
        ))
        .detail(detail)
}

fn dead_letter(letter: &DeadRow) -> Cause {
    Cause::new("dead_letter", format!("its message was unusable ({}, {})", letter.reason, letter.detail))
        .since(letter.at)
        .detail(json!({
            "letter": letter.id, "reason": letter.reason, "queue": letter.queue, "redriven_as": letter.redriven_as,
        }))
        .remedy(of_letter(letter))
}

fn of_letter(letter: &DeadRow) -> String {
    if let (Some(id), Some(_)) = (letter.redriven_as, letter.redriven_at) {
        return format!("it was delivered again as another task, see `agentry task explain {id}`");
    }
    let publish = format!("host/docs/messages.md has the remedy for {}; publish it again", letter.reason);
    match letter.erased_at {
        Some(_) => publish,
        None => format!("{publish}, or `agentry dead redrive {}` if the cause was on this side", letter.id),
    }
}

fn ended(task: &TaskRow, letters: &[DeadRow]) -> Cause {
    let cause = match (task.state, &task.failure) {
        (State::Completed, _) => Cause::new("completed", "it has completed"),
        (State::Cancelled, _) => Cause::new("cancelled", "it was cancelled"),
        (_, None) => Cause::new("failed", "it has failed"),
        (_, Some(failure)) => {
            let rejected = failure.kind == FailureKind::Rejected;
            let letter = letters.iter().find(|letter| rejected && letter.reason != CONFLICT);
            let documented = format!("host/docs/failures.md has the remedy for {}", failure.kind);
            let remedy = match letter {
                Some(letter) => of_letter(letter),
                None if rejected => {
                    format!("{documented}; a policy of the broker may have dropped it (`rabbitmqctl list_policies`)")
                }
                None if task.erased_at.is_some() => documented,
                // The same input would fail in the same way.
                None if failure.kind == FailureKind::InvalidInput => "submit a task with a corrected input".into(),
                None => format!("{documented}; then `agentry task retry {}`", task.id),
            };
            Cause::new("failed", format!("it has failed ({}, {})", failure.kind, failure.message))
                .detail(json!({"kind": failure.kind, "detail": failure.detail}))
                .remedy(remedy)
        }
    };
    cause.since(task.finished_at)
}

fn running(facts: &Facts, recorded: &Recorded, task: &TaskRow) -> Vec<Cause> {
    let owner = task.host.and_then(|id| recorded.hosts.iter().find(|host| host.record.id == id));
    let of = format!("attempt {} of {}", task.attempt, task.max_attempts);
    let lost = |message: String| {
        let others = "another host takes it over within seconds of its lease's end, through the task's queue";
        let mut causes: Vec<Cause> = no_host(facts, recorded).into_iter().collect();
        causes.push(Cause::new("owner_lost", message).remedy(others));
        // What stands in the way of a take-over.
        causes.extend(broker(facts).or_else(|| blocked(facts)));
        causes
            .extend(facts.queues.iter().find(|look| look.queue == task.queue).and_then(|look| unconsumed(look, facts)));
        causes
    };
    let Some(owner) = owner else {
        return lost(format!("{of} runs, and its host is not known any more"));
    };
    let name = &owner.record.name;
    let detail = json!({"host": owner.record.id, "renewed_at": owner.renewed_at, "lease_until": owner.lease_until});
    let silent = facts.now - owner.renewed_at;
    let about = |cause: Cause| match cause.code {
        "owner_lost" => cause.since(owner.lease_until).detail(detail.clone()),
        _ => cause,
    };
    if !owner.alive {
        let message =
            format!("{of} runs on {name}, which has not renewed its lease for {} and is considered dead", span(silent));
        return lost(message).into_iter().map(about).collect();
    }
    if silent > (owner.lease_until - owner.renewed_at) / SIXTHS * MISSED {
        let left = span(owner.lease_until - facts.now);
        let message = format!("{of} runs on {name}, which has not renewed its lease for {}", span(silent));
        let remedy = format!("look at that host; if it is dead, another takes the task over in about {left}");
        let silent = Cause::new("owner_silent", message).since(owner.renewed_at).until(owner.lease_until);
        return vec![silent.remedy(remedy).detail(detail)];
    }
    let since = task.started_at.map(|at| format!(" for {}", span(facts.now - at))).unwrap_or_default();
    vec![Cause::new("running", format!("{of} runs on {name}{since}")).since(task.started_at).detail(detail)]
}
