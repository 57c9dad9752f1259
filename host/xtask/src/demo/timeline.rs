//! One task's life as a timeline, put together from its history, its attempts and the daemon's log.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::report::{Entry, cut};

/// A moment, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(i64);

impl Instant {
    /// Reads `2026-01-02T03:04:05.678901Z`, as the daemon writes times.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
        let seconds = parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??;
        let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
        // Days since 1970 in the Gregorian calendar, with years that begin in March (H. Hinnant, "chrono-compatible
        // low-level date algorithms").
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let of_era = year.rem_euclid(400);
        let of_year = (153 * month + 2) / 5 + day - 1;
        let days = year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        Some(Self((days * 86_400 + seconds) * 1_000_000 + micros))
    }

    /// The time since an earlier moment; none if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or_default())
    }
}

impl From<SystemTime> for Instant {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The task worth telling: one that ran when the daemon was killed, else any document.
pub fn pick<'e, 'a>(entries: &'e [Entry<'a>]) -> Option<&'e Entry<'a>> {
    let mut documents = entries.iter().filter(|entry| !entry.task.is_hostile() && entry.row["state"] == "completed");
    documents.clone().find(|entry| entry.taken_over() > 0).or_else(|| documents.nth(documents.clone().count() / 2))
}

/// What happened around the tasks, as xtask itself saw it.
#[derive(Clone, Copy)]
pub struct Times {
    /// It began to submit.
    pub began: Instant,
    /// The daemon was dead.
    pub killed: Instant,
}

/// Its life, a line a step.
pub fn render(entry: &Entry<'_>, attempts: &[Value], log: &str, times: Times) -> String {
    let mut steps = vec![(times.began, "xtask began to submit".to_owned())];
    for event in &entry.events {
        let Some(at) = event["at"].as_str().and_then(Instant::parse) else { continue };
        steps.push((at, step(event)));
        if event["event"] == "completed"
            && let Some(usage) = attempts.iter().map(|attempt| &attempt["usage"]).rfind(|usage| usage.is_object())
        {
            let peak = usage["peak_memory"].as_u64().unwrap_or_default() >> 10;
            let ran = format!("ran for {} µs ({} µs of CPU, {peak} KiB of memory)", usage["wall_us"], usage["cpu_us"]);
            // Measured, not recorded as a moment: it ended before it was settled.
            steps.insert(steps.len() - 1, (at, ran));
        }
    }
    if entry.taken_over() > 0 {
        let after = steps.iter().position(|(at, _)| *at > times.killed).unwrap_or(steps.len());
        steps.insert(after, (times.killed, "its daemon was killed".to_owned()));
    }
    steps.extend(acknowledged(&entry.task.id.to_string(), log).map(|at| (at, "acknowledged".to_owned())));
    let mut text = format!("one task's life: {} {}\n", entry.task.plugin, cut(&entry.task.name, 60));
    for (at, what) in steps {
        let millis = at.since(times.began).as_secs_f64() * 1000.0;
        let time = if what.starts_with("ran for") { String::new() } else { format!("{millis:.1} ms") };
        let _ = writeln!(text, "  {time:>12}  {what}"); // writing to a text does not fail
    }
    text
}

fn step(event: &Value) -> String {
    let by = || {
        let host = event["host"].as_str().unwrap_or("?");
        format!(
            "by host {}, attempt {}, fence {}",
            host.get(host.len().saturating_sub(8)..).unwrap_or(host),
            event["attempt"],
            event["fence"]
        )
    };
    match event["event"].as_str().unwrap_or_default() {
        "pending" => "submitted".to_owned(),
        "running" => format!("claimed {}", by()),
        "taken_over" => format!("claimed from the killed host {}", by()),
        "completed" => "settled: completed".to_owned(),
        other => other.to_owned(),
    }
}

/// When the log says that a message for this task was acknowledged. Later ones are of messages that came twice.
fn acknowledged(id: &str, log: &str) -> Option<Instant> {
    let lines = log.lines().filter(|line| line.contains("acknowledged") && line.contains(id));
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| {
        let fields = if line["fields"].is_object() { &line["fields"] } else { line };
        fields["message"] == "acknowledged" && fields["task"] == id
    })?;
    Instant::parse(line["timestamp"].as_str()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::super::documents::{Expected, Task};
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        assert_eq!(Instant::parse("1970-01-01T00:00:00Z"), Some(Instant(0)));
        assert_eq!(Instant::parse("2000-03-01T00:00:01.5Z"), Some(Instant(951_868_801_500_000)));
        assert_eq!(Instant::parse("2024-02-29T23:59:59.123456789Z"), Some(Instant(1_709_251_199_123_456)));
        assert_eq!(Instant::parse("2024-02-29 23:59:59"), None);
        assert_eq!(Instant::parse("2024-02-29T23:59:59+01:00"), None);
    }

    #[test]
    fn a_life_is_told_in_its_order() {
        let id = Uuid::now_v7();
        let task =
            Task { id, plugin: "outline", name: "a/README.md".into(), input: json!({}), expected: Expected::Completes };
        let at = |ms: u32, event: &str| json!({"at": format!("2026-01-01T00:00:00.{ms:03}Z"), "event": event, "host": "0190-0190aaaa", "attempt": 1, "fence": 1});
        let events = vec![at(0, "pending"), at(5, "running"), at(9, "completed")];
        let entry =
            Entry { task: &task, row: json!({"state": "completed"}), events, logs: Vec::new(), calls: Vec::new() };
        let attempts = [json!({"usage": {"wall_us": 812, "cpu_us": 700, "peak_memory": 1_048_576}})];
        let log = format!(
            "ready http://127.0.0.1:1\n{}\n",
            json!({"timestamp": "2026-01-01T00:00:00.010Z", "fields": {"message": "acknowledged", "task": id}})
        );
        let began = Instant::parse("2025-12-31T23:59:59.999Z").unwrap();
        let times = Times { began, killed: began };
        assert_eq!(
            render(&entry, &attempts, &log, times),
            "one task's life: outline a/README.md\n\
             \x20       0.0 ms  xtask began to submit\n\
             \x20       1.0 ms  submitted\n\
             \x20       6.0 ms  claimed by host 0190aaaa, attempt 1, fence 1\n\
             \x20               ran for 812 µs (700 µs of CPU, 1024 KiB of memory)\n\
             \x20      10.0 ms  settled: completed\n\
             \x20      11.0 ms  acknowledged\n"
        );
    }
}
