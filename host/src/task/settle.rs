//! How an attempt ended, and what that makes of its task.

use super::{Event, Failure, FailureKind, Fence, RetryPolicy, State, TaskId, retry};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

mod body;

pub use body::{Body, BodyText};

/// What came out of one run of a guest.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// What it used.
    pub usage: Usage,
    /// What it said.
    pub logs: Vec<LogLine>,
    /// What it called, in order.
    #[serde(default)]
    pub calls: Vec<Call>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// With an output: JSON text, within its limit.
    Output(Arc<str>),
    /// With a failure, and how long the guest asked to wait before another attempt.
    Failed {
        /// The reason; `retryable` is as the policy and the guest say.
        failure: Failure,
        /// The guest's `after-ms`.
        after: Option<Duration>,
    },
    /// It is too early.
    Snooze {
        /// What it waits for.
        message: String,
        /// For how long.
        after: Duration,
    },
    /// The host stopped it.
    Stopped,
    /// It wanted more memory than it had reserved, and `worker.memory_mib` had none left. All in bytes.
    NoMemory {
        /// What it wanted to have in all.
        asked: u64,
        /// What it had reserved or drawn before.
        held: u64,
        /// What was free besides.
        free: u64,
        /// All of `worker.memory_mib`.
        total: u64,
    },
    /// The child process that ran it in the isolation lane died, and its parent lives to tell.
    ChildDied {
        /// How it died.
        message: String,
    },
}

/// What a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// From instantiation to the end, in microseconds.
    pub wall_us: u64,
    /// Of that, instantiation.
    pub instantiate_us: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Linear memory at its largest, in bytes.
    pub peak_memory: u64,
    /// Log bytes kept.
    pub log_bytes: u64,
    /// Calls of host functions.
    pub host_calls: u64,
    /// Calls of capabilities: those in [`Report::calls`], and those beyond what is kept.
    #[serde(default)]
    pub calls: u64,
    /// Tokens of language models, of requests and answers.
    #[serde(default)]
    pub llm_tokens: u64,
}

/// One call of a capability. Never holds a secret of the host's, and bodies only where the operator asked for them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Call {
    /// From 1 within its attempt.
    pub seq: u32,
    /// When it began.
    pub at: DateTime<Utc>,
    /// `http`, `llm`, `tools`, `keyvalue`, `memory`, `config`, `folders`.
    pub capability: String,
    /// What was asked of it: `GET`, `chat`, `call`, `set` and so on.
    pub operation: String,
    /// Of what: an address without its query, a model, a tool, a bucket; made storable.
    pub target: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Bytes that went out.
    pub request_bytes: u64,
    /// Bytes that came in.
    pub response_bytes: u64,
    /// `ok`, or the stable word for why not: `denied`, `timed_out`, `unfinished` (the run ended during the call) and so on.
    pub result: String,
    /// Further details, by capability: `status`; `model`, `provider`, `input_tokens`, `output_tokens`, `estimated`, `tries`; `reason`.
    pub detail: serde_json::Value,
    /// What the guest sent; `None`: nothing, or it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<Body>,
    /// What the guest was answered; as the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<Body>,
}

/// One of a few known words. (An alias: serde takes a reference that it sees for one that borrows from what is read.)
pub type Word = &'static str;

/// One line a guest logged or printed.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// From 1 within its attempt.
    pub seq: u32,
    /// When.
    pub at: DateTime<Utc>,
    /// `log`, `stdout` or `stderr`.
    #[serde(deserialize_with = "word")]
    pub stream: Word,
    /// `trace debug info warn error critical`.
    #[serde(deserialize_with = "word")]
    pub level: Word,
    /// The logger's name, as the guest gave it.
    pub logger: String,
    /// The line, made storable.
    pub message: String,
    /// Cut at a limit.
    pub cut: bool,
}

/// The words for streams and levels, read back as what they were.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
    const WORDS: [&str; 9] = ["log", "stdout", "stderr", "trace", "debug", "info", "warn", "error", "critical"];
    let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
    let known = WORDS.into_iter().find(|word| *word == text);
    known.ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is neither a stream nor a level")))
}

/// Why the host stopped a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The daemon shuts down.
    Shutdown,
    /// Somebody cancelled the task.
    Cancelled,
}

/// What an attempt makes of its task.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Ended {
    /// `completed`.
    Completed {
        /// JSON text.
        output: Arc<str>,
    },
    /// `failed`.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// `retrying`: the attempt is burnt.
    Retrying {
        /// Why.
        failure: Failure,
        /// Until the next.
        after: Duration,
    },
    /// `scheduled`: no attempt is burnt.
    Snoozed {
        /// What it waits for.
        message: String,
        /// Until it runs again.
        after: Duration,
    },
    /// `pending`: no attempt is burnt; its outbox row takes it back to its queue.
    Interrupted {
        /// Why.
        reason: String,
    },
    /// `pending` after its child process died in the isolation lane; no attempt is burnt, that budget is its own.
    ChildLost {
        /// How it died.
        reason: String,
    },
    /// `cancelled`.
    Cancelled,
}

