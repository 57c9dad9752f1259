//! What a guest's answer comes to: everything in it is from a stranger, and is checked before anybody stores it.

use std::time::Duration;

use agentry_defence::Defence;
use serde_json::json as value;

use crate::budget::NoMemory;
use crate::capability::bindings::agentry::plugin::types::Failure;
use crate::failure::{Fault, FaultKind, MESSAGE_BYTES};
use crate::json::{self, DEPTH, NotJson};
use crate::limits::Limits;
use crate::streams::{Log, truncate};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The output: JSON, within the limit, byte for byte what the guest returned.
    Output(String),
    /// Not this time, perhaps later.
    Retry {
        /// For a person.
        message: String,
        /// For programs: `[a-z0-9_.-]{1,64}`.
        code: Option<String>,
        /// For programs: JSON.
        data: Option<String>,
        /// Not before this long from now.
        after: Option<Duration>,
    },
    /// Never, however often it is tried.
    Permanent {
        /// For a person.
        message: String,
        /// For programs: `[a-z0-9_.-]{1,64}`.
        code: Option<String>,
        /// For programs: JSON.
        data: Option<String>,
    },
    /// The input is not what this plugin takes.
    InvalidInput {
        /// For a person.
        message: String,
        /// A JSON Pointer into the input.
        pointer: Option<String>,
    },
    /// Too early: again after a while, from the start.
    Snooze {
        /// For a person.
        message: String,
        /// At least a second.
        after: Duration,
    },
    /// What the guest did not say on purpose.
    Fault(Fault),
    /// The invocation's stop token was cancelled first.
    Stopped,
    /// It wanted more memory than it had reserved, and the budget of all guests had none left. Not the guest's failure: to
    /// be run again.
    NoMemory(NoMemory),
}

/// The longest code, in bytes.
const CODE_BYTES: usize = 64;
/// The longest details, in bytes.
const DETAILS_BYTES: usize = 64 << 10;
/// The longest JSON Pointer, in bytes.
const POINTER_BYTES: usize = 1 << 10;
/// The shortest snooze.
const SNOOZE: Duration = Duration::from_secs(1);

pub(crate) fn from_output(output: String, limits: &Limits) -> Outcome {
    let bytes = output.len() as u64;
    if bytes > limits.output_bytes && Defence::Output.stands() {
        return Outcome::Fault(Fault::output_too_large(bytes, limits));
    }
    let (message, detail) = match json::check(&output) {
        Ok(()) => return Outcome::Output(output),
        Err(_) if !Defence::OutputJson.stands() => return Outcome::Output(output),
        Err(NotJson::Syntax(error)) => (
            format!("returned text that is not JSON: {error}"),
            value!({ "line": error.line(), "column": error.column() }),
        ),
        Err(NotJson::Depth(depth)) => (
            format!("returned JSON that is nested {depth} deep or more, and {DEPTH} is the most"),
            value!({ "limit": "output_depth", "used": depth, "allowed": DEPTH }),
        ),
    };
    Outcome::Fault(Fault { kind: FaultKind::InvalidOutput, message, detail })
}

pub(crate) fn from_failure(failure: Failure, log: &mut Log) -> Outcome {
    match failure {
        Failure::Retry(retry) => Outcome::Retry {
            message: message(retry.message),
            code: code(retry.code, log),
            data: details(retry.details, log),
            after: retry.after_ms.map(|ms| Duration::from_millis(ms.into())),
        },
        Failure::Permanent(permanent) => Outcome::Permanent {
            message: message(permanent.message),
            code: code(permanent.code, log),
            data: details(permanent.details, log),
        },
        Failure::InvalidInput(invalid) => {
            Outcome::InvalidInput { message: message(invalid.message), pointer: pointer(invalid.pointer, log) }
        }
        Failure::Snooze(snooze) => Outcome::Snooze {
            message: message(snooze.message),
            after: Duration::from_millis(snooze.after_ms.into()).max(SNOOZE),
        },
    }
}

fn message(mut message: String) -> String {
    truncate(&mut message, MESSAGE_BYTES);
    message
}

fn code(code: Option<String>, log: &mut Log) -> Option<String> {
    let fits = |code: &String| {
        (1..=CODE_BYTES).contains(&code.len())
            && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
    };
    kept(code, fits, log, "the failure's code was dropped: it is not of the form [a-z0-9_.-]{1,64}")
}

fn details(details: Option<String>, log: &mut Log) -> Option<String> {
    let fits = |details: &String| details.len() <= DETAILS_BYTES && json::check(details).is_ok();
    kept(details, fits, log, "the failure's details were dropped: they are not JSON of at most 64 KiB")
}

