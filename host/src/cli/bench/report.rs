//! The result of a run, as text and as JSON.

use super::super::{Failed, output};
use super::legs::{self, Leg};
use super::reasons::Reasons;
use super::resources::{TICKS, Usage};
use super::shape::Shape;
use super::stats::{Times, milliseconds};
use super::stop::remedy;
use super::watch::Measured;
use super::{Plan, numbers};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The most parts into which the time of a run is divided for throughput over time.
const PARTS: usize = 30;
/// Ends are recorded in batches: the batches that a part holds on average, so that their number says something.
const PER_PART: usize = 8;
/// CPU per task is reported from so many tasks and clock ticks on: below, it is noise.
const ENOUGH_TASKS: u64 = 100;
const ENOUGH_TICKS: u64 = 10;
/// Below so many tasks of a flood, a rate would show the time of single tasks and not a throughput.
const ENOUGH_FOR_RATE: u64 = 10;
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
    pub(super) via: &'static str,
    batch: usize,
    pub(super) in_flight: Option<u64>,
    glance: Option<Duration>,
    /// The signal that ended the run early.
    pub(super) interrupted: Option<&'static str>,
    /// The failure that ended the run early.
    pub(super) error: Option<String>,
    /// Ended tasks by the daemon's counters, and the time for them, where the recorded states are unknown.
    counted: Option<(u64, Duration)>,
    sent: u64,
    /// Tasks by state; `missing` are those without a row, and `unknown` all if the rows could not be read.
    states: BTreeMap<String, u64>,
    reasons: Reasons,
    /// Confirmed tasks, and the time for them.
    submission: (u64, Duration),
    /// The most tasks that were sent and not recorded as ended, by their times.
    in_flight_most: u64,
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
    pub fn new(plan: &Plan, server: &str, embedded: bool, batch: usize, measured: Measured) -> Report {
        let Measured { sent, rows, counted, legs, resources, glance, early: _ } = measured;
        let mut reasons = Reasons::default();
        let mut states = BTreeMap::from_iter(rows.as_ref().map(|_| ("completed".to_owned(), 0)));
        let without = if rows.is_some() { "missing" } else { "unknown" };
        let mut latency = Vec::with_capacity(sent.tasks.len());
        let mut ends = Vec::with_capacity(sent.tasks.len());
        let mut times = Vec::with_capacity(sent.tasks.len());
        let mut first_start = None;
        for (id, intended) in &sent.tasks {
            let row = rows.as_ref().and_then(|rows| rows.get(id));
            *states.entry(row.map_or_else(|| without.to_owned(), |row| row.state.clone())).or_default() += 1;
            let Some(row) = row else { continue };
            reasons.add(row);
            first_start = [first_start, row.started_at].into_iter().flatten().min();
            if let Some(end) = row.finished_at {
                times.push((*intended, end));
                ends.push(end);
                latency.push(span(*intended, end));
            }
        }
        reasons.sort();
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
            batch,
            in_flight: plan.in_flight,
            glance,
            interrupted: None,
            error: None,
            counted: Some(counted).filter(|_| rows.is_none()),
            sent: sent.tasks.len() as u64,
            states,
            reasons,
            submission: (sent.confirmed, sent.took),
            in_flight_most: in_flight_most(&times),
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
            others => {
                let remedy = match self.embedded {
                    true => String::new(),
                    false => format!("; delete the tasks of the run with: {}", remedy(&self.run, &self.server)),
                };
                Err(Failed::task(format!("{others} of {} did not complete{remedy}", numbers::tasks(self.sent))))
            }
        }
    }

    /// Tasks per second. At a rate the last task has an interval of its own, as every other has.
    fn per_second(&self, tasks: u64, time: Option<Duration>) -> Option<f64> {
        let time = match self.shape {
            Shape::Rate { every, .. } => time? + every,
            Shape::Flood { .. } if tasks < ENOUGH_FOR_RATE => return None,
            Shape::Flood { .. } => time?,
        };
        Some(numbers::rounded(tasks as f64 / time.as_secs_f64().max(1e-9)))
    }

    /// Why no rate of so many tasks is reported.
    fn too_few(&self, tasks: u64) -> Option<String> {
        let few = matches!(self.shape, Shape::Flood { .. }) && tasks < ENOUGH_FOR_RATE;
        (few && self.counted.is_none())
            .then(|| format!("too few tasks for a rate: {tasks}; at least {ENOUGH_FOR_RATE} are needed"))
    }

    /// Tasks that ended in each part of the run, and how long a part is; none of too few.
    pub(super) fn shown_over_time(&self) -> (&[u64], Duration) {
        let (counts, part) = &self.over_time;
        if self.too_few(self.ended()).is_some() { (&[], Duration::ZERO) } else { (counts, *part) }
    }

    /// Tasks that have ended.
    fn ended(&self) -> u64 {
        self.counted.map_or_else(|| self.over_time.0.iter().sum(), |(ended, _)| ended)
    }

    /// CPU time per task in microseconds, or why it is not reported.
    fn cpu_per_task(&self, cpu: Duration) -> Result<f64, String> {
        let (tasks, ticks) = (self.ended(), cpu.as_millis() as u64 * TICKS / 1_000);
        match tasks >= ENOUGH_TASKS && ticks >= ENOUGH_TICKS {
            true => Ok((cpu.as_secs_f64() * 1e6 / tasks as f64).round()),
            false => Err(format!(
                "too few tasks: {tasks} ended in {ticks} clock ticks of CPU; at least {ENOUGH_TASKS} and {ENOUGH_TICKS} are needed"
            )),
        }
    }

    /// The most tasks per second that the reads of the counters allow with this bound of tasks in flight.
    fn ceiling(&self) -> Option<f64> {
        Some(numbers::rounded(self.in_flight? as f64 / self.glance?.as_secs_f64()))
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| milliseconds(time) / 1e3);
        let (resources, why) = match &self.resources {
            Ok((before, after)) => {
                let cpu = after.cpu.saturating_sub(before.cpu);
                let kib = |kib: u64| (kib as f64 / 102.4).round() / 10.0;
                let each = self.cpu_per_task(cpu);
                let figures = json!({
                    "cpu_seconds": cpu.as_secs_f64(), "cpu_us_per_task": each.as_ref().ok(),
                    "cpu_per_task_unknown": each.as_ref().err(),
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
            "in_flight_most": self.in_flight_most,
            "in_flight_look_ms": self.glance.map(milliseconds),
            "in_flight_ceiling_per_second": self.ceiling(),
            "interrupted": self.interrupted,
            "error": self.error,
            "counted": self.counted.map(|(ended, time)| json!({
                "ended": ended, "seconds": seconds(Some(time)), "per_second": self.per_second(ended, Some(time)),
            })),
            "sent": self.sent,
            "states": self.states,
            "reasons": self.reasons.json(),
            "submission": {
                "confirmed": self.submission.0,
                "seconds": seconds(Some(self.submission.1)),
                "per_second": self.per_second(self.submission.0, Some(self.submission.1)),
                "unknown": self.too_few(self.submission.0),
            },
            "throughput": {
                "per_second": self.per_second(self.ended(), self.running),
                "unknown": self.too_few(self.ended()),
                "seconds": seconds(self.running),
                "from_submission_per_second": self.per_second(self.ended(), self.whole),
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
        let rate = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), numbers::rate);
        let states: Vec<_> = self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "{}{} of {}, sent over {} to {}\nrun {}\n",
            match (self.interrupted, &self.error) {
                (Some(_), _) => "interrupted; so far: ",
                (None, Some(_)) => "ended early by an error; so far: ",
                (None, None) => "",
            },
            self.shape.describe(),
            super::super::escape::line(&self.plugin),
            self.via,
            super::super::escape::line(&self.server),
            self.run
        );
        let (figures, submission) = (&json["throughput"], &json["submission"]);
        let mut rows = vec![("tasks", format!("{} sent: {}", self.sent, states.join(", ")))];
        if let Some((ended, time)) = self.counted {
            let seconds = numbers::digits(time.as_secs_f64());
            let rate = rate(&json["counted"]["per_second"]);
            rows.push(("counted", format!("{ended} ended within {seconds} s by the daemon's counters, {rate}")));
        }
        let mut name = "reasons";
        for line in self.reasons.lines() {
            rows.push((name, line));
            name = "";
        }
        if let Some(missing) = self.states.get("missing") {
            let also = if self.via == "amqp" { ", or broker.url and broker.prefix are another daemon's" } else { "" };
            rows.push((
                name,
                format!("{missing} missing: without a record; their messages may still wait in the queue{also}"),
            ));
        }
        if let (Some(bound), Some(glance), Some(ceiling)) = (self.in_flight, self.glance, self.ceiling()) {
            let (look, most) = (numbers::digits(milliseconds(glance)), numbers::rate(ceiling));
            let mut text =
                format!("{bound} at most; ended tasks are counted every {look} ms, which allows {most} at most");
            if self.in_flight_most > bound {
                let _ = write!(text, "; {} were, since other tasks of the plugin ended meanwhile", self.in_flight_most);
            }
            rows.push(("in flight", text));
        }
        rows.extend([(
            "submission",
            self.too_few(self.submission.0).unwrap_or_else(|| rate(&submission["per_second"])),
        )]);
        match (self.counted, self.too_few(self.ended())) {
            // Times of single tasks are recorded in their rows alone.
            (Some(_), _) => {}
            (None, Some(why)) => rows.push(("throughput", why)),
            (None, None) => rows.extend([
                ("throughput", format!("{}, first start to last end", rate(&figures["per_second"]))),
                ("", format!("{}, first send to last end", rate(&figures["from_submission_per_second"]))),
            ]),
        }
        if self.counted.is_none() {
            let latency = &json["latency_ms"];
            let named = [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99_9", "p99.9"), ("max", "max")];
            let latency = named.iter().map(|(key, name)| format!("{name} {} ms", number(&latency[*key])));
            rows.push(("latency", latency.collect::<Vec<_>>().join(", ")));
        }
        match &json["resources"] {
            Value::Null => rows.push(("resources", format!("unknown: {}", output::field(&json, "resources_unknown")))),
            used => {
                let cpu = match used["cpu_us_per_task"].as_f64() {
                    Some(each) => format!("{each} µs"),
                    None => output::field(used, "cpu_per_task_unknown"),
                };
                let (resident, peak) = (number(&used["resident_mib"]), number(&used["peak_resident_mib"]));
                rows.push(("daemon", format!("{resident} MiB resident, {peak} MiB at most")));
                rows.push(("CPU a task", cpu));
            }
        }
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<11} {value}");
        }
        if self.legs.is_empty() {
            text.push_str("legs        unknown: the daemon's /metrics had none, or could not be read\n");
            return text;
        }
        let row = |(name, leg): (&str, &Leg)| {
            let bound = |share| leg.percentile(share).map_or_else(|| "-".to_owned(), |bound| bound.to_string());
            let mean = format!("{:.2}", leg.mean() * 1e3);
            vec![super::super::escape::line(name), leg.count().to_string(), mean, bound(0.5), bound(0.99)]
        };
        let legs: Vec<_> = legs::ordered(&self.legs).into_iter().map(row).collect();
        text + "\n" + &output::table(&["leg (ms)", "count", "mean", "p50", "p99"], &legs)
    }
}

