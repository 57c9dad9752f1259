//! What plugins do here, and who serves which.

use super::expectation::Deed;
use super::ledger::Run;
use super::wire::Wire;
use crate::registry::{self, Catalog, Isolation, Job, PluginInfo, Resolved, Runner, Served};
use crate::task::settle::{Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, PluginRef, RetryPolicy};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Plugins that every host serves; `narrow` runs once at a time on each.
pub const EVERYWHERE: [&str; 3] = ["wide", "narrow", PURE];
/// The plugin without effects: its first attempts run without a claim.
const PURE: &str = "pure";
/// The plugin that only the first host serves.
pub const FIRST: &str = "first";
/// The plugin that nobody serves.
pub const NOWHERE: &str = "nowhere";
const VERSION: &str = "1.0.0";
/// What a run reserves by itself, in bytes.
const RESERVED: u64 = 64 << 10;
/// What a run of `wide` grows to, in bytes, and no run may exceed.
pub const GROWN: u64 = 4 * RESERVED;
/// Wall clock of an attempt.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What one host can run.
pub struct Plugins {
    wire: Arc<Wire>,
    changes: watch::Sender<u64>,
}

impl Plugins {
    /// The plugins of the host at the end of this wire.
    pub fn of(wire: Arc<Wire>) -> Plugins {
        Plugins { wire, changes: watch::Sender::new(0) }
    }

    fn names(&self) -> Vec<&'static str> {
        let first = (self.wire.place == 0).then_some(FIRST);
        EVERYWHERE.into_iter().chain(first).collect()
    }
}

impl Catalog for Plugins {
    fn resolve(&self, plugin: &PluginRef) -> Resolved {
        // What is parked asks as well; it was decoded long ago.
        match self.names().into_iter().find(|name| *name == &*plugin.name) {
            Some(name) => Resolved::Ready(Arc::new(Guest::new(self.wire.clone(), name))),
            None => Resolved::Unknown { known: self.names().into_iter().map(str::to_owned).collect() },
        }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    fn list(&self) -> Vec<PluginInfo> {
        Vec::new()
    }
    fn served(&self) -> Served {
        let plugins = self.names().into_iter().map(|name| format!("{name}@{VERSION}")).collect();
        Served { plugins, broken: Vec::new() }
    }
}

/// One plugin on one host.
struct Guest {
    wire: Arc<Wire>,
    name: Arc<str>,
    version: Arc<str>,
    digest: Arc<str>,
    retry: RetryPolicy,
}

impl Guest {
    fn new(wire: Arc<Wire>, name: &str) -> Guest {
        let retry =
            RetryPolicy { base: Duration::from_millis(500), max: Duration::from_secs(3), ..RetryPolicy::default() };
        Guest { wire, name: name.into(), version: VERSION.into(), digest: "sha256:0".into(), retry }
    }
}

/// What a task's input asks its guest to do.
fn deed(job: &Job) -> (Deed, Duration) {
    let input: Value = serde_json::from_str(&job.input).unwrap_or_default();
    let deed = input["do"].as_str().and_then(Deed::parse).unwrap_or(Deed::End);
    (deed, Duration::from_millis(input["for"].as_u64().unwrap_or(0)))
}

/// Enters a beginning; answers its place in the ledger.
fn begin(wire: &Wire, job: &Job, pure: bool) -> usize {
    let shared = &wire.world;
    let after_the_end = shared.db.look().tasks.get(&job.id).is_some_and(|task| task.state.is_terminal());
    let claimed = job.fence.is_some();
    let mut ledger = shared.ledger();
    let run = Run { id: job.id, attempt: job.attempt, host: wire.host, pure, claimed, after_the_end, ended: false };
    ledger.0.push(run);
    ledger.0.len() - 1
}

fn report(verdict: Verdict) -> Report {
    Report { verdict, usage: Usage::default(), logs: Vec::new(), calls: Vec::new() }
}

fn failed(message: &str, retryable: bool) -> Verdict {
    let failure = Failure { retryable, ..Failure::fatal(FailureKind::PluginError, message) };
    Verdict::Failed { failure, after: None }
}

#[async_trait]
impl Runner for Guest {
    async fn run(&self, job: Job) -> Report {
        let wire = &self.wire;
        wire.alive().await;
        let (deed, length) = deed(&job);
        let run = begin(wire, &job, !self.has_effects());
        wire.step("s4 entered", &job.id);
        wire.die_at("s4 crash");
        if deed == Deed::Kill {
            wire.world.count("a guest killed its host");
            wire.die();
        }
        wire.alive().await;
        tokio::select! {
            biased;
            () = job.stop.cancelled() => return report(Verdict::Stopped),
            () = past(job.deadline) => {
                let failure = Failure::fatal(FailureKind::Timeout, "its deadline passed while it ran");
                return report(Verdict::Failed { failure, after: None });
            }
            () = tokio::time::sleep(length) => {}
        }
        wire.alive().await;
        let grows = job.memory.as_ref().filter(|_| *self.name == *"wide");
        if let Some(Err(none)) = grows.map(|memory| memory.try_hold(GROWN)) {
            wire.world.count("no memory for a guest");
            return report(registry::no_memory(none));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        wire.alive().await;
        let begun = wire.world.ledger().of(job.id);
        wire.world.ledger().0[run].ended = true;
        report(match deed {
            Deed::FailTwice if job.attempt < 3 => failed("not yet", true),
            Deed::Fail => failed("never", false),
            Deed::FailAlways => failed("never, again", true),
            Deed::Snooze if begun < 2 => {
                Verdict::Snooze { message: "later".into(), after: Duration::from_millis(1_500) }
            }
            // Whose outcome it is, for the verdict at the end.
            _ => Verdict::Output(json!({"run": run}).to_string().into()),
        })
    }
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn version(&self) -> &Arc<str> {
        &self.version
    }
    fn digest(&self) -> &Arc<str> {
        &self.digest
    }
    fn queue(&self) -> &str {
        "default"
    }
    fn retry(&self) -> &RetryPolicy {
        &self.retry
    }
    fn concurrency(&self) -> Option<u32> {
        (&*self.name == "narrow").then_some(1)
    }
    fn has_effects(&self) -> bool {
        *self.name != *PURE
    }
    fn timeout(&self) -> Duration {
        TIMEOUT
    }
    fn place(&self) -> &Path {
        Path::new("/")
    }
    fn memory_reserve(&self) -> u64 {
        RESERVED
    }
    fn memory_limit(&self) -> u64 {
        GROWN
    }
}

async fn past(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The isolation lane of one host.
pub struct Lane(pub Arc<Wire>);

#[async_trait]
impl Isolation for Lane {
    async fn run(&self, runner: &dyn Runner, job: Job) -> Report {
        self.0.world.count("a guest ran alone");
        if deed(&job).0 != Deed::Kill {
            return runner.run(job).await;
        }
        self.0.alive().await;
        begin(&self.0, &job, false);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.alive().await;
        report(Verdict::ChildDied { message: "killed".into() })
    }
}
