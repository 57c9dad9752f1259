//! Throughput: Dramatiq, the bare loop, and the daemon over AMQP, over HTTP and embedded, in alternation.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::daemon::{Daemon, Setup, wait, without_settings};
use super::row::{Row, median, number};
use super::stage::{Stage, json as run};
use crate::workspace;

/// Tasks of Dramatiq in a round.
const DRAMATIQ: &str = "6000";
/// Tasks of the bare loop in a round.
const BARE: &str = "60000";
/// How long a flood shall last at least, in seconds.
const SECONDS: f64 = 5.0;
/// Tasks of the flood that tells how many the next ones need, and the bounds of those.
const PROBE: u64 = 5_000;
const TASKS: [u64; 2] = [5_000, 150_000];
const PATIENCE: Duration = Duration::from_secs(240);

/// One thing that is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Dramatiq,
    Bare,
    Amqp,
    Live,
    Http,
    Embedded,
}

impl What {
    const ALL: [What; 6] = [What::Dramatiq, What::Bare, What::Amqp, What::Live, What::Http, What::Embedded];

    fn name(self) -> &'static str {
        match self {
            What::Dramatiq => "Dramatiq",
            What::Bare => "bare loop",
            What::Amqp => "AMQP → Postgres",
            What::Live => "AMQP → Postgres, published meanwhile",
            What::Http => "HTTP batch → terminal",
            What::Embedded => "embedded, HTTP batch → terminal",
        }
    }
}

/// Tasks per second of each thing, round by round.
pub struct Bars(Vec<(What, Vec<f64>)>);

impl Bars {
    fn of(&self, what: What) -> &[f64] {
        self.0.iter().find(|(known, _)| *known == what).map_or(&[], |(_, rates)| rates)
    }

    /// The median over rounds of the ratio within a round.
    fn ratio(&self, what: What, to: What) -> Option<f64> {
        median(self.of(what).iter().zip(self.of(to)).map(|(a, b)| a / b).collect())
    }

    /// Name, median rate, and median ratio to Dramatiq, of everything that was measured.
    pub fn bars(&self) -> Vec<(&'static str, f64, Option<f64>)> {
        let bar = |what: What| Some((what.name(), median(self.of(what).to_vec())?, self.ratio(what, What::Dramatiq)));
        What::ALL.into_iter().filter_map(bar).collect()
    }

    /// Whether the run counts.
    pub fn counts(&self) -> String {
        match self.ratio(What::Bare, What::Dramatiq) {
            Some(ratio) if ratio >= 8.0 => {
                format!("the run counts: the bare loop reaches {ratio:.1} × Dramatiq (at least 8)")
            }
            Some(ratio) => {
                format!("the run does NOT count: the bare loop reaches {ratio:.1} × Dramatiq, and 8 are needed")
            }
            None => "the run does NOT count: Dramatiq was not measured".to_owned(),
        }
    }
}

/// What the floods over AMQP wrote, per task.
#[derive(Default)]
struct Written {
    wal: Vec<f64>,
    transactions: Vec<f64>,
    cpu: Vec<f64>,
}

/// Measures all of it, `rounds` times.
pub fn measure(stage: &Stage, rounds: u8) -> anyhow::Result<(Vec<Row>, Bars)> {
    let mut bars = Bars(What::ALL.map(|what| (what, Vec::new())).into());
    let (mut written, mut embedded_cpu) = (Written::default(), Vec::new());
    let mut counts = [PROBE; 3];
    let probe = amqp(stage, PROBE, &mut Written::default())?;
    counts[0] = enough(probe);
    counts[1] = enough(http(stage, PROBE)?.0);
    counts[2] = enough(embedded(stage, PROBE)?.0);
    for round in 1..=rounds {
        for (what, rates) in &mut bars.0 {
            let rate = match what {
                What::Dramatiq => match dramatiq(stage)? {
                    Some(rate) => rate,
                    None => continue,
                },
                What::Bare => bare(stage)?,
                What::Amqp => amqp(stage, counts[0], &mut written)?,
                What::Live => live(stage, counts[0].min(50_000))?,
                What::Http => http(stage, counts[1])?.0,
                What::Embedded => {
                    let (rate, cpu) = embedded(stage, counts[2])?;
                    embedded_cpu.push(cpu);
                    rate
                }
            };
            println!("round {round}: {} {rate:.0}/s", what.name());
            rates.push(rate);
        }
    }
    let rows = rows(&bars, &written, &embedded_cpu, stage, counts);
    Ok((rows, bars))
}

