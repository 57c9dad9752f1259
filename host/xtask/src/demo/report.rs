//! What became of it all. Nothing here is believed because the daemon says so in one number: every task's row, history
//! and the log lines of its guests, its only side effects, are read one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::agents;
use super::daemon::Daemon;
use super::documents::{Expected, Task};
use super::timeline::{self, Instant, Times};
use super::{count, talk};

/// Results that are shown.
const SHOWN: usize = 6;

/// One task, and everything that is recorded of it.
pub struct Entry<'a> {
    /// As it was submitted.
    pub task: &'a Task,
    /// Its row; null if there is none.
    pub row: Value,
    /// Its history.
    pub events: Vec<Value>,
    /// What its guests logged.
    pub logs: Vec<Value>,
    /// What its agents called.
    pub calls: Vec<Value>,
}

impl Entry<'_> {
    fn state(&self) -> &str {
        self.row["state"].as_str().unwrap_or("lost")
    }

    /// It has no end, or it has one and no guest ever said that it worked on it.
    fn is_lost(&self) -> bool {
        !matches!(self.state(), "completed" | "failed" | "cancelled") || self.logs.is_empty()
    }

    /// It has two ends, or one run of its guest is recorded twice: each logs once in which attempt it is. Other lines may be
    /// the same in two attempts, as what a dying guest leaves on standard error.
    fn is_doubled(&self) -> bool {
        let mut said = BTreeSet::new();
        let lines = self.logs.iter().filter(|line| line["stream"] != "stderr").map(|line| line["message"].to_string());
        let twice = lines.filter(|line| line.contains("attempt ")).any(|line| !said.insert(line));
        let ends = self
            .events
            .iter()
            .filter(|event| matches!(event["event"].as_str(), Some("completed" | "failed" | "cancelled")));
        twice || ends.count() > 1
    }

    fn is_document(&self) -> bool {
        !self.task.is_hostile() && self.task.plugin != agents::PLUGIN
    }

    fn is_as_expected(&self) -> bool {
        match self.task.expected {
            Expected::Completes => self.state() == "completed",
            Expected::Fails(kind) => self.state() == "failed" && self.row["failure"]["kind"] == kind,
            Expected::Ends => !self.row["finished_at"].is_null(),
        }
    }

    /// How many times it was taken over from a host that died.
    pub fn taken_over(&self) -> usize {
        self.events.iter().filter(|event| event["event"] == "taken_over").count()
    }
}

/// Everything that is recorded of all tasks.
pub struct Report<'a> {
    entries: Vec<Entry<'a>>,
    times: Times,
    timeline: String,
}

impl<'a> Report<'a> {
    /// Reads it from the daemon and its log.
    pub fn read(daemon: &Daemon, tasks: &'a [Task], log: &str, times: Times) -> anyhow::Result<Self> {
        let id = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
        let rows = daemon.api().tasks(true)?;
        let mut rows: BTreeMap<String, Value> = rows.into_iter().map(|row| (id(&row), row)).collect();
        let entries = tasks.iter().map(|task| {
            let row = rows.remove(&task.id.to_string()).unwrap_or_default();
            let list = |what| if row.is_null() { Ok(Vec::new()) } else { daemon.api().list(task.id, what) };
            let calls = if task.plugin == agents::PLUGIN { list("calls")? } else { Vec::new() };
            Ok(Entry { task, events: list("events")?, logs: list("logs")?, calls, row })
        });
        let entries = entries.collect::<anyhow::Result<Vec<_>>>()?;
        let timeline = match timeline::pick(&entries) {
            Some(entry) => timeline::render(entry, &daemon.api().list(entry.task.id, "attempts")?, log, times),
            None => String::new(),
        };
        Ok(Self { entries, times, timeline })
    }

    /// States and times.
    pub fn summary(&self, took: Duration, back: Duration) -> String {
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &self.entries {
            *states.entry(entry.state()).or_default() += 1;
        }
        let states: Vec<_> = states.iter().map(|(state, number)| format!("{number} {state}")).collect();
        let honest = self.entries.iter().filter(|entry| entry.is_document());
        let created = self.entries.iter().filter_map(|entry| Instant::parse(entry.row["created_at"].as_str()?)).min();
        let finished = |entry: &Entry<'_>| Instant::parse(entry.row["finished_at"].as_str()?);
        let done = honest.clone().filter_map(finished).max();
        let mut text = format!("states: {}\n", states.join(", "));
        if let (Some(created), Some(done)) = (created, done) {
            let documents = honest.count();
            let time = done.since(created);
            let rate = documents as f64 / time.as_secs_f64();
            let _ = writeln!(
                text,
                "time: {} in {} ({rate:.0} a second, kill included); the last hostile guest ended after {}",
                count(documents, "document"),
                talk::seconds(time),
                talk::seconds(took)
            ); // writing to a text does not fail
        }
        let killed = self.times.killed;
        let before = self.entries.iter().filter_map(finished).filter(|at| *at <= killed).max();
        let after = self.entries.iter().filter_map(finished).filter(|at| *at > killed).min();
        let lost = before.zip(after).map_or(Duration::ZERO, |(before, after)| after.since(before));
        let again = self.entries.iter().filter(|entry| entry.taken_over() > 0).count();
        let _ = writeln!(
            text,
            "kill: nothing ended for {}, {} of it until the daemon was ready again; {} ran when it was killed and ran once \
             more",
            talk::seconds(lost),
            talk::seconds(back),
            count(again, "task")
        );
        text
    }

