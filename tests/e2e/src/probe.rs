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

/// The input that makes it answer with exactly this text.
pub fn raw_output(text: &str) -> Value {
    json!({"do": "output", "text": text})
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
    probe(json!({"do": "fail_until_attempt", "attempt": attempt}))
}

/// Sleeps, then answers.
pub fn sleep(milliseconds: u64) -> Task {
    probe(json!({"do": "sleep", "ms": milliseconds}))
}

/// Answers with text that is not JSON.
pub fn not_json() -> Task {
    probe(json!({"do": "not_json"}))
}

/// Answers with more than is allowed.
pub fn big_output(bytes: u64) -> Task {
    probe(json!({"do": "big_output", "bytes": bytes}))
}

/// Ends its process.
pub fn exit(code: i32) -> Task {
    probe(json!({"do": "exit", "code": code}))
}
