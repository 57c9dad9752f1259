//! One build of one plugin, and what becomes of a run of it.

use super::limits::ResolvedLimits;
use super::{GrantInfo, Job, Runner};
use crate::task::settle::{LogLine, Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, RetryPolicy};
use agentry_sandbox::{Fault, FaultKind, Invocation, Level, Limits, Outcome, Plugin, Ran, Stream};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use semver::Version;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A plugin's build, ready to run.
pub struct Installed {
    pub(super) name: Arc<str>,
    pub(super) version: Version,
    pub(super) version_text: Arc<str>,
    pub(super) digest: Arc<str>,
    pub(super) description: String,
    pub(super) queue: String,
    pub(super) retry: RetryPolicy,
    pub(super) limits: ResolvedLimits,
    pub(super) ceiling: Duration,
    pub(super) concurrency: Option<u32>,
    pub(super) memory_reserve: u64,
    pub(super) grants: BTreeMap<String, GrantInfo>,
    pub(super) path: PathBuf,
    pub(super) loaded_at: DateTime<Utc>,
    pub(super) plugin: Plugin,
}

impl Installed {
    /// One sentence.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What its component imports: full names with versions, sorted.
    pub fn imports(&self) -> &[String] {
        self.plugin.imports()
    }

    /// What it asked for and got, by capability.
    pub fn grants(&self) -> &BTreeMap<String, GrantInfo> {
        &self.grants
    }

    /// What its runs may use.
    pub fn limits(&self) -> &ResolvedLimits {
        &self.limits
    }

    /// Its folder, absolute; of a component without `plugin.toml`, the file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Since when this build serves.
    pub fn loaded_at(&self) -> DateTime<Utc> {
        self.loaded_at
    }

    pub(super) fn limits_for(&self, job: &Job) -> Limits {
        let mut limits = self.limits.values.to_sandbox();
        if let Some(timeout) = job.timeout {
            // Messages that ask for more are refused on arrival; a row may be older than the ceiling.
            limits.timeout = timeout.min(self.ceiling);
        }
        limits
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {}", self.name, self.version, self.digest)
    }
}

#[async_trait]
impl Runner for Installed {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn version(&self) -> &Arc<str> {
        &self.version_text
    }

    fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    fn queue(&self) -> &str {
        &self.queue
    }

    fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    fn concurrency(&self) -> Option<u32> {
        self.concurrency
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.limits.values.timeout_seconds)
    }

    fn place(&self) -> &std::path::Path {
        &self.path
    }

    fn memory_reserve(&self) -> u64 {
        self.memory_reserve
    }

    fn memory_limit(&self) -> u64 {
        self.limits.values.to_sandbox().memory_bytes
    }

    async fn run(&self, job: Job) -> Report {
        let limits = self.limits_for(&job);
        let on_log = job.on_log.map(|sink| -> agentry_sandbox::LogSink { Arc::new(move |line| sink(&log_line(line))) });
        let invocation = Invocation {
            task_id: job.id.to_string(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            input: job.input,
            plugin_name: self.name.clone(),
            plugin_version: self.version_text.clone(),
            labels: job.labels.into_iter().collect(),
            limits,
            memory: job.memory,
            deadline: job.deadline,
            stop: job.stop,
            on_log,
        };
        report(self.plugin.run(invocation).await, &self.retry)
    }
}

/// What a run is to the rest of the host.
fn report(ran: Ran, retry: &RetryPolicy) -> Report {
    let Ran { outcome, usage, logs } = ran;
    Report {
        verdict: verdict(outcome, retry),
        usage: Usage {
            wall_us: micros(usage.wall),
            instantiate_us: micros(usage.instantiate),
            cpu_us: micros(usage.cpu),
            peak_memory: usage.peak_memory,
            log_bytes: usage.log_bytes,
            host_calls: usage.host_calls,
        },
        logs: logs.iter().map(log_line).collect(),
    }
}

fn verdict(outcome: Outcome, retry: &RetryPolicy) -> Verdict {
    let failed = |kind, message, retryable, detail, after| Verdict::Failed {
        failure: Failure { kind, message, retryable, detail },
        after,
    };
    match outcome {
        Outcome::Output(output) => Verdict::Output(output.into()),
        Outcome::Retry { message, code, data, after } => {
            let retryable = retry.retries(FailureKind::PluginError);
            failed(FailureKind::PluginError, message, retryable, guest_detail(code, data), after)
        }
        // The guest knows that trying again is of no use, whatever the policy says.
        Outcome::Permanent { message, code, data } => {
            failed(FailureKind::PluginError, message, false, guest_detail(code, data), None)
        }
        Outcome::InvalidInput { message, pointer } => {
            failed(FailureKind::InvalidInput, message, false, json!({ "pointer": pointer }), None)
        }
        Outcome::Snooze { message, after } => Verdict::Snooze { message, after },
        Outcome::Fault(Fault { kind, message, detail }) => {
            let kind = failure_kind(kind);
            failed(kind, message, retry.retries(kind), detail, None)
        }
        Outcome::Stopped => Verdict::Stopped,
        Outcome::NoMemory(none) => super::no_memory(none),
    }
}

/// `{code, data}`: the data as the JSON that it is.
fn guest_detail(code: Option<String>, data: Option<String>) -> Value {
    let data = data.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    json!({ "code": code, "data": data })
}