    /// Some results.
    pub fn results(&self) -> String {
        let done: Vec<_> =
            self.entries.iter().filter(|entry| entry.is_document() && entry.row["output"].is_object()).collect();
        let mut text = "some results:\n".to_owned();
        for entry in done.iter().step_by(done.len().div_ceil(SHOWN).max(1)) {
            let output = &entry.row["output"];
            let headings = output["headings"].as_array().map_or(0, Vec::len);
            let seconds = output["reading_seconds"].as_u64().unwrap_or_default();
            let _ = writeln!(
                text,
                "  {:<42} {:<32} {}, {}, {} to read",
                cut(&entry.task.name, 42),
                cut(output["title"].as_str().unwrap_or("(no title)"), 32),
                count(headings, "heading"),
                count(usize::try_from(output["link_count"].as_u64().unwrap_or_default()).unwrap_or_default(), "link"),
                if seconds < 60 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) },
            );
        }
        text
    }

    /// How the agents found their answers.
    pub fn agents(&self) -> String {
        self.entries.iter().filter(|entry| entry.task.plugin == agents::PLUGIN).map(agents::told).collect()
    }

    /// How the hostile guests ended.
    pub fn hostile(&self) -> String {
        let mut text = "hostile guests:\n".to_owned();
        for entry in self.entries.iter().filter(|entry| entry.task.is_hostile()) {
            let failure = &entry.row["failure"];
            let detail = &failure["detail"];
            let limit = detail["limit"]
                .as_str()
                .map(|limit| format!(": {} used of {} allowed ({limit})", detail["used"], detail["allowed"]));
            let _ = writeln!(
                text,
                "  {:<16} {} ({}){} after {}",
                entry.task.name,
                entry.state(),
                failure["kind"].as_str().unwrap_or("no failure"),
                limit.unwrap_or_else(|| format!(": {}", cut(failure["message"].as_str().unwrap_or_default(), 60))),
                count(
                    usize::try_from(entry.row["attempt"].as_u64().unwrap_or_default()).unwrap_or_default(),
                    "attempt"
                ),
            );
        }
        text
    }

    /// One task's life.
    pub fn timeline(&self) -> &str {
        &self.timeline
    }

    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        self.wrong().next().is_none()
    }

    fn wrong(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(|entry| !entry.is_as_expected() || entry.is_lost() || entry.is_doubled())
    }

    /// The count.
    pub fn verdict(&self) -> String {
        let number = |is: fn(&Entry<'_>) -> bool| self.entries.iter().filter(|entry| is(entry)).count();
        let mut text = format!(
            "counted from the guests' own log lines, of {}: {} lost, {} doubled, {} other than expected\n",
            count(self.entries.len(), "task"),
            number(|entry| entry.is_lost()),
            number(|entry| entry.is_doubled()),
            number(|entry| !entry.is_as_expected()),
        );
        for entry in self.wrong().take(10) {
            let _ = writeln!(
                text,
                "  wrong: {} {} is {} {}",
                entry.task.id,
                cut(&entry.task.name, 60),
                entry.state(),
                entry.row["failure"]
            );
        }
        text
    }
}

/// At most so many characters, none of which a terminal would obey.
pub fn cut(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    if text.chars().count() > most {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn task(expected: Expected) -> Task {
        Task { id: Uuid::now_v7(), plugin: "outline", name: "a".into(), input: json!({}), expected }
    }

    fn entry<'a>(task: &'a Task, row: Value, events: &[&str], logs: &[&str]) -> Entry<'a> {
        Entry {
            task,
            row,
            events: events.iter().map(|event| json!({"event": event})).collect(),
            logs: logs.iter().map(|line| json!({"message": line})).collect(),
            calls: Vec::new(),
        }
    }

    #[test]
    fn a_completed_document_is_neither_lost_nor_doubled() {
        let task = task(Expected::Completes);
        let row = json!({"state": "completed"});
        let entry = entry(&task, row, &["pending", "running", "taken_over", "completed"], &["attempt 1"]);
        assert!(entry.is_as_expected() && !entry.is_lost() && !entry.is_doubled());
        assert_eq!(entry.taken_over(), 1);
    }

    #[test]
    fn what_has_no_end_or_no_trace_is_lost() {
        let task = task(Expected::Completes);
        assert!(entry(&task, Value::Null, &[], &[]).is_lost());
        assert!(entry(&task, json!({"state": "running"}), &["running"], &["attempt 1"]).is_lost());
        assert!(entry(&task, json!({"state": "completed"}), &["running", "completed"], &[]).is_lost());
    }

    #[test]
    fn a_run_recorded_twice_or_two_ends_are_doubled() {
        let task = task(Expected::Completes);
        let row = json!({"state": "completed"});
        assert!(entry(&task, row.clone(), &["completed"], &["attempt 1", "attempt 1"]).is_doubled());
        assert!(entry(&task, row.clone(), &["completed", "completed"], &["attempt 1"]).is_doubled());
        assert!(!entry(&task, row, &["completed"], &["attempt 1", "attempt 2"]).is_doubled());
    }

    #[test]
    fn a_hostile_guest_must_end_in_its_own_kind() {
        let task = task(Expected::Fails("cpu_limit"));
        let failed = |kind| json!({"state": "failed", "failure": {"kind": kind}});
        assert!(entry(&task, failed("cpu_limit"), &[], &[]).is_as_expected());
        assert!(!entry(&task, failed("timeout"), &[], &[]).is_as_expected());
        assert!(!entry(&task, json!({"state": "completed"}), &[], &[]).is_as_expected());
    }

    #[test]
    fn shown_text_is_bounded_and_tame() {
        assert_eq!(cut("a\u{1b}[31mb", 9), "a [31mb");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
