//! What this process has done and holds, as `GET /metrics` shows it.
//!
//! An attempt is counted once, when its end is recorded: by the process whose settlement the database took, which it then is
//! not by any other. What was fenced, and what a later process found in the spool, is not counted by anybody; the rows of the
//! attempts have it.
//!
//! Labels are bounded: queues, models and groups are those of the settings, plugins those that are installed and ran, and all other
//! words are fixed. Everything else is `other`, so that neither a producer nor a guest can make series.
//!
//! The path of a task pays for atomic additions alone. Series that it needs are found in maps that do not change, or by one lock for
//! reading, and nothing is allocated for a task without calls. Levels are read when the metrics are.

mod counted;
mod ends;
mod form;
mod levels;
mod process;
mod sampled;
mod spend;
mod spread;
pub mod table;
#[cfg(test)]
mod tests;
mod traffic;
mod words;

pub use counted::Counted;
pub use ends::OTHER;
pub use form::{OPEN as MEDIA_TYPE, PLAIN, is_plain};
pub use levels::{LeaseFacts, ReadyFacts, Sources};
pub use sampled::{QUEUES, QueueLevels, Sampled, WaitingTasks};
pub use spend::{Price, Prices};
pub use traffic::REASONS;
pub use words::{Leg, Replied, Step};

use crate::broker::{Acknowledged, PublishError};
use crate::db::{ClaimAnswer, RecordAnswer, SettleAnswer};
use crate::registry::{MemoryBudget, Turns};
use crate::task::settle::{Call, Usage};
use crate::task::{Event, FailureKind, TaskId, TaskMessage};
use ends::Ends;
use levels::{Levels, Process};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use spend::Spend;
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use traffic::Traffic;
use words::Claim;

/// The longest time since its creation for which a task is believed: ids that hold a time are made by producers.
const BELIEVED: Duration = Duration::from_secs(30 * 86_400);
/// How far a producer's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(5);

/// The labels of a task that runs here, kept until its end is recorded.
#[derive(Clone, Debug)]
pub struct About {
    /// The plugin that runs it.
    pub plugin: Arc<str>,
    queue: Arc<str>,
    /// Its creation, or its `run_at` if that is later; `None`: not known.
    due: Option<SystemTime>,
    /// By the label that the operator names.
    group: Option<Arc<str>>,
}

impl From<&str> for About {
    /// Of a queue and a time that are not known.
    fn from(plugin: &str) -> About {
        About { plugin: plugin.into(), queue: OTHER.into(), due: None, group: None }
    }
}

/// Counters, and where the levels are read.
pub struct Metrics {
    registry: Registry,
    process: Registry,
    ends: Ends,
    spend: Spend,
    traffic: Traffic,
    levels: Arc<Levels>,
}

impl Metrics {
    /// Everything at zero, without queues and prices. `busy`, `memory` and `turns` are read when the metrics are.
    pub fn new(slots: u32, busy: Arc<AtomicU32>, memory: MemoryBudget, turns: Turns) -> Metrics {
        Metrics::knowing(slots, busy, memory, turns, &[], Prices::default())
    }

    /// The same with the queues and the prices of the settings.
    pub fn knowing(
        slots: u32,
        busy: Arc<AtomicU32>,
        memory: MemoryBudget,
        turns: Turns,
        queues: &[String],
        prices: Prices,
    ) -> Metrics {
        let (mut registry, mut process) = (Registry::with_prefix("agentry"), Registry::default());
        process.register_collector(Box::new(Process));
        let (sources, sampled) = (OnceLock::new(), RwLock::default());
        let levels = Arc::new(Levels { slots, busy, memory, turns, sources, sampled });
        registry.register_collector(Box::new(levels.clone()));
        let traffic = Traffic::new(&mut registry, queues);
        let ends = Ends::new(&mut registry);
        let spend = Spend::new(&mut registry, prices);
        Metrics { registry, process, ends, spend, traffic, levels }
    }

    /// Read levels here too. Only the first call has an effect.
    pub fn watch(&self, sources: Sources) {
        let _ = self.levels.sources.set(sources);
    }

    /// A message was delivered. `returned`: the broker had given it up.
    pub fn delivery(&self, queue: &str, returned: bool, redelivered: bool) {
        self.traffic.delivery(queue, returned, redelivered);
    }

    /// The first attempt of a task begins, or the claim for it.
    pub fn begun(&self, queue: &str, message: &TaskMessage) {
        if let Some(waited) = due(message).and_then(|due| passed(due, SystemTime::now())) {
            self.traffic.waited(queue, waited);
        }
    }

    /// The labels of a task that runs here.
    pub fn about(&self, plugin: Arc<str>, queue: Arc<str>, message: &TaskMessage) -> About {
        let group = self.spend.group(&message.options.labels).map(Arc::from);
        About { plugin, queue, due: due(message), group }
    }

