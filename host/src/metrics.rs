//! What this process has done and holds, as `GET /metrics` shows it.
//!
//! An attempt is counted once, when its end is recorded: by the process whose settlement the database took, which it then is
//! not by any other. What was fenced, and what a later process found in the spool, is not counted by anybody; the rows of the
//! attempts have it. Labels are bounded: plugins' names are those of plugins that are installed and ran, the other words are
//! fixed.

use crate::registry::{MemoryBudget, Turns};
use crate::task::settle::{Call, Usage};
use crate::task::{Event, FailureKind};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// The media type of [`Metrics::text`]: Prometheus' text format as OpenMetrics has written it down.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of peak memory, in bytes.
const PEAKS: [f64; 6] = [MIB, 4.0 * MIB, 16.0 * MIB, 64.0 * MIB, 256.0 * MIB, 1_024.0 * MIB];
const MIB: f64 = 1_048_576.0;

/// The upper bound of the first bucket of a leg, in seconds; each further one is 1.5 times as far, up to 14 s.
const LEAST_LEG: f64 = 0.000_05;
const LEG_BUCKETS: u16 = 32;

/// A part of a task's way through this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// From its delivery to the beginning of its run, or of its claim where that comes first.
    Wait,
    /// Until its claim is committed.
    Claim,
    /// Until its guest has ended.
    Run,
    /// Until its end is committed.
    Settle,
    /// Until its acknowledgement is written to the broker's connection.
    Acknowledge,
}

impl Leg {
    /// Every leg, in the order of a task's way.
    pub const ALL: [Leg; 5] = [Leg::Wait, Leg::Claim, Leg::Run, Leg::Settle, Leg::Acknowledge];

