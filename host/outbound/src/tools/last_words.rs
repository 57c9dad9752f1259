//! Why a child ended: its last words, and what they call for.

use super::settings::Program;
use super::words::bounded;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitStatus;

/// How many lines are kept.
const LINES: usize = 5;
/// How much of them is shown.
const BYTES: usize = 512;
/// The exit codes of a shell or `env` that could not start a command: it was not found, or may not be executed.
const NOT_STARTED: [i32; 2] = [127, 126];
/// How the supervisor begins the line about a program that it could not start.
pub(super) const CANNOT_START: &str = "the server cannot be started: ";

/// The end of a child's standard error.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    /// Takes a line.
    pub(super) fn push(&mut self, line: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The last lines, as many as fit; the last one always, cut if it has to be.
    pub(super) fn shown(&self) -> String {
        let mut shown = String::new();
        for line in self.0.iter().rev() {
            if shown.is_empty() {
                shown = bounded(line, BYTES);
            } else if shown.len() + line.len() + 3 <= BYTES {
                shown = format!("{line} | {shown}");
            } else {
                break;
            }
        }
        shown
    }
}

/// Error text for a child that ended: why the session did, its status, its last words, and the remedy if one is known.
pub(super) fn explained(
    reason: &str,
    status: Option<ExitStatus>,
    last: &str,
    server: &str,
    program: &Program,
) -> String {
    // The supervisor says the same as this process without one.
    if let Some((_, words)) = last.split_once(CANNOT_START) {
        return format!("it cannot be started: {words}");
    }
    let status_words = status.map_or_else(|| "it could not be ended".to_owned(), |status| status.to_string());
    let mut words = format!("{reason} ({status_words})");
    if !last.is_empty() {
        words = format!("{words}; it said last: {last}");
    }
    let looks_missing = status.and_then(|status| status.code()).is_some_and(|code| NOT_STARTED.contains(&code))
        || ["not found", "No such file or directory", "ENOENT"].iter().any(|part| last.contains(part));
    if looks_missing {
        let path = program.env.contains_key("PATH");
        words = match path {
            true => format!(
                "{words}; a command that it starts may be missing in its PATH, which is tools.{server}.env.PATH"
            ),
            false => format!(
                "{words}; its environment has no PATH: set it in tools.{server}, for example env = {{ PATH = \"/usr/local/bin:/usr/bin:/bin\" }}"
            ),
        };
    }
    words
}

/// Why a program that is there could not be started.
pub(super) fn cannot_start(program: &Path, error: &io::Error) -> String {
    let name = program.display();
    match error.raw_os_error() {
        // The kernel says so of the interpreter, too.
        Some(2) => match interpreter(program) {
            Some(interpreter) => {
                format!("{name} names {interpreter:?} as its interpreter, which is not there; install it")
            }
            None if program.exists() => format!("{name} needs a loader or a library that is not there: {error}"),
            None => format!("{name} is not there any more"),
        },
        Some(8) => format!("{name} is no program of this machine; a script needs a first line such as #!/bin/sh"),
        _ => format!("{name}: {error}"),
    }
}

/// The program that the first line of a script names.
fn interpreter(program: &Path) -> Option<String> {
    let mut line = Vec::new();
    let file = std::fs::File::open(program).ok()?.take(256);
    BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    line.strip_prefix("#!")?.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_shown_as_many_as_fit() {
        let mut tail = Tail::default();
        assert_eq!(tail.shown(), "");
        (0..7).for_each(|n| tail.push(format!("line {n}")));
        assert_eq!(tail.shown(), "line 2 | line 3 | line 4 | line 5 | line 6");
        tail.push("x".repeat(500));
        tail.push("the end".to_owned());
        assert_eq!(tail.shown().len(), 510);
        tail.push("y".repeat(2_000));
        assert!(tail.shown().len() <= BYTES && tail.shown().ends_with('…'));
    }
}