    /// A claim was decided.
    pub fn claim(&self, answer: &ClaimAnswer) {
        self.traffic.claim(Claim::of(answer));
    }

    /// A first attempt without a claim was decided.
    pub fn record(&self, answer: &RecordAnswer) {
        self.traffic.record(answer);
    }

    /// A settlement was decided.
    pub fn settlement(&self, answer: &SettleAnswer) {
        self.traffic.settlement(answer);
    }

    /// An attempt's end was recorded.
    pub fn ended(&self, about: &About, event: Event, kind: Option<FailureKind>, usage: &Usage, calls: &[Call]) {
        self.ends.count(&about.plugin, event, kind, usage);
        self.ends.calls(&about.plugin, calls, about.group.as_deref(), &self.spend);
        let is_last = matches!(event, Event::Completed | Event::Failed | Event::Cancelled);
        if let Some(took) = about.due.filter(|_| is_last).and_then(|due| passed(due, SystemTime::now())) {
            self.traffic.ended(&about.queue, took);
        }
    }

    /// An attempt's end was recorded, of a plugin alone.
    pub fn attempt(&self, plugin: &str, event: Event, kind: Option<FailureKind>, usage: &Usage, calls: &[Call]) {
        self.ended(&plugin.into(), event, kind, usage, calls);
    }

    /// A task has come a part of its way.
    pub fn leg(&self, leg: Leg, took: Duration) {
        self.traffic.leg(leg, took);
    }

    /// A step handled so many tasks at once.
    pub fn batch(&self, step: Step, size: usize) {
        self.traffic.batch(step, size);
    }

    /// A dead letter was recorded, for one of the reasons that the code has.
    pub fn letter(&self, queue: &str, reason: &str) {
        self.traffic.letter(queue, reason);
    }

    /// A duty acted on so many tasks.
    pub fn swept(&self, duty: &'static str, tasks: u64) {
        self.traffic.swept(duty, tasks);
    }

    /// A reply was published, or given up.
    pub fn reply(&self, outcome: Replied) {
        self.traffic.reply(outcome);
    }

    /// So many brakes of a kind hold.
    pub fn brakes(&self, kind: &'static str, number: usize) {
        self.traffic.brakes(kind, number);
    }

    /// There was no memory for a task that grew.
    pub fn memory_interruption(&self) {
        self.traffic.memory_interruptions.inc();
    }

    fn acknowledged(&self, answer: Acknowledged) {
        self.traffic.acknowledged(answer);
    }

    fn given_back(&self, answer: Acknowledged) {
        self.traffic.given_back(answer);
    }

    fn published<'a>(
        &self,
        took: Duration,
        answers: impl Iterator<Item = (&'static str, &'a Result<(), PublishError>)>,
    ) {
        self.traffic.published(took, answers);
    }

    /// Database and broker were sampled; `None`: they did not answer, and the last sample is not shown any more.
    pub fn sampled(&self, sampled: Option<Sampled>) {
        if sampled.is_none() {
            self.traffic.sample_failures.inc();
        }
        let bounded = sampled.map(|sampled| sampled.bounded(OTHER, |queue| self.traffic.knows(queue)));
        let mut shown = self.levels.sampled.write().unwrap_or_else(PoisonError::into_inner);
        let at = shown.at;
        *shown = bounded.unwrap_or(Sampled { at, ..Sampled::default() });
    }

    /// A warning about tasks that wait was logged.
    pub fn warned(&self, queue: &str, code: crate::task::WaitCode) {
        let of_a_host = self.levels.sampled.read().unwrap_or_else(PoisonError::into_inner).knows(queue);
        let queue = if of_a_host || self.traffic.knows(queue) { queue } else { OTHER };
        self.traffic.warned(queue, code.as_str());
    }

    /// All of it, as a scraper reads it; see [`MEDIA_TYPE`]. It reads files, and is to run where that may wait.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a text does not fail.
        let _ = text::encode_registry(&mut out, &self.registry);
        let _ = text::encode_registry(&mut out, &self.process);
        let _ = text::encode_eof(&mut out);
        out
    }

    /// The same in the older form; see [`PLAIN`].
    pub fn plain_text(&self) -> String {
        form::plain(&self.text())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// When a task was to begin: its creation, by an id that holds the time, or its `run_at` if that is later.
fn due(message: &TaskMessage) -> Option<SystemTime> {
    let created = created(message.id)?;
    Some(message.options.run_at.map_or(created, |run_at| created.max(run_at.into())))
}

/// The time in an id of version 7, which is what the daemon and its clients make.
fn created(id: TaskId) -> Option<SystemTime> {
    if id.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// The time since then, as far as it can be believed.
fn passed(then: SystemTime, now: SystemTime) -> Option<Duration> {
    match now.duration_since(then) {
        Ok(passed) => Some(passed).filter(|passed| *passed <= BELIEVED),
        Err(ahead) => (ahead.duration() <= AHEAD).then_some(Duration::ZERO),
    }
}
