//! One build of one plugin.

use super::limits::ResolvedLimits;
use super::reach::Granted;
use super::recording::CallsPolicy;
use super::report::{log_line, report};
use super::{GrantInfo, Job, Runner};
use crate::task::RetryPolicy;
use crate::task::settle::Report;
use agentry_sandbox::{Invocation, Limits, Plugin};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use semver::Version;
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
    pub(super) granted: Granted,
    pub(super) calls: CallsPolicy,
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

    fn has_effects(&self) -> bool {
        self.granted.has_effects()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.limits.values.timeout_seconds)
    }

    fn timeout_ceiling(&self) -> Option<Duration> {
        Some(self.ceiling)
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
        let access = self.granted.access(&job);
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
            turn: job.turn,
            deadline: job.deadline,
            stop: job.stop,
            on_log,
            access,
            bodies: self.calls.to_sandbox(),
        };
        report(self.plugin.run(invocation).await, &self.retry)
    }
}