fn failure_kind(kind: FaultKind) -> FailureKind {
    match kind {
        FaultKind::Trap => FailureKind::Trap,
        FaultKind::Timeout => FailureKind::Timeout,
        FaultKind::CpuLimit => FailureKind::CpuLimit,
        FaultKind::MemoryLimit => FailureKind::MemoryLimit,
        FaultKind::ResourceLimit => FailureKind::ResourceLimit,
        FaultKind::OutputTooLarge => FailureKind::OutputTooLarge,
        FaultKind::InvalidOutput => FailureKind::InvalidOutput,
        FaultKind::Denied => FailureKind::Denied,
        FaultKind::Internal => FailureKind::Internal,
    }
}

fn log_line(line: &agentry_sandbox::LogLine) -> LogLine {
    LogLine {
        seq: line.seq,
        at: line.at.into(),
        stream: match line.stream {
            Stream::Log => "log",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        },
        level: match line.level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        },
        logger: line.logger.clone(),
        message: line.message.clone(),
        cut: line.cut,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn ran(outcome: Outcome) -> Ran {
        Ran { outcome, usage: agentry_sandbox::Usage::default(), logs: Vec::new() }
    }

    fn failure(outcome: Outcome, retry: &RetryPolicy) -> (Failure, Option<Duration>) {
        match report(ran(outcome), retry).verdict {
            Verdict::Failed { failure, after } => (failure, after),
            other => panic!("{other:?}"),
        }
    }

    fn fault(kind: FaultKind) -> Outcome {
        Outcome::Fault(Fault { kind, message: "m".into(), detail: json!({"limit": "x"}) })
    }

    #[test]
    fn what_the_guest_says_becomes_a_plugin_error() {
        let policy = RetryPolicy::default();
        let data = Some("{\"rest\": [1, 2]}".into());
        let after = Some(Duration::from_secs(5));
        let retry = Outcome::Retry { message: "later".into(), code: Some("rate_limited".into()), data, after };
        let (failure_, after) = failure(retry, &policy);
        assert_eq!(failure_.kind, FailureKind::PluginError);
        assert!(failure_.retryable);
        assert_eq!(failure_.detail, json!({"code": "rate_limited", "data": {"rest": [1, 2]}}));
        assert_eq!(after, Some(Duration::from_secs(5)));

        let permanent = Outcome::Permanent { message: "never".into(), code: None, data: Some("not JSON".into()) };
        let all = RetryPolicy { on: Some(vec![FailureKind::PluginError]), ..policy.clone() };
        let (failure_, _) = failure(permanent, &all);
        assert!(!failure_.retryable, "the guest's word is the last");
        assert_eq!(failure_.detail, json!({"code": null, "data": "not JSON"}));

        let invalid = Outcome::InvalidInput { message: "url".into(), pointer: Some("/url".into()) };
        let (failure_, _) = failure(invalid, &policy);
        assert_eq!((failure_.kind, failure_.retryable), (FailureKind::InvalidInput, false));
        assert_eq!(failure_.detail, json!({"pointer": "/url"}));
    }

    #[test]
    fn every_fault_keeps_its_word_and_follows_the_policy() {
        let kinds = [
            FaultKind::Trap,
            FaultKind::Timeout,
            FaultKind::CpuLimit,
            FaultKind::MemoryLimit,
            FaultKind::ResourceLimit,
            FaultKind::OutputTooLarge,
            FaultKind::InvalidOutput,
            FaultKind::Denied,
            FaultKind::Internal,
        ];
        let (default, only_cpu) =
            (RetryPolicy::default(), RetryPolicy { on: Some(vec![FailureKind::CpuLimit]), ..RetryPolicy::default() });
        for kind in kinds {
            let (failure_, _) = failure(fault(kind), &default);
            assert_eq!(failure_.kind.as_str(), kind.as_str());
            assert_eq!(failure_.detail, json!({"limit": "x"}));
            let expected = matches!(kind, FaultKind::Trap | FaultKind::Timeout | FaultKind::Internal);
            assert_eq!(failure_.retryable, expected, "{kind:?}");
            assert_eq!(failure(fault(kind), &only_cpu).0.retryable, kind == FaultKind::CpuLimit);
        }
    }

    #[test]
    fn other_endings_keep_their_meaning() {
        let policy = RetryPolicy::default();
        let verdict = |outcome| report(ran(outcome), &policy).verdict;
        assert_eq!(verdict(Outcome::Output("\"failed\"".into())), Verdict::Output("\"failed\"".into()));
        assert_eq!(verdict(Outcome::Stopped), Verdict::Stopped);
        let none = agentry_sandbox::NoMemory { asked: 4, held: 3, free: 2, total: 1 };
        assert_eq!(verdict(Outcome::NoMemory(none)), Verdict::NoMemory { asked: 4, held: 3, free: 2, total: 1 });
        let after = Duration::from_secs(9);
        let snooze = Outcome::Snooze { message: "early".into(), after };
        assert_eq!(verdict(snooze), Verdict::Snooze { message: "early".into(), after });
    }

    #[test]
    fn lines_and_usage_are_carried_over() {
        let line = agentry_sandbox::LogLine {
            seq: 3,
            at: SystemTime::UNIX_EPOCH,
            stream: Stream::Stderr,
            level: Level::Critical,
            logger: "l".into(),
            message: "m".into(),
            cut: true,
        };
        let usage = agentry_sandbox::Usage { cpu: Duration::from_micros(7), host_calls: 2, ..Default::default() };
        let report = report(Ran { outcome: Outcome::Stopped, usage, logs: vec![line] }, &RetryPolicy::default());
        assert_eq!((report.usage.cpu_us, report.usage.host_calls), (7, 2));
        let line = &report.logs[0];
        assert_eq!((line.seq, line.stream, line.level, line.cut), (3, "stderr", "critical", true));
        assert_eq!(line.at, DateTime::<Utc>::UNIX_EPOCH);
    }
}
