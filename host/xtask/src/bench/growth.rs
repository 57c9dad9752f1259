//! Whether a task costs the same in a large table, beside many plugins, and with a second daemon.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::daemon::{Daemon, Setup, wait};
use super::flood::recorded;
use super::row::{Row, median};
use super::stage::Stage;
use super::start::{PLUGINS, hundred};

/// Tasks of a measured flood.
const TASKS: u64 = 20_000;
/// Rows before the last measured flood; with `--long` the second one.
const ROWS: [u64; 2] = [100_000, 1_000_000];
/// The slowest daemon that fills a table within the time of a run.
const SLOWEST: f64 = 2_500.0;
const PATIENCE: Duration = Duration::from_secs(300);
/// How far apart two costs may be.
const FLAT: f64 = 0.15;

/// One flood: tasks per second, and the daemon's CPU a task in µs.
#[derive(Clone, Copy)]
struct Cost {
    per_second: f64,
    cpu_us: f64,
}

/// Measures all three.
pub fn measure(stage: &Stage, long: bool) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![in_rows(stage, long)?];
    rows.push(with_plugins(stage)?);
    rows.push(two_daemons(stage)?);
    Ok(rows)
}

fn in_rows(stage: &Stage, long: bool) -> anyhow::Result<Row> {
    let (most, what) = match long {
        true => (ROWS[1], "growth: cost a task from 10 k to 1 M rows"),
        false => (ROWS[0], "growth: cost a task from 10 k to 100 k rows"),
    };
    let goal = "flat, ± 15 %";
    let database = stage.database()?;
    let setup = Setup::new(stage, &database, "one", &stage.plugins("plugins/word-count")?)?;
    flood(stage, &setup, &database, "word-count", 10_000)?;
    let first = flood(stage, &setup, &database, "word-count", TASKS)?;
    if first.per_second < SLOWEST {
        stage.drop_database(&database)?;
        let why = format!(
            "at {:.0}/s it would take {:.0} s to fill the table",
            first.per_second,
            most as f64 / first.per_second
        );
        return Ok(Row::skipped(what, goal, why));
    }
    let mut rows = 10_000 + TASKS;
    while rows < most {
        let more = (most - rows).min(100_000);
        flood(stage, &setup, &database, "word-count", more)?;
        rows += more;
    }
    let last = flood(stage, &setup, &database, "word-count", TASKS)?;
    stage.drop_database(&database)?;
    Ok(compared(what, goal, first, last))
}

fn with_plugins(stage: &Stage) -> anyhow::Result<Row> {
    let (one, many) = (stage.database()?, stage.database()?);
    let single = Setup::new(stage, &one, "one", &stage.plugins("plugins/word-count")?)?;
    let all = Setup::new(stage, &many, "many", &hundred(stage)?)?;
    let names: Vec<_> = (0..PLUGINS).map(|number| format!("word-count-{number}")).collect();
    let names = names.join(",");
    flood(stage, &single, &one, "word-count", 2_000)?; // both have compiled before they are compared
    flood(stage, &all, &many, &names, 2_000)?;
    let first = marginal(stage, &single, &one, "word-count")?;
    let last = marginal(stage, &all, &many, &names)?;
    for database in [one, many] {
        stage.drop_database(&database)?;
    }
    Ok(compared("growth: cost a task from 1 to 100 plugins", "flat, ± 15 %", first, last))
}

fn two_daemons(stage: &Stage) -> anyhow::Result<Row> {
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        for (daemons, rates) in [(1, &mut ones), (2, &mut twos)] {
            let database = stage.database()?;
            let plugins = stage.plugins("plugins/word-count")?;
            let setups: Vec<_> = ["a", "b"][..daemons]
                .iter()
                .map(|name| Setup::new(stage, &database, name, &plugins))
                .collect::<anyhow::Result<_>>()?;
            for setup in &setups {
                setup.start()?; // makes queues and tables, and compiles
            }
            let sent = publish(stage, &database, "word-count", TASKS * 2)?;
            let running = start_together(&setups)?;
            let all: Vec<&Daemon> = running.iter().collect();
            ensure!(wait(&all, TASKS * 2, PATIENCE)?, "not every task ended in time");
            rates.push(recorded(stage, &database, &sent, TASKS * 2)?);
            drop(running);
            stage.drop_database(&database)?;
        }
    }
    let ratio = median(ones.iter().zip(&twos).map(|(one, two)| two / one).collect()).unwrap_or_default();
    Ok(Row::new(
        "two daemons on one machine",
        "≥ 90 % of one",
        format!("{:.0} % of one ({:.0}/s)", ratio * 100.0, median(ones.clone()).unwrap_or_default()),
        ratio >= 0.9,
        json!({"one": ones, "two": twos}),
    ))
}