fn pointer(pointer: Option<String>, log: &mut Log) -> Option<String> {
    let fits = |pointer: &String| (pointer.is_empty() || pointer.starts_with('/')) && pointer.len() <= POINTER_BYTES;
    kept(pointer, fits, log, "the failure's pointer was dropped: it is not a JSON Pointer of at most 1 KiB")
}

fn kept(value: Option<String>, fits: impl Fn(&String) -> bool, log: &mut Log, remark: &str) -> Option<String> {
    let value = value?;
    if fits(&value) {
        return Some(value);
    }
    log.remark(remark.to_owned());
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::bindings::agentry::plugin::types::{InvalidInput, Permanent, Retry, Snooze};

    fn log() -> Log {
        Log::new(&Limits::default(), None)
    }

    fn kind(output: &str) -> Option<FaultKind> {
        match from_output(output.to_owned(), &Limits { output_bytes: 1_000, ..Limits::default() }) {
            Outcome::Output(same) => {
                assert_eq!(same, output);
                None
            }
            Outcome::Fault(fault) => Some(fault.kind),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_is_given_on_byte_for_byte() {
        for output in [
            "null",
            " {\"b\":1, \"a\" : 1.0e5}\n",
            "\"]]]\\\"[[[\"",
            "\"\u{1f980}\"",
            "\"\\ud83e\\udd80\"",
            "[1e-999,18446744073709551616]",
        ] {
            assert_eq!(kind(output), None, "{output}");
        }
        assert_eq!(kind(&format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH))), None);
    }

    #[test]
    fn anything_else_is_an_invalid_output() {
        for output in ["", "nul", "{} {}", "{'a':1}", "[1,]", "\"open", "NaN"] {
            assert_eq!(kind(output), Some(FaultKind::InvalidOutput), "{output}");
        }
    }

    #[test]
    fn json_too_deep_for_its_readers_is_an_invalid_output() {
        let deep = format!("{}{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert_eq!(kind(&deep), Some(FaultKind::InvalidOutput));
        // What is let through, the usual reader reads, also within a failure of a task in a list.
        let fits = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
        let listed = format!("{{\"tasks\":[{{\"failure\":{{\"detail\":{{\"data\":{fits}}}}}}}]}}");
        assert!(serde_json::from_str::<serde_json::Value>(&listed).is_ok());
    }

    #[test]
    fn an_output_is_too_large_from_the_first_byte_over() {
        assert_eq!(kind(&format!("{:1000}", 1)), None);
        assert_eq!(kind(&format!("{:1001}", 1)), Some(FaultKind::OutputTooLarge));
    }

    #[test]
    fn what_a_failure_says_is_cut_or_dropped_and_the_log_says_so() {
        let mut log = log();
        let outcome = from_failure(
            Failure::Retry(Retry {
                message: "x".repeat(10_000),
                code: Some("Rate Limited".to_owned()),
                details: Some("{".to_owned()),
                after_ms: Some(5),
            }),
            &mut log,
        );
        assert_eq!(
            outcome,
            Outcome::Retry {
                message: "x".repeat(8_192),
                code: None,
                data: None,
                after: Some(Duration::from_millis(5)),
            }
        );
        let (lines, _) = log.finish();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.logger == "agentry"));
    }

    #[test]
    fn what_a_failure_says_well_is_kept() {
        let mut log = log();
        let outcome = from_failure(
            Failure::Permanent(Permanent {
                message: "gone".to_owned(),
                code: Some("rate_limited.2-x".to_owned()),
                details: Some("{\"a\": 1}".to_owned()),
            }),
            &mut log,
        );
        assert_eq!(
            outcome,
            Outcome::Permanent {
                message: "gone".to_owned(),
                code: Some("rate_limited.2-x".to_owned()),
                data: Some("{\"a\": 1}".to_owned()),
            }
        );
        let pointer = from_failure(
            Failure::InvalidInput(InvalidInput { message: String::new(), pointer: Some("/a/0".to_owned()) }),
            &mut log,
        );
        assert!(matches!(pointer, Outcome::InvalidInput { pointer: Some(_), .. }));
        assert!(log.finish().0.is_empty());
    }

    #[test]
    fn a_snooze_lasts_at_least_a_second() {
        let snooze = |after_ms| from_failure(Failure::Snooze(Snooze { message: String::new(), after_ms }), &mut log());
        assert!(matches!(snooze(0), Outcome::Snooze { after, .. } if after == SNOOZE));
        assert!(matches!(snooze(5_000), Outcome::Snooze { after, .. } if after == 5 * SNOOZE));
    }
}

#[cfg(test)]
#[path = "outcome_fuzz.rs"]
mod fuzz;
