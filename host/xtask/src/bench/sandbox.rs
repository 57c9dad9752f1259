//! A fresh instance and a call, without anything around it; and what a second thread adds.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::json;

use super::row::{Row, median};
use super::stage::Stage;
use crate::test::peers;
use crate::workspace::Workspace;

/// Runs of a guest in Rust, in JavaScript, in Python: each some hundred milliseconds to a second.
const RUNS: [&str; 3] = ["60000", "2000", "600"];
const INPUT: &str = r#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

/// Measures one and two threads in alternation.
pub fn measure(stage: &Stage, rounds: u8) -> anyhow::Result<Vec<Row>> {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let rust = stage.plugins("plugins/word-count")?.join("word-count/word_count.wasm");
        one.push(runs(stage, &rust, RUNS[0], "1")?);
        two.push(runs(stage, &rust, RUNS[0], "2")?);
    }
    let ratio = median(one.iter().zip(&two).map(|(one, two)| two / one).collect()).unwrap_or_default();
    let each = 1e6 / median(one.clone()).unwrap_or(f64::NAN);
    let goal = |what: &str| format!("fresh instance and call, {what}");
    let mut rows =
        vec![Row::new(&goal("Rust"), "≤ 8 µs", format!("{each:.1} µs"), each <= 8.0, json!({"per_second": one}))];
    let languages = [("JavaScript", "≤ 0.2 ms", 0.2, RUNS[1]), ("Python", "≤ 1 ms", 1.0, RUNS[2])];
    for ((name, most, milliseconds, count), built) in languages.into_iter().zip(peers::measured(&Workspace::read()?)) {
        rows.push(match built {
            Err(why) => Row::skipped(&goal(name), most, why),
            Ok(component) => {
                let each = 1e3 / runs(stage, &component, count, "1")?;
                Row::new(
                    &goal(name),
                    most,
                    format!("{each:.2} ms"),
                    each <= milliseconds,
                    json!({"milliseconds": each}),
                )
            }
        });
    }
    rows.push(Row::new(
        "two guest threads",
        "≥ 1.6 × one",
        format!("{ratio:.2} × one"),
        ratio >= 1.6,
        json!({"one": one, "two": two}),
    ));
    Ok(rows)
}

/// Runs per second on so many threads.
fn runs(stage: &Stage, component: &Path, count: &str, workers: &str) -> anyhow::Result<f64> {
    let mut command = Command::new(stage.program("fresh_run")?);
    // An interpreter takes a minute to compile; its code is kept for the next round.
    let compiled = stage.folder.path().join("compiled");
    command.arg(component).args([INPUT, count, workers]).arg(compiled);
    let output = command.output().context("failed to run fresh_run")?;
    if !output.status.success() {
        bail!("fresh_run failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    per_second(&said).with_context(|| format!("failed to read what fresh_run printed: {said}"))
}

fn per_second(said: &str) -> Option<f64> {
    said.lines().last()?.strip_suffix(" per second")?.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_the_last_number() {
        let said = "load 1ms\nfirst 2ms: x\n10 runs in 1ms on 1 workers: 8µs each per worker, of it 5µs to instantiate; 120000 per second\n";
        assert_eq!(super::per_second(said), Some(120_000.0));
        assert_eq!(super::per_second("first"), None);
    }
}
