//! Execute: the guest runs, once, and its verdict becomes an end.

use super::Shared;
use super::candidate::Ready;
use super::settle::End;
use crate::db::Claimed;
use crate::registry::{self, Job, Runner};
use crate::task::settle::{Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, Settlement, TaskMessage, settle};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
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
        let mut job = job(&message, &claimed, stop.clone());
        (job.memory, job.turn) = (Some(memory.clone()), Some(turn.clone()));
        let allowed = allowed(&message, &*runner);
        // Two batches may have found the same place free: then the later one waits for it.
        let lane = match lane {
            Some(None) => Some(shared.room.lane().await),
            Some(lane) => lane,
            None => None,
        };
        let begun = tokio::select! {
            biased;
            // The sandbox ends it before it enters the guest.
            () = stop.cancelled() => true,
            begun = tokio::time::timeout(BEGUN_WITHIN, turn.begin()) => begun.is_ok(),
        };
        if !begun {
            drop((place, lane, memory, turn, job));
            let reason = "the tasks before it computed for longer than it may wait for its turn";
            let _ = ends.send(End::interrupted(&message, &claimed, reason)).await;
            return;
        }
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
        // The sandbox answers for everything a guest does and ends it in time. A panic, or a run that outlives its
        // time-out, is a defect of the host, and still this task's end alone.
        let run = AssertUnwindSafe(run).catch_unwind();
        let report = match tokio::time::timeout(allowed, run).await {
            Ok(Ok(report)) => report,
            Ok(Err(panic)) => broken(format!("the host panicked while it ran the guest: {}", words(&*panic))),
            Err(_) => broken(format!("the run did not end within {allowed:?}, {WEDGED:?} past its time-out")),
        };
        // The guest's memory is gone: the next may start while this one is being recorded.
        drop((place, lane, memory, turn));
        let no_memory = matches!(report.verdict, Verdict::NoMemory { .. });
        let reason = shared.flights.reason(message.id);
        let chance = (shared.parts.chance)();
        let max_snoozes = shared.config.max_snoozes;
        let ended = settle::end(report.verdict, claimed.standing, runner.retry(), max_snoozes, chance, reason);
        if no_memory {
            tracing::info!(task = %message.id, plugin = %runner.name(), ?ended, "no memory for a task that grew");
            shared.parts.metrics.memory_interruption();
            // Before anybody can hear of it and deliver it again.
            shared.room.owed().add(message.id, &*runner);
        } else if ended.state().is_terminal() {
            shared.room.owed().remove(message.id);
        }
        let end = End {
            settlement: Settlement {
                id: message.id,
                fence: claimed.fence,
                attempt: claimed.standing.attempt,
                ended,
                version: runner.version().clone(),
                digest: runner.digest().clone(),
                usage: report.usage,
                logs: report.logs,
                calls: report.calls,
            },
        };
        // The settle step ends only after every sender is gone.
        let _ = ends.send(end).await;
    });
}

fn job(message: &TaskMessage, claimed: &Claimed, stop: CancellationToken) -> Job {
    // The deadline is a time of day and the run is measured by this process's own clock: translate once, by the
    // database's time of the claim, so that a host whose clock is wrong is right all the same.
    let deadline = message.options.deadline.map(|deadline| {
        let left = (deadline - claimed.at).to_std().unwrap_or_default();
        tokio::time::Instant::now() + left
    });
    Job {
        id: message.id,
        attempt: claimed.standing.attempt,
        max_attempts: claimed.standing.max_attempts,
        fence: Some(claimed.fence),
        input: message.input.clone(),
        labels: message.options.labels.clone(),
        timeout: message.options.timeout_seconds.map(|s| Duration::from_secs(s.into())),
        deadline,
        stop,
        memory: None,
        turn: None,
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