impl Ended {
    /// The event that is written.
    pub fn event(&self) -> Event {
        match self {
            Ended::Completed { .. } => Event::Completed,
            Ended::Failed { .. } => Event::Failed,
            Ended::Retrying { .. } => Event::Retrying,
            Ended::Snoozed { .. } => Event::Snoozed,
            Ended::Interrupted { .. } | Ended::ChildLost { .. } => Event::Interrupted,
            Ended::Cancelled => Event::Cancelled,
        }
    }

    /// The state it leads to from `running`.
    pub fn state(&self) -> State {
        match self {
            Ended::Completed { .. } => State::Completed,
            Ended::Failed { .. } => State::Failed,
            Ended::Retrying { .. } => State::Retrying,
            Ended::Snoozed { .. } => State::Scheduled,
            Ended::Interrupted { .. } | Ended::ChildLost { .. } => State::Pending,
            Ended::Cancelled => State::Cancelled,
        }
    }

    /// Whether the attempt counts: what the plugin did counts, what happened to it does not.
    pub fn burns_attempt(&self) -> bool {
        matches!(self, Ended::Completed { .. } | Ended::Failed { .. } | Ended::Retrying { .. })
    }

    /// The failure, where there is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Ended::Failed { failure } | Ended::Retrying { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// The delay before it runs again, where there is one.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Ended::Retrying { after, .. } | Ended::Snoozed { after, .. } => Some(*after),
            _ => None,
        }
    }
}

/// An attempt's end, ready to be recorded. It takes effect only while the task is `running` under this fence.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settlement {
    /// The task.
    pub id: TaskId,
    /// The claim it belongs to.
    pub fence: Fence,
    /// The attempt's number.
    pub attempt: u32,
    /// What it makes of the task.
    pub ended: Ended,
    /// The plugin's version.
    pub version: Arc<str>,
    /// The plugin's digest.
    pub digest: Arc<str>,
    /// What it used.
    pub usage: Usage,
    /// What it said.
    pub logs: Vec<LogLine>,
    /// What it called.
    #[serde(default)]
    pub calls: Vec<Call>,
}

impl Settlement {
    /// About how many bytes it takes to say it: what a batch is bounded by.
    pub fn weight(&self) -> usize {
        /// Of the columns that are short.
        const ROW: usize = 256;
        let output = if let Ended::Completed { output } = &self.ended { output.len() } else { 0 };
        let logs: usize = self.logs.iter().map(|line| ROW + line.message.len()).sum();
        let body = |body: &Option<Body>| body.as_ref().map_or(0, |body| body.bytes.len());
        let calls = self.calls.iter().map(|call| ROW + body(&call.request_body) + body(&call.response_body));
        ROW + output + logs + calls.sum::<usize>()
    }
}

/// Where an attempt stands among its task's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Times the task was snoozed before.
    pub snoozes: u32,
    /// Child processes that died of it before.
    pub child_losses: u32,
    /// It runs in the isolation lane.
    pub isolated: bool,
}

/// What a verdict makes of the task. `jitter`: uniform in 0..1; `stop`: why the host stopped it, if it did.
pub fn end(
    verdict: Verdict,
    standing: Standing,
    policy: &RetryPolicy,
    max_snoozes: u32,
    jitter: f64,
    stop: StopReason,
) -> Ended {
    match verdict {
        Verdict::Output(output) => Ended::Completed { output },
        Verdict::Failed { failure, after } => {
            let Standing { attempt, max_attempts, .. } = standing;
            match retry::after_failure(&failure, policy, attempt, max_attempts, jitter, after) {
                Some(after) => Ended::Retrying { failure, after },
                None => Ended::Failed { failure },
            }
        }
        Verdict::Snooze { message, .. } if standing.snoozes >= max_snoozes => {
            let text = format!("snoozed {max_snoozes} times, and again: {message}");
            let detail = json!({"limit": "snoozes", "used": standing.snoozes + 1, "allowed": max_snoozes});
            Ended::Failed { failure: Failure::fatal(FailureKind::PluginError, text).with_detail(detail) }
        }
        Verdict::Snooze { message, after } => Ended::Snoozed {
            message,
            after: after.clamp(Duration::from_secs(1), policy.max.max(Duration::from_secs(1))),
        },
        Verdict::ChildDied { message } => {
            let losses = standing.child_losses + 1;
            if losses < retry::MAX_CHILD_LOSSES {
                return Ended::ChildLost { reason: message };
            }
            let text = format!("it killed the process that it ran alone in {losses} times, the last time: {message}");
            let detail = json!({"limit": "host_losses", "used": losses, "allowed": retry::MAX_CHILD_LOSSES});
            Ended::Failed { failure: Failure::fatal(FailureKind::HostLost, text).with_detail(detail) }
        }
        Verdict::Stopped => match stop {
            StopReason::Shutdown => Ended::Interrupted { reason: "the host shut down".into() },
            StopReason::Cancelled => Ended::Cancelled,
        },
        Verdict::NoMemory { .. } if stop == StopReason::Cancelled => Ended::Cancelled,
        Verdict::NoMemory { asked, held, free, total } => {
            let [asked, held, free, total] = [asked, held, free, total].map(mib);
            let reason = format!(
                "it asked for {asked} MiB of memory while it held {held}, and {free} of worker.memory_mib = {total} were \
                 free; its next run here begins once all that it may use is free"
            );
            Ended::Interrupted { reason }
        }
    }
}

/// Bytes in MiB, to a tenth.
fn mib(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
