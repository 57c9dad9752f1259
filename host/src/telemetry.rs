//! The daemon's own log: lines on standard error, for a person or as JSON.
//!
//! Whoever reads it may be slow, or gone: lines are handed to a thread of their own, and dropped and counted when it cannot
//! keep up. Work never waits for its log, and nothing that matters is in the log alone: what became of a task is in the
//! database.

use std::io::{self, Write};
use std::sync::OnceLock;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for their reader.
const BACKLOG: usize = 16_384;

/// Where [`say`] hands its lines to, once the log has begun.
static LINES: OnceLock<NonBlocking> = OnceLock::new();

/// Keeps the log going; dropped, it writes what still waits (for at most a second).
pub struct Telemetry {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// The directives of `AGENTRY_LOG` are none.
#[derive(Debug, thiserror::Error)]
#[error("env AGENTRY_LOG: {directives:?} are no directives ({cause}); it takes such as agentry=debug,lapin=info")]
pub struct DirectivesError {
    directives: String,
    cause: tracing_subscriber::filter::ParseError,
}

/// What is logged: the level for our own modules, and of the crates below us only what is worth a warning. The AMQP client
/// would log a returned message with its body, which may hold anything; the broker module says what matters of it.
fn filter(level: &str, directives: Option<&str>) -> Result<EnvFilter, DirectivesError> {
    let directives = match (directives, level) {
        (Some(directives), _) => directives.to_owned(),
        (None, "error" | "warn") => format!("{level},lapin=off"),
        (None, level) => format!("warn,lapin=off,agentry={level},agentry_sandbox={level},agentry_outbound={level}"),
    };
    EnvFilter::try_new(&directives).map_err(|cause| DirectivesError { directives, cause })
}

impl Telemetry {
    /// Begin to log, for the rest of the process: from `level` on, or what `directives` (`AGENTRY_LOG`) say instead; as
    /// JSON, one object a line, or for a person.
    ///
    /// # Errors
    /// Directives that cannot be read.
    pub fn start(level: &str, directives: Option<&str>, json: bool) -> Result<Telemetry, DirectivesError> {
        let filter = filter(level, directives)?;
        let (lines, guard) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(BACKLOG).thread_name("log").finish(Stderr);
        let dropped = lines.error_counter();
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone()).with_ansi(false);
        // A second start in one process keeps the first: tests.
        let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
        let _ = LINES.set(lines);
        Ok(Telemetry { dropped, _guard: guard })
    }

    /// Lines that were dropped because nobody read.
    pub fn dropped(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// Lines that were dropped so far because their reader was too slow or gone.
pub fn dropped() -> usize {
    LINES.get().map_or(0, |lines| lines.error_counter().dropped_lines())
}

/// Say one line on standard error as it is, whatever the level and format: for what a person or a script waits for. Like
/// the log it never waits for its reader.
pub fn say(line: &str) {
    let text = format!("{line}\n");
    match LINES.get() {
        // One write is one line to the thread that writes; it takes every one, or counts it as dropped.
        Some(lines) => drop(lines.clone().write_all(text.as_bytes())),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Standard error, which may be closed or have lost its reader: then lines go nowhere.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error here would end the thread that writes, and with it the log for good.
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_for_our_own_modules() {
        assert_eq!(
            filter("debug", None).unwrap().to_string(),
            "agentry_outbound=debug,agentry_sandbox=debug,agentry=debug,lapin=off,warn"
        );
        assert_eq!(filter("error", None).unwrap().to_string(), "lapin=off,error");
    }

    #[test]
    fn directives_stand_in_for_the_level_and_bad_ones_are_refused() {
        assert_eq!(filter("info", Some("lapin=trace")).unwrap().to_string(), "lapin=trace");
        let error = filter("info", Some("a=b=c")).unwrap_err().to_string();
        assert!(error.starts_with("env AGENTRY_LOG: \"a=b=c\" are no directives"), "{error}");
    }
}
