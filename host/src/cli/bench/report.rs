//! The result of a run, as text and as JSON.

use super::super::{Failed, output};
use super::Plan;
use super::legs::{self, Leg};
use super::resources::Usage;
use super::shape::Shape;
use super::stats::{Times, milliseconds};
use super::watch::Measured;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Parts into which the time of a run is divided for throughput over time.
const PARTS: usize = 60;
/// Buckets of the latency histogram for each power of ten.
const PER_DECADE: u32 = 10;

/// Everything that is shown of a run.
pub struct Report {
    pub(super) run: String,
    pub(super) server: String,
    pub(super) plugin: String,
    pub(super) shape: Shape,
    pub(super) at: DateTime<Utc>,
    embedded: bool,
    via: &'static str,
    batch: usize,
    in_flight: Option<u64>,
    sent: u64,
    /// Tasks by state; `missing` are those without a row.
    states: BTreeMap<String, u64>,
    submission: Duration,
    /// From the first recorded start to the last recorded end.
    running: Option<Duration>,
    /// From the first send to the last recorded end.
    whole: Option<Duration>,
    pub(super) latency: Times,
    /// Tasks that ended in each part of the run, and how long a part is.
    pub(super) over_time: (Vec<u64>, Duration),
    legs: BTreeMap<String, Leg>,
    resources: Result<(Usage, Usage), String>,
}

impl Report {
    /// Computes the figures.
    pub fn new(plan: &Plan, server: &str, embedded: bool, measured: Measured) -> Report {
        let Measured { sent, rows, legs, resources } = measured;
        let mut states = BTreeMap::from([("completed".to_owned(), 0)]);
        let mut latency = Vec::with_capacity(sent.tasks.len());
        let mut ends = Vec::with_capacity(sent.tasks.len());
        let mut first_start = None;
        for (id, intended) in &sent.tasks {
            let row = rows.get(id);
            *states.entry(row.map_or_else(|| "missing".to_owned(), |row| row.state.clone())).or_default() += 1;
            let Some(row) = row else { continue };
            first_start = [first_start, row.started_at].into_iter().flatten().min();
            if let Some(end) = row.finished_at {
                ends.push(end);
                latency.push(span(*intended, end));
            }
        }
        let first_send = sent.tasks.iter().map(|(_, at)| *at).min();
        let last_end = ends.iter().max().copied();
        let between = |from: Option<DateTime<Utc>>| Some(span(from?, last_end?)).filter(|span| !span.is_zero());
        Report {
            run: plan.run.clone(),
            server: server.to_owned(),
            plugin: plan.plugin.clone(),
            shape: plan.shape,
            at: first_send.unwrap_or_else(Utc::now),
            embedded,
            via: plan.via.name(),
            batch: plan.batch,
            in_flight: plan.in_flight,
            sent: sent.tasks.len() as u64,
            states,
            submission: sent.took,
            running: between(first_start),
            whole: between(first_send),
            latency: Times::new(latency),
            over_time: over_time(first_send, &ends),
            legs,
            resources,
        }
    }

    fn completed(&self) -> u64 {
        self.states.get("completed").copied().unwrap_or_default()
    }

    /// An error with exit code 1 unless every task has completed.
    pub fn verdict(&self) -> Result<(), Failed> {
        match self.sent - self.completed() {
            0 => Ok(()),
            others => Err(Failed::task(format!("{others} of {} tasks did not complete", self.sent))),
        }
    }

    fn per_second(&self, time: Option<Duration>) -> Option<f64> {
        let ended = self.latency_count();
        time.map(|time| (ended as f64 / time.as_secs_f64() * 10.0).round() / 10.0)
    }