    fn as_str(self) -> &'static str {
        match self {
            Leg::Wait => "wait",
            Leg::Claim => "claim",
            Leg::Run => "run",
            Leg::Settle => "settle",
            Leg::Acknowledge => "acknowledge",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLeg {
    leg: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    plugin: String,
    /// The event's name.
    ended: &'static str,
    /// The failure's kind; empty where there is none.
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    plugin: String,
    capability: String,
    /// `ok`, or the stable word for why not.
    result: String,
}

/// Outcome of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replied {
    /// The broker confirmed it.
    Published,
    /// Its queue does not exist.
    Unroutable,
    /// Its queue did not accept it for as long as it is tried.
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReply {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBrake {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Doing {
    /// `computing` or `waiting`.
    state: &'static str,
}

type Seconds = Family<Of, Counter<f64, AtomicU64>>;
type Level = Gauge<i64, AtomicI64>;

/// Counters, and where the levels are read.
pub struct Metrics {
    registry: Registry,
    attempts: Family<Ending, Counter>,
    wall: Seconds,
    cpu: Seconds,
    log_bytes: Family<Of, Counter>,
    host_calls: Family<Of, Counter>,
    capability_calls: Family<Called, Counter>,
    capability_wall: Family<Called, Counter<f64, AtomicU64>>,
    llm_tokens: Family<Of, Counter>,
    peak_memory: Family<Of, Histogram, fn() -> Histogram>,
    memory_interruptions: Counter,
    replies: Family<OfReply, Counter>,
    brakes: Family<OfBrake, Level>,
    legs: [Histogram; Leg::ALL.len()],
    slots_busy: Level,
    guests: Family<Doing, Level>,
    memory_reserved: Level,
    memory_waiting: Level,
    busy: Arc<AtomicU32>,
    memory: MemoryBudget,
    turns: Turns,
}

impl Metrics {
    /// Everything at zero. `busy`, `memory` and `turns` are read when the metrics are.
    pub fn new(slots: u32, busy: Arc<AtomicU32>, memory: MemoryBudget, turns: Turns) -> Metrics {
        let peaks: fn() -> Histogram = || Histogram::new(PEAKS);
        let legs: Family<OfLeg, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(LEAST_LEG, 1.5, LEG_BUCKETS)));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("agentry"),
            attempts: Family::default(),
            wall: Family::default(),
            cpu: Family::default(),
            log_bytes: Family::default(),
            host_calls: Family::default(),
            capability_calls: Family::default(),
            capability_wall: Family::default(),
            llm_tokens: Family::default(),
            peak_memory: Family::new_with_constructor(peaks),
            memory_interruptions: Counter::default(),
            replies: Family::default(),
            brakes: Family::default(),
            legs: Leg::ALL.map(|leg| legs.get_or_create(&OfLeg { leg: leg.as_str() }).clone()),
            slots_busy: Level::default(),
            guests: Family::default(),
            memory_reserved: Level::default(),
            memory_waiting: Level::default(),
            busy,
            memory,
            turns,
        };
        metrics.register(slots);
        let help = "Parts of a task's way through this host: wait, claim, run, settle, acknowledge";
        metrics.registry.register_with_unit("task_leg", help, Unit::Seconds, legs);
        metrics
    }

    fn register(&mut self, slots: u32) {
        let (all, budget) = (Level::default(), Level::default());
        all.set(slots.into());
        budget.set(level(self.memory.total()));
        let to = &mut self.registry;
        to.register("attempts", "Attempts whose end was recorded, by how they ended", self.attempts.clone());
        let (seconds, bytes) = (|| Unit::Seconds, || Unit::Bytes);
        to.register_with_unit("wall", "Time in instantiation and call", seconds(), self.wall.clone());
        to.register_with_unit("cpu", "Processor time of guests and what they called", seconds(), self.cpu.clone());
        to.register_with_unit("log", "Log that was kept", bytes(), self.log_bytes.clone());
        to.register("host_calls", "Calls out of guests", self.host_calls.clone());
        let help = "Calls of capabilities, of each attempt the first thousand, by how they ended";
        to.register("capability_calls", help, self.capability_calls.clone());
        let help = "Time in the same";
        to.register_with_unit("capability_wall", help, seconds(), self.capability_wall.clone());
        to.register("llm_tokens", "Tokens of language models, of requests and answers", self.llm_tokens.clone());
        let help = "The most linear memory of an attempt";
        to.register_with_unit("peak_memory", help, bytes(), self.peak_memory.clone());
        let help = "Attempts that were interrupted because worker.memory_mib had no more for them";
        to.register("memory_interruptions", help, self.memory_interruptions.clone());
        let help = "Replies to producers, by what became of them: published, unroutable, expired";
        to.register("replies", help, self.replies.clone());
        to.register("brakes", "Brakes of operators that hold, by kind: queue, plugin, host", self.brakes.clone());
        to.register("slots", "Tasks that may be in memory at once", all);
        to.register(
            "slots_busy",
            "Slots that are taken, by tasks that run or wait for memory",
            self.slots_busy.clone(),
        );
        let help = "Guests in memory, by whether they compute or wait in a call";
        to.register("guests", help, self.guests.clone());
        to.register_with_unit("memory_budget", "worker.memory_mib", bytes(), budget);
        let help = "Of it, what computing guests have reserved or drawn, and what waiting guests occupy";
        to.register_with_unit("memory_reserved", help, bytes(), self.memory_reserved.clone());
        to.register("memory_waiting", "Tasks that wait for memory, to begin or to go on", self.memory_waiting.clone());
    }

    /// So many brakes of a kind hold.
    pub fn brakes(&self, kind: &'static str, number: usize) {
        self.brakes.get_or_create(&OfBrake { kind }).set(number.try_into().unwrap_or(i64::MAX));
    }

    /// A reply was published, or given up.
    pub fn reply(&self, outcome: Replied) {
        let outcome = match outcome {
            Replied::Published => "published",
            Replied::Unroutable => "unroutable",
            Replied::Expired => "expired",
        };
        self.replies.get_or_create(&OfReply { outcome }).inc();
    }

    /// An attempt's end was recorded.
    pub fn attempt(&self, plugin: &str, event: Event, kind: Option<FailureKind>, usage: &Usage, calls: &[Call]) {
        let of = Of { plugin: plugin.to_owned() };
        let kind = kind.map_or("", FailureKind::as_str);
        let ending = Ending { plugin: plugin.to_owned(), ended: event.as_str(), kind };
        self.attempts.get_or_create(&ending).inc();
        self.wall.get_or_create(&of).inc_by(usage.wall_us as f64 / 1e6);
        self.cpu.get_or_create(&of).inc_by(usage.cpu_us as f64 / 1e6);
        self.log_bytes.get_or_create(&of).inc_by(usage.log_bytes);
        self.host_calls.get_or_create(&of).inc_by(usage.host_calls);
        self.peak_memory.get_or_create(&of).observe(usage.peak_memory as f64);
        if usage.llm_tokens > 0 {
            self.llm_tokens.get_or_create(&of).inc_by(usage.llm_tokens);
        }
        for call in calls {
            let called =
                Called { plugin: plugin.to_owned(), capability: call.capability.clone(), result: call.result.clone() };
            self.capability_calls.get_or_create(&called).inc();
            self.capability_wall.get_or_create(&called).inc_by(call.duration_us as f64 / 1e6);
        }
    }

    /// A task has come a part of its way.
    pub fn leg(&self, leg: Leg, took: std::time::Duration) {
        self.legs[leg as usize].observe(took.as_secs_f64());
    }

    /// There was no memory for a task that grew.
    pub fn memory_interruption(&self) {
        self.memory_interruptions.inc();
    }

    /// All of it, as a scraper reads it; see [`MEDIA_TYPE`].
    pub fn text(&self) -> String {
        self.slots_busy.set(self.busy.load(Ordering::Relaxed).into());
        let guests = self.turns.guests();
        for (state, number) in [("computing", guests.computing), ("waiting", guests.waiting)] {
            self.guests.get_or_create(&Doing { state }).set(number.into());
        }
        self.memory_reserved.set(level(self.memory.total() - self.memory.free()));
        self.memory_waiting.set(self.memory.waiting().try_into().unwrap_or(i64::MAX));
        let mut out = String::new();
        // Writing to a text does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn level(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_summed_by_plugin_and_levels_are_read_when_asked() {
        let (busy, memory) = (Arc::new(AtomicU32::new(0)), MemoryBudget::new(1 << 20));
        let metrics = Metrics::new(4, busy.clone(), memory.clone(), Turns::new(2));
        let usage = Usage {
            llm_tokens: 9,
            wall_us: 1_500_000,
            cpu_us: 250_000,
            log_bytes: 7,
            host_calls: 2,
            ..Usage::default()
        };
        let call = Call {
            seq: 1,
            at: chrono::DateTime::UNIX_EPOCH,
            capability: "llm".into(),
            operation: "chat".into(),
            target: "default".into(),
            duration_us: 500_000,
            request_bytes: 1,
            response_bytes: 1,
            result: "ok".into(),
            detail: serde_json::Value::Null,
            request_body: None,
            response_body: None,
        };
        metrics.attempt("p", Event::Completed, None, &usage, &[call.clone(), call]);
        metrics.attempt("p", Event::Retrying, Some(FailureKind::Trap), &usage, &[]);
        metrics.memory_interruption();
        let held = memory.try_reserve(1 << 16);
        busy.store(3, Ordering::Relaxed);
        let text = metrics.text();
        for line in [
            "agentry_attempts_total{plugin=\"p\",ended=\"completed\",kind=\"\"} 1",
            "agentry_attempts_total{plugin=\"p\",ended=\"retrying\",kind=\"trap\"} 1",
            "agentry_wall_seconds_total{plugin=\"p\"} 3.0",
            "agentry_cpu_seconds_total{plugin=\"p\"} 0.5",
            "agentry_log_bytes_total{plugin=\"p\"} 14",
            "agentry_host_calls_total{plugin=\"p\"} 4",
            "agentry_capability_calls_total{plugin=\"p\",capability=\"llm\",result=\"ok\"} 2",
            "agentry_capability_wall_seconds_total{plugin=\"p\",capability=\"llm\",result=\"ok\"} 1.0",
            "agentry_llm_tokens_total{plugin=\"p\"} 18",
            "agentry_peak_memory_bytes_count{plugin=\"p\"} 2",
            "agentry_memory_interruptions_total 1",
            "agentry_slots 4",
            "agentry_slots_busy 3",
            "agentry_guests{state=\"computing\"} 0",
            "agentry_guests{state=\"waiting\"} 0",
            "agentry_memory_budget_bytes 1048576",
            "agentry_memory_reserved_bytes 65536",
            "agentry_memory_waiting 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        drop(held);
        assert!(metrics.text().contains("agentry_memory_reserved_bytes 0\n"));
    }
}
