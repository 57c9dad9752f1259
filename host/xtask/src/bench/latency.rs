//! From publishing to the committed end, at a rate that the machine can bear. The recorded time of an end is that at which the
//! database began to record it; the commit follows within the leg `settle`, whose bound is added.

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
            p50.push((number(&result, "/latency_ms/p50")?, number(&result, "/legs/settle/mean_ms")?));
            p99.push((number(&result, "/latency_ms/p99")?, number(&result, "/legs/settle/p99_le_ms")?));
        }
        drop(daemon);
        stage.drop_database(&database)?;
    }
    let mut rows = Vec::with_capacity(RATES.len());
    for ((rate, most50, most99), (p50, p99)) in RATES.iter().zip(&times) {
        let middle = |pairs: &[(f64, f64)]| {
            let begun = median(pairs.iter().map(|pair| pair.0).collect()).unwrap_or_default();
            (begun, begun + median(pairs.iter().map(|pair| pair.1).collect()).unwrap_or_default())
        };
        let ((begun50, mid50), (begun99, mid99)) = (middle(p50), middle(p99));
        rows.push(Row::new(
            &format!("publish → terminal row at {rate}/s"),
            &format!("p50 ≤ {most50} ms, p99 ≤ {most99} ms"),
            format!(
                "p50 {begun50:.1} ms, p99 {begun99:.1} ms until its recording begins; {mid50:.1} and at most {mid99:.1} ms with settle"
            ),
            mid50 <= *most50 && mid99 <= *most99,
            json!({"p50_and_settle_mean_ms": p50, "p99_and_settle_p99_ms": p99}),
        ));
    }
    Ok(rows)
}