    fn latency_count(&self) -> u64 {
        self.over_time.0.iter().sum()
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| milliseconds(time) / 1e3);
        let (resources, why) = match &self.resources {
            Ok((before, after)) => {
                let cpu = after.cpu.saturating_sub(before.cpu);
                let kib = |kib: u64| (kib as f64 / 102.4).round() / 10.0;
                let each = cpu.as_secs_f64() * 1e6 / self.latency_count().max(1) as f64;
                let figures = json!({
                    "cpu_seconds": cpu.as_secs_f64(), "cpu_us_per_task": each.round(),
                    "resident_mib": kib(after.resident_kib), "peak_resident_mib": kib(after.peak_kib),
                });
                (figures, Value::Null)
            }
            Err(why) => (Value::Null, json!(why)),
        };
        let legs = if self.legs.is_empty() { Value::Null } else { legs::json_of(&self.legs) };
        json!({
            "run": self.run,
            "at": self.at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "server": self.server,
            "embedded": self.embedded,
            "via": self.via,
            "plugin": self.plugin,
            "shape": self.shape.describe(),
            "batch": self.batch,
            "in_flight": self.in_flight,
            "sent": self.sent,
            "states": self.states,
            "submission": {
                "seconds": seconds(Some(self.submission)),
                "per_second": (self.sent as f64 / self.submission.as_secs_f64().max(1e-9)).round(),
            },
            "throughput": {
                "per_second": self.per_second(self.running),
                "seconds": seconds(self.running),
                "from_submission_per_second": self.per_second(self.whole),
                "from_submission_seconds": seconds(self.whole),
            },
            "latency_ms": self.latency.json(),
            "legs": legs,
            "resources": resources,
            "resources_unknown": why,
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let json = self.json();
        let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |n| format!("{n}"));
        let rate = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |n| format!("{n:.0}/s"));
        let states: Vec<_> = self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "{} of {}, sent over {} to {}\nrun {}\n",
            self.shape.describe(),
            super::super::escape::line(&self.plugin),
            self.via,
            super::super::escape::line(&self.server),
            self.run
        );
        let figures = &json["throughput"];
        let mut rows = vec![
            ("tasks", states.join(", ")),
            ("submission", rate(&json["submission"]["per_second"])),
            ("throughput", format!("{}, first start to last end", rate(&figures["per_second"]))),
            ("", format!("{}, first send to last end", rate(&figures["from_submission_per_second"]))),
        ];
        let latency = &json["latency_ms"];
        let named = [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99_9", "p99.9"), ("max", "max")];
        let latency: Vec<_> = named.iter().map(|(key, name)| format!("{name} {} ms", number(&latency[*key]))).collect();
        rows.push(("latency", latency.join(", ")));
        match &json["resources"] {
            Value::Null => rows.push(("resources", format!("unknown: {}", output::field(&json, "resources_unknown")))),
            used => {
                let (cpu, resident) = (number(&used["cpu_us_per_task"]), number(&used["resident_mib"]));
                let peak = number(&used["peak_resident_mib"]);
                rows.push(("daemon", format!("{cpu} µs of CPU a task, {resident} MiB resident, {peak} MiB at most")));
            }
        }
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<11} {value}");
        }
        if self.legs.is_empty() {
            text.push_str("legs        not reported by this daemon\n");
            return text;
        }
        let ms = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{:.2}", s * 1e3));
        let row = |(name, leg): (&str, &Leg)| {
            let times = [Some(leg.mean()), leg.percentile(0.5), leg.percentile(0.99)].map(ms);
            [vec![super::super::escape::line(name)], times.to_vec()].concat()
        };
        let legs: Vec<_> = legs::ordered(&self.legs).into_iter().map(row).collect();
        text + "\n" + &output::table(&["leg (ms)", "mean", "p50", "p99"], &legs)
    }
}

/// From one time to another; none if the clocks disagree.
fn span(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    to.signed_duration_since(from).max(TimeDelta::zero()).to_std().unwrap_or_default()
}

/// How many tasks ended in each part of the run.
fn over_time(first_send: Option<DateTime<Utc>>, ends: &[DateTime<Utc>]) -> (Vec<u64>, Duration) {
    let (Some(from), Some(last)) = (first_send, ends.iter().max()) else { return (Vec::new(), Duration::ZERO) };
    let part = (span(from, *last) / PARTS as u32).max(Duration::from_millis(1));
    let mut counts = vec![0; PARTS];
    for end in ends {
        let at = (span(from, *end).as_nanos() / part.as_nanos()) as usize;
        counts[at.min(PARTS - 1)] += 1;
    }
    (counts, part)
}

/// The latency histogram: upper bound in milliseconds, and count.
pub(super) fn histogram(report: &Report) -> Vec<(f64, u64)> {
    report.latency.histogram(PER_DECADE)
}

#[cfg(test)]
#[path = "report_tests.rs"]
pub(super) mod tests;