fn start_together(setups: &[Setup]) -> anyhow::Result<Vec<Daemon>> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = setups.iter().map(|setup| scope.spawn(|| setup.start())).collect();
        let joined = starting.into_iter().map(|thread| thread.join());
        joined.map(|daemon| daemon.unwrap_or_else(|_| anyhow::bail!("the thread that starts it panicked"))).collect()
    })
}

fn publish(stage: &Stage, database: &str, plugins: &str, tasks: u64) -> anyhow::Result<Value> {
    stage.tool(database, &["publish", database, "default", plugins, &tasks.to_string()])
}

/// Publishes tasks and then runs a daemon until they have ended.
fn flood(stage: &Stage, setup: &Setup, database: &str, plugins: &str, tasks: u64) -> anyhow::Result<Cost> {
    setup.start()?;
    let sent = publish(stage, database, plugins, tasks)?;
    let daemon = setup.start()?;
    ensure!(wait(&[&daemon], tasks, PATIENCE)?, "{} of {tasks} tasks ended in time", daemon.ended()?);
    let cpu_us = daemon.cpu()? * 1e6 / tasks as f64;
    let per_second = recorded(stage, database, &sent, tasks)?;
    Ok(Cost { per_second, cpu_us })
}

/// The cost of each further task: what a larger flood takes beyond a smaller one. The start, and the first instance of each plugin, which
/// brings its code into memory, are in both; they grow with the plugins, not with the tasks.
fn marginal(stage: &Stage, setup: &Setup, database: &str, plugins: &str) -> anyhow::Result<Cost> {
    let (few, many) = (TASKS as f64, TASKS as f64 * 3.0);
    let small = flood(stage, setup, database, plugins, TASKS)?;
    let large = flood(stage, setup, database, plugins, TASKS * 3)?;
    let seconds = many / large.per_second - few / small.per_second;
    let cpu_us = (many * large.cpu_us - few * small.cpu_us) / (many - few);
    ensure!(seconds > 0.0, "{many} tasks took no longer than {few}: the machine is too uneven to measure");
    Ok(Cost { per_second: (many - few) / seconds, cpu_us })
}

fn compared(what: &str, goal: &str, first: Cost, last: Cost) -> Row {
    let (time, cpu) = (first.per_second / last.per_second, last.cpu_us / first.cpu_us);
    let percent = |ratio: f64| format!("{:+.0} %", (ratio - 1.0) * 100.0);
    let measured = format!(
        "{} time, {} of the daemon's CPU a task ({:.0} → {:.0}/s)",
        percent(time),
        percent(cpu),
        first.per_second,
        last.per_second
    );
    let figures = json!({"per_second": [first.per_second, last.per_second], "cpu_us": [first.cpu_us, last.cpu_us]});
    Row::new(what, goal, measured, time <= 1.0 + FLAT && cpu <= 1.0 + FLAT, figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_grows_falls_short_and_one_that_shrinks_holds() {
        let cost = |per_second, cpu_us| Cost { per_second, cpu_us };
        let verdict = |first, last| compared("w", "g", first, last).json()["verdict"].clone();
        assert_eq!(verdict(cost(1_000.0, 50.0), cost(900.0, 55.0)), "holds");
        assert_eq!(verdict(cost(1_000.0, 50.0), cost(800.0, 50.0)), "short");
        assert_eq!(verdict(cost(1_000.0, 50.0), cost(1_000.0, 60.0)), "short");
        assert_eq!(verdict(cost(1_000.0, 50.0), cost(2_000.0, 20.0)), "holds");
    }
}