/// From one time to another; none if the clocks disagree.
fn span(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    to.signed_duration_since(from).max(TimeDelta::zero()).to_std().unwrap_or_default()
}

/// The most tasks at once of which these are the send and the end.
fn in_flight_most(times: &[(DateTime<Utc>, DateTime<Utc>)]) -> u64 {
    let mut changes: Vec<(DateTime<Utc>, i64)> = times.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
    // An end and a send of the same time: the end was first.
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    u64::try_from(most).unwrap_or_default()
}

/// How many tasks ended in each part of the run. The ends of one batch have one time, or nearly so: a part that holds no more
/// than one of them would show the pauses between batches instead of the throughput.
fn over_time(first_send: Option<DateTime<Utc>>, ends: &[DateTime<Utc>]) -> (Vec<u64>, Duration) {
    let (Some(from), Some(last)) = (first_send, ends.iter().max()) else { return (Vec::new(), Duration::ZERO) };
    let whole = span(from, *last).max(Duration::from_millis(1));
    let mut batches: Vec<i64> = ends.iter().map(DateTime::timestamp_millis).collect();
    batches.sort_unstable();
    batches.dedup();
    let parts = (batches.len() / PER_PART).clamp(1, PARTS);
    let part = whole / parts as u32;
    let mut counts = vec![0; parts];
    for end in ends {
        let at = (span(from, *end).as_nanos() / part.as_nanos().max(1)) as usize;
        counts[at.min(parts - 1)] += 1;
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
