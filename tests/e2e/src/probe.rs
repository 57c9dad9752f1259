//! What the guest `probe` does on request.

use serde_json::{Value, json};

use crate::task::Task;

fn probe(input: Value) -> Task {
    Task::new("probe", input)
}

/// Answers with this value.
pub fn echo(value: Value) -> Task {
    probe(json!({"do": "echo", "value": value}))
}

/// Fails for good.
pub fn fail_permanent(message: &str) -> Task {
    probe(json!({"do": "fail_permanent", "message": message}))
}

/// Says that its input is not what it takes.
pub fn invalid_input() -> Task {
    probe(json!({"do": "invalid_input"}))
}

/// Fails until its `attempt`-th attempt.
pub fn fail_until_attempt(attempt: u32) -> Task {
    probe(json!({"do": "fail_until_attempt", "n": attempt}))
}

/// Sleeps, then answers.
pub fn sleep(milliseconds: u64) -> Task {
    probe(json!({"do": "sleep", "ms": milliseconds}))
}

/// Allocates and touches so many MiB, and holds them for so many milliseconds.
pub fn allocate(mib: u64, milliseconds: u64) -> Task {
    probe(json!({"do": "allocate", "mib": mib, "hold_ms": milliseconds}))
}

/// Answers with a text of so many KiB.
pub fn big_output(kib: u64) -> Task {
    probe(json!({"do": "big_output", "kib": kib}))
}

/// Ends its process.
pub fn exit(code: i32) -> Task {
    probe(json!({"do": "exit", "code": code}))
}

/// Answers with exactly this text, JSON or not.
pub fn answer_with(text: &str) -> Task {
    probe(json!({"do": "not_json", "text": text}))
}

/// Asks to be run again after so many milliseconds, until the clock has reached a time.
pub fn snooze(milliseconds: u64, until_unix_ms: u64) -> Task {
    probe(json!({"do": "snooze", "ms": milliseconds, "until_unix_ms": until_unix_ms}))
}
