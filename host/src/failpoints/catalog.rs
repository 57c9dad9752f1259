//! The plugins with points, and the ledger of what their guests did.

use super::{action, after, effect};
use crate::registry::{Catalog, Job, PluginInfo, Resolved, Runner, Served};
use crate::task::settle::{LogLine, Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, PluginRef, RetryPolicy};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Resolves to runners with points.
pub struct Faulty(pub Arc<dyn Catalog>);

impl Catalog for Faulty {
    fn resolve(&self, plugin: &PluginRef) -> Resolved {
        // A delivery that was decoded asks this first. Nothing can be awaited here, so it is death or nothing.
        action("s1.decoded", &plugin.name);
        match self.0.resolve(plugin) {
            Resolved::Ready(runner) => Resolved::Ready(Arc::new(FaultyRunner(runner))),
            other => other,
        }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
    fn list(&self) -> Vec<PluginInfo> {
        self.0.list()
    }
    fn served(&self) -> Served {
        self.0.served()
    }
}

/// Runs between points.
pub struct FaultyRunner(pub Arc<dyn Runner>);

#[async_trait]
impl Runner for FaultyRunner {
    async fn run(&self, job: Job) -> Report {
        let subject = format!("{} {}", job.id, self.0.name());
        let (id, attempt, watcher) = (job.id, job.attempt, job.on_log.clone());
        let claim = if job.fence.is_some() { "" } else { " unclaimed" };
        let entered = subject.clone();
        let began = AtomicBool::new(false);
        let on_log = move |line: &LogLine| {
            // A guest says something first, whatever it is: its beginning.
            if !began.swap(true, Ordering::Relaxed) {
                effect(&format!("{id} {attempt} {}{claim}", std::process::id()));
                // In the guest's own call, on its own thread: it dies inside the guest, or the guest goes on.
                action("s4.entered", &entered);
            }
            if let Some(watcher) = &watcher {
                watcher(line);
            }
        };
        let report = self.0.run(Job { on_log: Some(Arc::new(on_log)), ..job }).await;
        match after("s4.ended", &subject, None).await {
            Ok(()) => report,
            Err(why) => {
                let failure = Failure { retryable: true, ..Failure::fatal(FailureKind::Internal, why) };
                let verdict = Verdict::Failed { failure, after: Some(Duration::ZERO) };
                Report { verdict, usage: Usage::default(), logs: Vec::new(), calls: Vec::new() }
            }
        }
    }
    fn name(&self) -> &Arc<str> {
        self.0.name()
    }
    fn version(&self) -> &Arc<str> {
        self.0.version()
    }
    fn digest(&self) -> &Arc<str> {
        self.0.digest()
    }
    fn queue(&self) -> &str {
        self.0.queue()
    }
    fn retry(&self) -> &RetryPolicy {
        self.0.retry()
    }
    fn concurrency(&self) -> Option<u32> {
        self.0.concurrency()
    }
    fn has_effects(&self) -> bool {
        self.0.has_effects()
    }
    fn timeout(&self) -> Duration {
        self.0.timeout()
    }
    fn timeout_ceiling(&self) -> Option<Duration> {
        self.0.timeout_ceiling()
    }
    fn place(&self) -> &Path {
        self.0.place()
    }
    fn memory_reserve(&self) -> u64 {
        self.0.memory_reserve()
    }
    fn memory_limit(&self) -> u64 {
        self.0.memory_limit()
    }
}
