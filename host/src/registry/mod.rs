//! Which plugins exist and what they may do.
//!
//! The worker sees two traits: a [`Catalog`] resolves what a task asks for to a [`Runner`], and a runner runs one attempt.
//! Nothing above this module knows that plugins are WebAssembly.
//!
//! ```text
//! folders ─▶ scan ─▶ load: manifest + limits + policy + sandbox ─▶ snapshot ─▶ Catalog::resolve ─▶ Runner::run
//!    ▲ events, and a look every 30 s (live)
//! ```
//!
//! What is in the folders decides: a folder offers the version that it holds, and several versions stand in several
//! folders. What is new must be well before what it replaces goes, and whatever is wrong is a sentence with a remedy, on
//! its own plugin alone.

mod folders;
mod info;
mod installed;
mod late;
pub mod limits;
mod live;
mod load;
mod manifest;
mod pins;
pub mod policy;
mod reach;
mod reader;
mod recording;
mod report;
mod scan;
mod snapshot;
mod stores;

#[cfg(test)]
mod tests;

pub use agentry_sandbox::{Compiler, MemoryBudget, Reservation, Turn, Turns, compile, open_pagemap};
pub use info::{GrantInfo, LimitInfo, Origin, PluginInfo, PluginState, VersionInfo};
pub use installed::Installed;
pub use late::Late;
pub use limits::{Ceilings, LimitError, LimitSettings, LimitWishes};
pub use live::{Registry, RegistryConfig, RegistryError, SandboxSettings, sandbox};
pub use load::wishes_of;
pub use manifest::{Manifest, RetryWishes};
pub use pins::Pins;
pub use policy::{CapabilityPolicy, CapabilityWishes, PluginPolicy, Policies, PolicyError};
pub use reach::Reach;
pub use reader::ManifestError;
pub use recording::{BODIES, CallsPolicy};
pub use stores::{BudgetLimits, TaskStores, spending_name};

use crate::task::settle::{LogLine, Report, Verdict};
use crate::task::{Fence, PluginRef, RetryPolicy, TaskId};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What can be run here. Cheap to ask: called once per arrival.
pub trait Catalog: Send + Sync + 'static {
    /// What runs a task that asks for this: the highest version that fits, a pre-release only if the requirement names
    /// one. Ask anew for every attempt, so that a fix reaches waiting retries.
    fn resolve(&self, plugin: &PluginRef) -> Resolved;
    /// Grows whenever an answer of [`Catalog::resolve`] may have become another: parked tasks may be runnable now.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Everything, by name.
    fn list(&self) -> Vec<PluginInfo>;
    /// What the host's row in the database says about its plugins.
    fn served(&self) -> Served;
}

/// The answer to "who runs this?".
#[derive(Clone)]
pub enum Resolved {
    /// This build does.
    Ready(Arc<dyn Runner>),
    /// It exists, and failed to load: the task waits as `plugin_broken`.
    Broken {
        /// What is wrong, where, and the remedy.
        cause: String,
    },
    /// It exists, and the operator turned it off on this host.
    Disabled,
    /// No such plugin, or none of that version.
    Unknown {
        /// What could be asked for instead, nearest first: names, or if the name is known, its `name@version`s.
        known: Vec<String>,
    },
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resolved::Ready(runner) => write!(f, "Ready({}@{})", runner.name(), runner.version()),
            Resolved::Broken { cause } => f.debug_struct("Broken").field("cause", cause).finish(),
            Resolved::Disabled => f.write_str("Disabled"),
            Resolved::Unknown { known } => f.debug_struct("Unknown").field("known", known).finish(),
        }
    }
}

/// For the host's row: see `HostRecord` in [`crate::db`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// `name@version` of everything that is ready.
    pub plugins: Vec<String>,
    /// `name: cause` of everything that failed to load.
    pub broken: Vec<String>,
}