fn rows(bars: &Bars, written: &Written, embedded_cpu: &[f64], stage: &Stage, counts: [u64; 3]) -> Vec<Row> {
    let rate = |what| median(bars.of(what).to_vec()).unwrap_or_default();
    let figures = |what: What| json!({"per_second": bars.of(what), "ratios": bars.ratio(what, What::Dramatiq)});
    let against = |what| match bars.ratio(what, What::Dramatiq) {
        Some(ratio) => format!("{:.0}/s, {ratio:.1} × Dramatiq", rate(what)),
        None => format!("{:.0}/s, Dramatiq unknown", rate(what)),
    };
    let reaches = |what, goal| bars.ratio(what, What::Dramatiq).is_some_and(|ratio| ratio >= goal);
    let mut rows = Vec::new();
    rows.push(match &stage.dramatiq {
        Ok(_) => Row::new(
            What::Dramatiq.name(),
            "the measure",
            format!("{:.0}/s", rate(What::Dramatiq)),
            true,
            figures(What::Dramatiq),
        ),
        Err(why) => Row::skipped(What::Dramatiq.name(), "the measure", why.clone()),
    });
    rows.push(Row::new(
        What::Bare.name(),
        "≥ 8 × Dramatiq, or the run does not count",
        against(What::Bare),
        reaches(What::Bare, 8.0),
        figures(What::Bare),
    ));
    let to_bare = bars.ratio(What::Amqp, What::Bare).unwrap_or_default();
    rows.push(Row::new(
        &format!("{} ({} tasks published before)", What::Amqp.name(), counts[0]),
        "≥ 14 × Dramatiq and faster than the bare loop",
        format!("{}, {to_bare:.2} × the bare loop", against(What::Amqp)),
        reaches(What::Amqp, 14.0) && to_bare > 1.0,
        figures(What::Amqp),
    ));
    rows.push(Row::new(What::Live.name(), "for information", against(What::Live), true, figures(What::Live)));
    rows.push(Row::new(
        What::Http.name(),
        "≥ 8 × Dramatiq",
        against(What::Http),
        reaches(What::Http, 8.0),
        figures(What::Http),
    ));
    let cpu = median(embedded_cpu.to_vec()).unwrap_or_default();
    rows.push(Row::new(
        What::Embedded.name(),
        "≥ 8 × Dramatiq, ≤ 80 µs of CPU a task",
        format!("{}, {cpu:.0} µs of CPU a task", against(What::Embedded)),
        reaches(What::Embedded, 8.0) && cpu <= 80.0,
        json!({"per_second": bars.of(What::Embedded), "cpu_us": embedded_cpu}),
    ));
    let (wal, transactions) = (median(written.wal.clone()), median(written.transactions.clone()));
    let (wal, transactions) = (wal.unwrap_or_default(), transactions.unwrap_or_default());
    let cpu = median(written.cpu.clone()).unwrap_or_default();
    rows.push(Row::new(
        "written, under load",
        "≤ 2 kB of WAL a task, < 0.01 transactions a task",
        format!("{wal:.0} bytes of WAL, {transactions:.4} transactions, {cpu:.0} µs of the daemon's CPU a task"),
        wal <= 2_048.0 && transactions < 0.01,
        json!({"wal_bytes": written.wal, "transactions": written.transactions, "cpu_us": written.cpu}),
    ));
    rows
}

/// How many tasks make a flood long enough.
fn enough(rate: f64) -> u64 {
    ((rate * SECONDS * 1.2) as u64).clamp(TASKS[0], TASKS[1])
}

