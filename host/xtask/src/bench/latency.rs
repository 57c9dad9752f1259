//! From publishing to the recorded end, at a rate that the machine can bear.

use serde_json::json;

use super::daemon::Setup;
use super::flood::load;
use super::row::{Row, median, number};
use super::stage::Stage;

/// Rate, and the longest p50 and p99 in milliseconds.
const RATES: [(u32, f64, f64); 2] = [(200, 2.5, 6.0), (1_000, 4.0, 12.0)];
/// Tasks of a flood before, so that connections and caches are as in a daemon that has run for a while.
const WARM: &str = "2000";
/// How long tasks are sent.
const TIME: &str = "6s";

/// Measures each rate, `rounds` times in alternation.
pub fn measure(stage: &Stage, rounds: u8) -> anyhow::Result<Vec<Row>> {
    let mut times = vec![(Vec::new(), Vec::new()); RATES.len()];
    for _ in 0..rounds {
        let database = stage.database()?;
        let setup = Setup::new(stage, &database, "one", &stage.plugins("plugins/word-count")?)?;
        let daemon = setup.start()?;
        load(stage, &setup, &daemon, &["--via", "amqp", "--tasks", WARM])?;
        for ((rate, _, _), (p50, p99)) in RATES.iter().zip(&mut times) {
            let rate = format!("{rate}/s");
            let result = load(stage, &setup, &daemon, &["--via", "amqp", "--rate", &rate, "--for", TIME])?;
            p50.push(number(&result, "/latency_ms/p50")?);
            p99.push(number(&result, "/latency_ms/p99")?);
        }
        drop(daemon);
        stage.drop_database(&database)?;
    }
    let mut rows = Vec::with_capacity(RATES.len());
    for ((rate, most50, most99), (p50, p99)) in RATES.iter().zip(&times) {
        let (mid50, mid99) = (median(p50.clone()).unwrap_or_default(), median(p99.clone()).unwrap_or_default());
        rows.push(Row::new(
            &format!("publish → terminal row at {rate}/s"),
            &format!("p50 ≤ {most50} ms, p99 ≤ {most99} ms"),
            format!("p50 {mid50:.1} ms, p99 {mid99:.1} ms"),
            mid50 <= *most50 && mid99 <= *most99,
            json!({"p50_ms": p50, "p99_ms": p99}),
        ));
    }
    Ok(rows)
}