/// One build of one plugin, ready to run. Whoever holds it can finish on it, whatever becomes of its folder.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// The plugin's name.
    fn name(&self) -> &Arc<str>;
    /// Its version.
    fn version(&self) -> &Arc<str>;
    /// `sha256:<hex>` of its component.
    fn digest(&self) -> &Arc<str>;
    /// The logical queue of its tasks unless they say otherwise.
    fn queue(&self) -> &str;
    /// When a failed attempt is followed by another. `max_attempts` holds unless the task says otherwise.
    fn retry(&self) -> &RetryPolicy;
    /// Most attempts at once on this host, over all versions of the name; `None`: as many as there are slots.
    fn concurrency(&self) -> Option<u32>;
    /// Whether a run may change or spend something outside its sandbox: requests, chats, tools, buckets, memories. One that may
    /// not can be run once more without a visible effect, so its first attempt needs no durable claim before it begins.
    fn has_effects(&self) -> bool;
    /// Wall clock of one attempt unless the task says otherwise.
    fn timeout(&self) -> Duration;
    /// The most that a task may ask for instead; `None`: as much as its message was allowed to.
    fn timeout_ceiling(&self) -> Option<Duration> {
        None
    }
    /// The folder (or the component) that it was loaded from.
    fn place(&self) -> &Path;
    /// Bytes that an attempt counts with against `worker.memory_mib` from before it begins; at most [`Runner::memory_limit`].
    fn memory_reserve(&self) -> u64;
    /// Bytes of linear memory that an attempt may have in all.
    fn memory_limit(&self) -> u64;
    /// Run one attempt. Every ending is in the report: it neither fails nor panics, whatever the guest does, and it ends
    /// within the attempt's time-out, or within a second of `job.stop`.
    async fn run(&self, job: Job) -> Report;
}

/// What a run comes to for which there is no memory.
pub fn no_memory(none: agentry_sandbox::NoMemory) -> Verdict {
    let agentry_sandbox::NoMemory { asked, held, free, total } = none;
    Verdict::NoMemory { asked, held, free, total }
}

/// The isolation lane: one attempt in a process of its own, so that what kills its process kills nothing else.
#[async_trait]
pub trait Isolation: Send + Sync + 'static {
    /// As [`Runner::run`]. The verdict is `ChildDied` if, and only if, the process ended without a report while this one
    /// lived.
    async fn run(&self, runner: &dyn Runner, job: Job) -> Report;
}

/// Called with every line as it arrives; must not block.
pub type LogSink = Arc<dyn Fn(&LogLine) + Send + Sync>;

/// One attempt to be run.
#[derive(Clone)]
pub struct Job {
    /// The task.
    pub id: TaskId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// The claim under which it runs: what it stores is stored only while this holds. `None`: a run without a claim:
    /// by hand, or of a plugin without effects, which stores nothing.
    pub fence: Option<Fence>,
    /// JSON text, as it came.
    pub input: Arc<str>,
    /// The producer's own words.
    pub labels: BTreeMap<String, String>,
    /// The task's `options.timeout_seconds`; `None`: [`Runner::timeout`].
    pub timeout: Option<Duration>,
    /// Ends the attempt if it comes before the time-out does.
    pub deadline: Option<Instant>,
    /// Cancelled: the guest is stopped where it is, and the verdict is `Stopped`.
    pub stop: CancellationToken,
    /// Its part of `worker.memory_mib`: more is drawn from what is free of it, and where nothing is the verdict is
    /// `NoMemory`. `None`: only the plugin's own limit holds.
    pub memory: Option<Arc<Reservation>>,
    /// Its turn to compute, which has begun: free for others while the guest waits in a host call. `None`: it is not counted.
    pub turn: Option<Arc<Turn>>,
    /// Sees the lines before the report does, for a person who watches.
    pub on_log: Option<LogSink>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("input_bytes", &self.input.len())
            .finish_non_exhaustive()
    }
}
