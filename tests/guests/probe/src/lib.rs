//! Does what its input says, so that a test can have any behaviour by asking for it: `{"do": "sleep", "ms": 50}`.

use agentry_sdk::serde_json::{Value, json};
use agentry_sdk::{Failure, Task, context, log, plugin};
use std::time::Duration;

#[derive(serde::Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Input {
    /// Give back the value.
    Echo { value: Value },
    /// Sleep, then say so.
    Sleep { ms: u64 },
    /// Compute for about so many turns of a loop; without a number, for ever.
    Spin { turns: Option<u64> },
    /// Fail so that it is retried.
    FailRetry { message: Option<String>, code: Option<String>, details: Option<Value>, after_ms: Option<u64> },
    /// Fail for good.
    FailPermanent { message: Option<String>, code: Option<String>, details: Option<Value> },
    /// Find fault with the input.
    InvalidInput { message: Option<String>, pointer: Option<String> },
    /// Ask to be run again later, until this attempt's labels or the task say otherwise: always.
    Snooze { ms: u64 },
    /// Fail until this attempt, then succeed.
    FailUntilAttempt { n: u32 },
    /// Log so many lines of so many bytes.
    Log { lines: u32, bytes: usize },
    /// Print one line on standard output and one on standard error.
    Print { out: Option<String>, err: Option<String> },
    /// Call `exit`.
    Exit { code: i32 },
    /// Return a string of so many KiB.
    BigOutput { kib: usize },
    /// Panic with a message.
    Panic { message: String },
    /// What the context says.
    Context,
    /// Allocate and touch so many MiB.
    Allocate { mib: usize },
    /// Try to reach what nobody granted.
    Reach,
}

fn handle(task: &Task, input: Input) -> Result<Value, Failure> {
    log::log(log::Level::Info, "probe", &format!("start {} {}", task.id, task.attempt));
    let text = |text: Option<String>| text.unwrap_or_else(|| "as asked".into());
    match input {
        Input::Echo { value } => Ok(value),
        Input::Sleep { ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(json!({"slept_ms": ms, "attempt": task.attempt}))
        }
        Input::Spin { turns } => {
            let mut n = 0u64;
            while turns.is_none_or(|turns| n < turns) {
                n = std::hint::black_box(n + 1);
            }
            Ok(json!(n))
        }
        Input::FailRetry { message, code, details, after_ms } => {
            let failure = dress(Failure::retry(text(message)), code, details);
            Err(match after_ms {
                Some(ms) => failure.with_after(Duration::from_millis(ms)),
                None => failure,
            })
        }
        Input::FailPermanent { message, code, details } => Err(dress(Failure::permanent(text(message)), code, details)),
        Input::InvalidInput { message, pointer } => {
            let failure = Failure::invalid_input(text(message));
            Err(match pointer {
                Some(pointer) => failure.with_pointer(pointer),
                None => failure,
            })
        }
        Input::Snooze { ms } => Err(Failure::snooze("as asked", Duration::from_millis(ms))),
        Input::FailUntilAttempt { n } if task.attempt < n => {
            Err(Failure::retry(format!("attempt {} of {n}", task.attempt)))
        }
        Input::FailUntilAttempt { .. } => Ok(json!({"attempt": task.attempt})),
        Input::Log { lines, bytes } => {
            let line = "x".repeat(bytes);
            (0..lines).for_each(|_| log::info(&line));
            Ok(json!({"lines": lines}))
        }
        Input::Print { out, err } => {
            out.inspect(|text| println!("{text}"));
            err.inspect(|text| eprintln!("{text}"));
            Ok(Value::Null)
        }
        Input::Exit { code } => std::process::exit(code),
        Input::BigOutput { kib } => Ok(Value::String("x".repeat(kib << 10))),
        Input::Panic { message } => panic!("{message}"),
        Input::Context => Ok(json!({
            "name": context::plugin_name(),
            "version": context::plugin_version(),
            "remaining_ms": context::remaining().as_millis() as u64,
            "labels": context::labels(),
            "attempt": task.attempt,
            "max_attempts": task.max_attempts,
            "id": task.id,
        })),
        Input::Allocate { mib } => {
            let memory = std::hint::black_box(vec![1u8; mib << 20]);
            Ok(json!({"bytes": memory.len()}))
        }
        Input::Reach => Ok(json!({
            "file": std::fs::read_to_string("/etc/passwd").is_ok(),
            "folder": std::fs::read_dir(".").is_ok(),
            "socket": std::net::TcpStream::connect("127.0.0.1:80").is_ok(),
            "arguments": std::env::args().count(),
            "variables": std::env::vars().count(),
        })),
    }
}

fn dress(failure: Failure, code: Option<String>, details: Option<Value>) -> Failure {
    let failure = match code {
        Some(code) => failure.with_code(code),
        None => failure,
    };
    match details {
        Some(details) => failure.with_details(&details),
        None => failure,
    }
}

plugin!(handle);
