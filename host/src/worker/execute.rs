//! Execute: the guest runs, once, and its verdict becomes an end.

use super::candidate::Ready;
use super::settle::End;
use super::{Leg, Shared};
use crate::db::Claimed;
use crate::registry::{self, Job, Reservation, Runner, Turn};
use crate::task::settle::{Report, Standing, Usage, Verdict};
use crate::task::{Failure, FailureKind, Fence, Runnable, Settlement, TaskMessage, WaitCode, settle};
use futures_util::FutureExt;
use serde_json::json;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a run may outlive its time-out before it is given up: the sandbox should have ended it.
const WEDGED: Duration = Duration::from_secs(10);
/// How long an end that is known may take to be recorded while the database answers. With [`allowed`] it is the hard deadline
/// of an attempt: past it the host is wedged, whatever its lease says.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// How long a claimed task waits for its turn. Past it, it goes back to its queue: those that it waits for compute for longer than
/// those before them.
pub const BEGUN_WITHIN: Duration = Duration::from_secs(5);

/// The longest that a run may take here before it is given up.
pub fn allowed(message: &TaskMessage, runner: &dyn Runner) -> Duration {
    let timeout = message.options.timeout_seconds.map(|s| Duration::from_secs(s.into()));
    timeout.unwrap_or_else(|| runner.timeout()) + WEDGED
}

/// Run a claimed task on the guests' runtime.
pub fn spawn(
    shared: &Arc<Shared>,
    ends: mpsc::Sender<End>,
    message: Arc<TaskMessage>,
    claimed: Claimed,
    ready: Ready,
    stop: CancellationToken,
) {
    let Ready { runner, place, memory, turn } = ready;
    let shared = shared.clone();
    let guests = shared.parts.guests.clone();
    let lane = claimed.standing.isolated.then(|| shared.room.try_lane());
    guests.spawn(async move {
        // The deadline is a time of day and the run is measured by this process's own clock: translate once, by the
        // database's time of the claim, so that a host whose clock is wrong is right all the same.
        let deadline = message.options.deadline.map(|deadline| {
            let left = (deadline - claimed.at).to_std().unwrap_or_default();
            Instant::now() + left
        });
        let claim = (claimed.fence, claimed.standing);
        let job = job(
            &message,
            (Some(claimed.fence), claimed.standing),
            deadline,
            stop.clone(),
            (memory.clone(), turn.clone()),
        );
        // The place was free when the task was claimed. Its hard deadline runs since then, so it must not wait here for another
        // task to end: it goes back, and waits in the database.
        let is_full = matches!(lane, Some(None));
        if is_full || !is_begun(&turn, &stop).await {
            drop((place, lane, memory, turn, job));
            let reason = match is_full {
                true => "the isolation lane is full",
                false => "the tasks before it computed for longer than it may wait for its turn",
            };
            let claim = (message.id, claimed.fence, claimed.standing.attempt);
            let _ = ends.send(End::interrupted(claim, reason)).await;
            return;
        }
        let lane = lane.flatten();
        let run = async {
            match &lane {
                // The child's memory is counted nowhere, so all that it may use is held here. Where that is not free now it
                // runs again with it: this one is claimed, and must not wait for others that may take long.
                Some(_) => match memory.try_hold(runner.memory_limit()) {
                    Ok(()) => shared.parts.isolation.run(&*runner, job).await,
                    Err(none) => unentered(registry::no_memory(none)),
                },
                None => runner.run(job).await,
            }
        };
        let report = watched(&*runner, &message, run).await;
        // The guest's memory is gone: the next may start while this one is being recorded.
        drop((place, lane, memory, turn));
        let settlement = settlement(&shared, &message, &*runner, claim, report);
        // The settle step ends only after every sender is gone.
        let _ = ends.send(End { settlement, at: Instant::now() }).await;
    });
}

/// Waits for a turn. False: it did not come in time.
pub async fn is_begun(turn: &Turn, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        // The sandbox ends it before it enters the guest.
        () = stop.cancelled() => true,
        begun = tokio::time::timeout(BEGUN_WITHIN, turn.begin()) => begun.is_ok(),
    }
}

/// Why a task without a turn is parked.
pub fn no_turn() -> Runnable {
    Runnable::NotHere { code: WaitCode::NoSlot, detail: json!({"limit": "worker.computing"}) }
}

/// A run that ends in time and does not panic. The sandbox answers for everything a guest does and ends it in time. A panic,
/// or a run that outlives its time-out, is a defect of the host, and still this task's end alone.
pub async fn watched(runner: &dyn Runner, message: &TaskMessage, run: impl Future<Output = Report>) -> Report {
    let allowed = allowed(message, runner);
    let run = AssertUnwindSafe(run).catch_unwind();
    match tokio::time::timeout(allowed, run).await {
        Ok(Ok(report)) => report,
        Ok(Err(panic)) => broken(format!("the host panicked while it ran the guest: {}", words(&*panic))),
        Err(_) => broken(format!("the run did not end within {allowed:?}, {WEDGED:?} past its time-out")),
    }
}

/// The end that a report makes of an attempt.
pub fn settlement(
    shared: &Shared,
    message: &TaskMessage,
    runner: &dyn Runner,
    (fence, standing): (Fence, Standing),
    report: Report,
) -> Settlement {
    let no_memory = matches!(report.verdict, Verdict::NoMemory { .. });
    let reason = shared.flights.reason(message.id);
    let chance = (shared.parts.chance)();
    shared.parts.metrics.leg(Leg::Run, Duration::from_micros(report.usage.wall_us));
    let ended = settle::end(report.verdict, standing, runner.retry(), shared.config.max_snoozes, chance, reason);
    if no_memory {
        tracing::info!(task = %message.id, plugin = %runner.name(), ?ended, "no memory for a task that grew");
        shared.parts.metrics.memory_interruption();
        // Before its end is recorded and it can be delivered again.
        shared.room.owed().add(message.id, runner);
    } else if ended.state().is_terminal() {
        shared.room.owed().remove(message.id);
    }
    Settlement {
        id: message.id,
        fence,
        attempt: standing.attempt,
        ended,
        version: runner.version().clone(),
        digest: runner.digest().clone(),
        usage: report.usage,
        logs: report.logs,
        calls: report.calls,
    }
}

/// An attempt to be run, under a claim or without one.
pub fn job(
    message: &TaskMessage,
    (fence, standing): (Option<Fence>, Standing),
    deadline: Option<Instant>,
    stop: CancellationToken,
    (memory, turn): (Arc<Reservation>, Arc<Turn>),
) -> Job {
    Job {
        id: message.id,
        attempt: standing.attempt,
        max_attempts: standing.max_attempts,
        fence,
        input: message.input.clone(),
        labels: message.options.labels.clone(),
        timeout: message.options.timeout_seconds.map(|s| Duration::from_secs(s.into())),
        deadline,
        stop,
        memory: Some(memory),
        turn: Some(turn),
        on_log: None,
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// A verdict on a run of which nothing else is known.
fn unentered(verdict: Verdict) -> Report {
    Report { verdict, usage: Usage::default(), logs: Vec::new(), calls: Vec::new() }
}

/// The host's own failure, which is retried.
fn broken(message: String) -> Report {
    tracing::error!(message, "a run broke");
    let failure = Failure { retryable: true, ..Failure::fatal(FailureKind::Internal, message) };
    unentered(Verdict::Failed { failure, after: None })
}

#[cfg(test)]
#[path = "execute_tests.rs"]
pub(super) mod tests;
