//! Levels: read when the metrics are, from those who keep them.

use super::table::{Kind, row};
use super::{Sampled, process};
use crate::db::PoolFacts;
use crate::registry::{MemoryBudget, Turns};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// The lease of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseFacts {
    /// Time until it ends.
    pub remaining: Duration,
    /// Renewals that succeeded in time.
    pub renewed: u64,
    /// Renewals of a lease that had lapsed.
    pub lapsed: u64,
    /// Renewals that failed.
    pub failed: u64,
}

/// Whether this host takes tasks, and the codes of what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyFacts {
    /// It does.
    pub ready: bool,
    /// Codes of `/readyz`.
    pub reasons: Vec<String>,
}

type Source<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Those who keep levels, in the layers above. Each is asked at every scrape.
pub struct Sources {
    /// The build of this host.
    pub build: String,
    /// Connections to the database.
    pub pools: Source<Vec<PoolFacts>>,
    /// The lease.
    pub lease: Source<LeaseFacts>,
    /// Readiness.
    pub ready: Source<ReadyFacts>,
    /// Whether the broker is connected.
    pub broker_up: Source<bool>,
    /// Deliveries that this host may have in hand.
    pub window: Source<u32>,
    /// Lines of the log that were dropped.
    pub dropped_lines: Source<u64>,
    /// The folder of the spool.
    pub spool: PathBuf,
}

/// What is read at a scrape.
pub(super) struct Levels {
    pub slots: u32,
    pub busy: Arc<AtomicU32>,
    pub memory: MemoryBudget,
    pub turns: Turns,
    pub sources: OnceLock<Sources>,
    pub sampled: RwLock<Sampled>,
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Levels")
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out(&mut encoder);
        self.room(out)?;
        if let Some(sources) = self.sources.get() {
            sources.encode(out)?;
        }
        self.sampled.read().unwrap_or_else(PoisonError::into_inner).encode(out)
    }
}

impl Levels {
    fn room(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let guests = self.turns.guests();
        out.int("slots", self.slots.into())?;
        out.int("slots_busy", self.busy.load(Ordering::Relaxed).into())?;
        out.int("turns", self.turns.bound().into())?;
        let guests = [("computing", guests.computing), ("waiting", guests.waiting)];
        out.ints("guests", guests.map(|(state, number)| ([("state", state)], i64::from(number))))?;
        out.int("memory_budget", level(self.memory.total()))?;
        out.int("memory_reserved", level(self.memory.total() - self.memory.free()))?;
        out.int("memory_waiting", level(self.memory.waiting() as u64))
    }
}

impl Sources {
    fn encode(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.info("build", [("version", &*self.build)])?;
        let ready = (self.ready)();
        out.int("ready", ready.ready.into())?;
        let mut reasons = ready.reasons;
        reasons.sort_unstable();
        reasons.dedup();
        out.ints("readiness_reason", reasons.iter().map(|reason| ([("reason", &**reason)], 1)))?;
        out.int("broker_up", (self.broker_up)().into())?;
        out.int("window_deliveries", (self.window)().into())?;
        out.counter("log_lines_dropped", (self.dropped_lines)() as f64)?;
        let lease = (self.lease)();
        out.float("lease_remaining", lease.remaining.as_secs_f64())?;
        let renewals = [("renewed", lease.renewed), ("lapsed", lease.lapsed), ("failed", lease.failed)];
        out.counters("lease_renewals", renewals.map(|(result, number)| ([("result", result)], number)))?;
        let pools = (self.pools)();
        let connections = pools.iter().flat_map(|pool| {
            let states = [("max", pool.max), ("open", pool.open), ("used", pool.used)];
            states.map(|(state, number)| ([("pool", pool.name), ("state", state)], i64::from(number)))
        });
        out.ints("database_connections", connections)?;
        out.ints("database_waiting", pools.iter().map(|pool| ([("pool", pool.name)], i64::from(pool.waiting))))?;
        let (files, bytes) = spooled(&self.spool);
        out.int("spool", level(bytes))?;
        out.int("spool_files", level(files))
    }
}

/// Files in the folder and their bytes. There is none before something was spooled.
fn spooled(folder: &std::path::Path) -> (u64, u64) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.len()))
}

/// Unix time in seconds.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

pub(super) fn level(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is read of the process, under names without a prefix.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        process::encode(&mut Out(&mut encoder))
    }
}

/// Writes families by the texts of their rows. A family without samples is left out.
pub(super) struct Out<'a, 'b>(pub &'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn family(&mut self, name: &str, write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        // One without a row is a defect, which the test of the page finds.
        let Some(row) = row(name) else { return Ok(()) };
        let kind = match row.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let unit = row.unit();
        write(self.0.encode_descriptor(row.name, &format!("{}.", row.help), unit.as_ref(), kind)?)
    }

    pub fn int(&mut self, name: &str, value: i64) -> fmt::Result {
        self.family(name, |mut encoder| encoder.encode_gauge(&value))
    }

    pub fn float(&mut self, name: &str, value: f64) -> fmt::Result {
        self.family(name, |mut encoder| encoder.encode_gauge(&value))
    }

    pub fn counter(&mut self, name: &str, value: f64) -> fmt::Result {
        self.family(name, |mut encoder| encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None))
    }

    pub fn info(&mut self, name: &str, labels: [(&str, &str); 1]) -> fmt::Result {
        self.family(name, |mut encoder| encoder.encode_info(&labels))
    }

    pub fn ints<const N: usize>(
        &mut self,
        name: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], i64)>,
    ) -> fmt::Result {
        self.gauges(name, samples)
    }

    pub fn gauges<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], V)>,
    ) -> fmt::Result {
        self.labelled(name, samples, |encoder, value| encoder.encode_gauge(&value))
    }

    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], u64)>,
    ) -> fmt::Result {
        self.labelled(name, samples, |encoder, value| encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None))
    }

    fn labelled<const N: usize, V>(
        &mut self,
        name: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], V)>,
        write: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        self.family(name, |mut encoder| {
            for (labels, value) in samples {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(key, word)| (*key, word.as_ref())).collect();
                write(&mut encoder.encode_family(&labels)?, value)?;
            }
            Ok(())
        })
    }
}
