//! The conditions of a run: without them no figure means anything.

use std::io::{Seek, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::row::{median, number};
use super::stage::Stage;

/// Syncs that are timed.
const SYNCS: u32 = 200;
/// Messages that are published and confirmed.
const MESSAGES: &str = "20000";

/// What was found, by name.
pub struct Conditions(Vec<(&'static str, String)>);

/// Reads and measures them.
pub fn read(stage: &Stage) -> anyhow::Result<Conditions> {
    let sync = sync_cost()?;
    let rate = publish_rate(stage)?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let load = file("/proc/loadavg");
    Ok(Conditions(vec![
        ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        (
            "machine",
            format!("{cores} cores ({}), load {}", model.unwrap_or("unknown"), load.split(' ').next().unwrap_or("?")),
        ),
        ("kernel", file("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("compiler", said("rustc", &["--version"])),
        ("services", format!("{}, fsync on", stage.services.description)),
        ("fsync", format!("{:.2} ms for 8 kB written and synced (median of {SYNCS})", sync.as_secs_f64() * 1e3)),
        ("broker", format!("{rate:.0} messages/s published and confirmed, in windows of 500, to a quorum queue")),
        ("settings", "defaults of every daemon; submission over HTTP in batches of 500".to_owned()),
    ]))
}

impl Conditions {
    /// For a person.
    pub fn text(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(|(name, value)| format!("{name:<9} {value}")).collect();
        lines.join("\n")
    }

    /// For a program.
    pub fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// The first line that a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).current_dir(crate::workspace::root()).args(arguments).output();
    let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    output.lines().next().unwrap_or("unknown").trim().to_owned()
}

/// The time of one write of a page of Postgres and its sync, where the services keep their files.
fn sync_cost() -> anyhow::Result<Duration> {
    let mut file = tempfile::tempfile().context("failed to make a file")?;
    let page = [7_u8; 8_192];
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.rewind().and_then(|()| file.write_all(&page)).context("failed to write")?;
        file.sync_data().context("failed to sync")?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(times).unwrap_or_default()))
}

/// Messages per second that are published and confirmed, and not consumed: a queue is made by a daemon that is stopped again.
fn publish_rate(stage: &Stage) -> anyhow::Result<f64> {
    let database = stage.database()?;
    let plugins = stage.plugins("plugins/word-count")?;
    super::daemon::Setup::new(stage, &database, "topology", &plugins)?.start()?;
    let published = stage.tool(&database, &["publish", &database, "default", "word-count", MESSAGES])?;
    stage.drop_database(&database)?;
    number(&published, "/per_second")
}
