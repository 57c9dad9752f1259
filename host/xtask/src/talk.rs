//! What xtask says: one line per phase, with its time.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Whether a person watches: then cargo shows its progress and colours; in a pipe there are only phase lines, warnings,
/// errors and test output.
pub fn watched() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

/// Does one phase and says how it went. `what` stands while it runs; the line after it says what came out.
pub fn phase<T>(
    name: &str,
    what: &str,
    work: impl FnOnce() -> anyhow::Result<T>,
    result: impl FnOnce(&T) -> String,
) -> anyhow::Result<T> {
    println!("{name}: {what}");
    let began = Instant::now();
    let done = work();
    let took = seconds(began.elapsed());
    match &done {
        Ok(value) => println!("{name}: {} ({took})", result(value)),
        Err(_) => println!("{name}: failed ({took})"),
    }
    done
}

/// `0.4 s`, `75.0 s`.
pub fn seconds(time: Duration) -> impl Display {
    format!("{:.1} s", time.as_secs_f64())
}