fn dramatiq(stage: &Stage) -> anyhow::Result<Option<f64>> {
    let Ok(python) = &stage.dramatiq else { return Ok(None) };
    let database = stage.database()?;
    let mut command = Command::new(python);
    command.args(["bench.py", DRAMATIQ]).current_dir(workspace::root().join("tests/bench/dramatiq"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    stage.addresses(&mut command, &database);
    let result = finished(run(&command, PATIENCE)?, "Dramatiq")?;
    stage.drop_database(&database)?;
    number(&result, "/per_second").map(Some)
}

fn bare(stage: &Stage) -> anyhow::Result<f64> {
    let database = stage.database()?;
    let mut command = stage.command("bare-loop", &database)?;
    command.arg(stage.plugins("plugins/word-count")?.join("word-count/word_count.wasm")).arg(BARE);
    let result = finished(run(&command, PATIENCE)?, "the bare loop")?;
    stage.drop_database(&database)?;
    number(&result, "/per_second")
}

/// Published first, then run: tasks per second from the first recorded start to the last recorded end.
fn amqp(stage: &Stage, tasks: u64, written: &mut Written) -> anyhow::Result<f64> {
    let database = stage.database()?;
    let setup = Setup::new(stage, &database, "one", &stage.plugins("plugins/word-count")?)?;
    setup.start()?; // makes tables and queues, and compiles
    let count = tasks.to_string();
    let sent = stage.tool(&database, &["publish", &database, "default", "word-count", &count])?;
    let before = stage.tool(&database, &["counters"])?;
    let daemon = setup.start()?;
    ensure!(wait(&[&daemon], tasks, PATIENCE)?, "{} of {tasks} tasks ended in time", daemon.ended()?);
    let cpu = daemon.cpu()?;
    let after = stage.tool(&database, &["counters"])?;
    let result = recorded(stage, &database, &sent, tasks)?;
    drop(daemon);
    stage.drop_database(&database)?;
    let each = |path: &str| Ok::<_, anyhow::Error>((number(&after, path)? - number(&before, path)?) / tasks as f64);
    written.wal.push(each("/wal_bytes")?);
    written.transactions.push(each("/transactions")?);
    written.cpu.push(cpu * 1e6 / tasks as f64);
    Ok(result)
}

/// What the daemon's rows say of a flood, in tasks per second.
pub fn recorded(stage: &Stage, database: &str, sent: &Value, tasks: u64) -> anyhow::Result<f64> {
    let id = |name: &str| sent[name].as_str().unwrap_or_default().to_owned();
    let result = stage.tool(database, &["recorded", "agentry", &id("first"), &id("last")])?;
    ensure!(result["completed"].as_u64() == Some(tasks), "not every task completed: {result}");
    Ok(tasks as f64 / number(&result, "/seconds")?)
}

/// Published by `agentry bench` while the daemon runs.
fn live(stage: &Stage, tasks: u64) -> anyhow::Result<f64> {
    let result = bench(stage, &["--via", "amqp", "--tasks", &tasks.to_string()])?;
    number(&result, "/throughput/per_second")
}

/// Tasks per second from the first request to the last recorded end, and the daemon's CPU a task in µs.
fn http(stage: &Stage, tasks: u64) -> anyhow::Result<(f64, f64)> {
    figures(&bench(stage, &["--tasks", &tasks.to_string()])?)
}

fn embedded(stage: &Stage, tasks: u64) -> anyhow::Result<(f64, f64)> {
    let mut command = Command::new(stage.program("agentry")?);
    without_settings(&mut command);
    command.current_dir(stage.folder.path()).args(["bench", "--json", "--embedded", "--tasks", &tasks.to_string()]);
    command.arg("--plugins").arg(stage.plugins("plugins/word-count")?);
    figures(&finished(run(&command, PATIENCE)?, "agentry bench --embedded")?)
}

fn figures(result: &Value) -> anyhow::Result<(f64, f64)> {
    let rate = number(result, "/throughput/from_submission_per_second")?;
    Ok((rate, number(result, "/resources/cpu_us_per_task")?))
}

/// `agentry bench` against a new daemon over the services.
fn bench(stage: &Stage, arguments: &[&str]) -> anyhow::Result<Value> {
    let database = stage.database()?;
    let setup = Setup::new(stage, &database, "one", &stage.plugins("plugins/word-count")?)?;
    let daemon = setup.start()?;
    let result = load(stage, &setup, &daemon, arguments)?;
    drop(daemon);
    stage.drop_database(&database)?;
    Ok(result)
}

/// `agentry bench` against a running daemon.
pub fn load(stage: &Stage, setup: &Setup, daemon: &Daemon, arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(stage.program("agentry")?);
    without_settings(&mut command);
    command.current_dir(stage.folder.path()).envs(setup.environment());
    command.args(["bench", "--json", "--server", &daemon.address]).args(arguments);
    finished(run(&command, PATIENCE)?, "agentry bench")
}

fn finished(result: Option<Value>, what: &str) -> anyhow::Result<Value> {
    result.ok_or_else(|| anyhow::anyhow!("{what} did not end within {PATIENCE:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(dramatiq: &[f64], bare: &[f64]) -> Bars {
        Bars(vec![(What::Dramatiq, dramatiq.to_vec()), (What::Bare, bare.to_vec())])
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round.
        let bars = bars(&[1_000.0, 500.0, 1_000.0], &[10_000.0, 5_000.0, 9_000.0]);
        assert_eq!(bars.ratio(What::Bare, What::Dramatiq), Some(10.0));
        assert_eq!(bars.bars()[1], ("bare loop", 9_000.0, Some(10.0)));
    }

    #[test]
    fn a_run_counts_only_above_eight_times_dramatiq() {
        assert!(bars(&[1.0], &[8.0]).counts().starts_with("the run counts"));
        assert!(bars(&[1.0], &[7.9]).counts().contains("NOT count"));
        assert!(bars(&[], &[7.9]).counts().contains("Dramatiq was not measured"));
    }

    #[test]
    fn a_flood_is_long_enough_and_bounded() {
        assert_eq!((enough(10_000.0), enough(1.0), enough(1e9)), (60_000, TASKS[0], TASKS[1]));
    }
}
