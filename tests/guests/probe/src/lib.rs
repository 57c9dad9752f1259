//! Does what its input says, so that a test can have any behaviour by asking for it: `{"do": "sleep", "ms": 50}`.
//!
//! A guest has no files, no sockets and no environment, so the proof that it ran is its log: the first line of every run is
//! `start ID ATTEMPT`.

mod asked;

use agentry_sdk::serde_json::{Value, json};
use agentry_sdk::{Failure, Task, context, log, plugin};
use asked::Asked;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn handle(task: &Task, input: &str) -> Result<String, Failure> {
    log::log(log::Level::Info, "probe", format_args!("start {} {}", task.id, task.attempt));
    match agentry_sdk::json::read(input)? {
        Asked::NotJson { text } => Ok(text.unwrap_or_else(|| "as asked".into())),
        asked => agentry_sdk::json::write(&act(task, asked)?),
    }
}

#[expect(clippy::print_stdout, reason = "what a guest prints is what is tested")]
fn act(task: &Task, asked: Asked) -> Result<Value, Failure> {
    match asked {
        Asked::Echo { value } => Ok(value),
        Asked::Sleep { ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(json!({"slept_ms": ms, "attempt": task.attempt}))
        }
        Asked::Spin { turns } => Ok(json!(spin(turns))),
        Asked::FailRetry { message, code, details, after_ms } => {
            let failure = dressed(Failure::retry(text(message)), code, details);
            Err(match after_ms {
                Some(ms) => failure.with_after(Duration::from_millis(ms)),
                None => failure,
            })
        }
        Asked::FailPermanent { message, code, details } => {
            Err(dressed(Failure::permanent(text(message)), code, details))
        }
        Asked::InvalidInput { message, pointer } => {
            let failure = Failure::invalid_input(text(message));
            Err(match pointer {
                Some(pointer) => failure.with_pointer(pointer),
                None => failure,
            })
        }
        Asked::Snooze { until_unix_ms: Some(until), .. } if unix_ms() >= until => Ok(json!({"attempt": task.attempt})),
        Asked::Snooze { ms, .. } => Err(Failure::snooze("as asked", Duration::from_millis(ms))),
        Asked::FailUntilAttempt { n } if task.attempt < n => {
            Err(Failure::retry(format!("attempt {} of {n}", task.attempt)))
        }
        Asked::FailUntilAttempt { .. } => Ok(json!({"attempt": task.attempt})),
        Asked::Log { lines, bytes } => {
            let line = "x".repeat(bytes);
            (0..lines).for_each(|_| log::info(&line));
            Ok(json!({"lines": lines}))
        }
        Asked::Stdout { text, lines } => {
            (0..lines.unwrap_or(1)).for_each(|_| println!("{text}"));
            Ok(Value::Null)
        }
        Asked::Stderr { text, lines } => {
            (0..lines.unwrap_or(1)).for_each(|_| eprintln!("{text}"));
            Ok(Value::Null)
        }
        Asked::Exit { code } => std::process::exit(code),
        Asked::Panic { message } => panic!("{message}"),
        Asked::BigOutput { kib } => Ok(Value::String("x".repeat(kib << 10))),
        Asked::NotJson { .. } => Ok(Value::Null), // answered by `handle`, which alone can
        Asked::Context {} => Ok(seen(task)),
        Asked::Allocate { mib, hold_ms } => {
            let memory = std::hint::black_box(vec![1_u8; mib << 20]);
            std::thread::sleep(Duration::from_millis(hold_ms.unwrap_or(0)));
            Ok(json!({"bytes": memory.len()}))
        }
        Asked::Reach {} => Ok(reached()),
        Asked::Read { path } => Ok(match std::fs::read_to_string(path) {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"error": error.to_string()}),
        }),
        Asked::Variables {} => {
            Ok(json!(std::env::vars_os().map(|variable| format!("{variable:?}")).collect::<Vec<_>>()))
        }
        Asked::Network { port } => Ok(network(port)),
    }
}

/// Computes for so many turns; without a number, for ever.
fn spin(turns: Option<u64>) -> u64 {
    let mut n = 0;
    while turns.is_none_or(|turns| n < turns) {
        n = std::hint::black_box(n + 1);
    }
    n
}

/// What the plugin sees of its attempt.
fn seen(task: &Task) -> Value {
    json!({
        "id": task.id,
        "attempt": task.attempt,
        "max_attempts": task.max_attempts,
        "name": context::plugin_name(),
        "version": context::plugin_version(),
        "remaining_ms": u64::try_from(context::remaining().as_millis()).unwrap_or(u64::MAX),
        "labels": context::labels(),
    })
}

/// Tries everything that nobody granted: whether each could be had, or how much there was of it.
fn reached() -> Value {
    json!({
        "file": std::fs::read_to_string("/etc/passwd").is_ok(),
        "folder": std::fs::read_dir(".").is_ok(),
        "write": std::fs::write("probe.txt", "x").is_ok(),
        "socket": std::net::TcpStream::connect("127.0.0.1:80").is_ok(),
        "listener": std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
        "name": std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok(),
        "arguments": std::env::args().count(),
        "variables": std::env::vars().count(),
        "stdin_bytes": std::io::read_to_string(std::io::stdin()).map_or(0, |text| text.len()),
    })
}

/// Tries every way into the network of the machine.
fn network(port: u16) -> Value {
    use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
    let said = |tried: std::io::Result<()>| tried.map_or_else(|error| error.to_string(), |()| "open".to_owned());
    let send = || UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", ("127.0.0.1", port)).map(drop);
    json!({
        "connect": said(TcpStream::connect(("127.0.0.1", port)).map(drop)),
        "connect6": said(TcpStream::connect(("::1", port)).map(drop)),
        "listen": said(TcpListener::bind("127.0.0.1:0").map(drop)),
        "listen_everywhere": said(TcpListener::bind("0.0.0.0:0").map(drop)),
        "bind": said(UdpSocket::bind("127.0.0.1:0").map(drop)),
        "send": said(send()),
        "name": said(("localhost", port).to_socket_addrs().map(drop)),
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn text(asked: Option<String>) -> String {
    asked.unwrap_or_else(|| "as asked".into())
}

fn dressed(failure: Failure, code: Option<String>, details: Option<Value>) -> Failure {
    let failure = match code {
        Some(code) => failure.with_code(code),
        None => failure,
    };
    match details {
        Some(details) => failure.with_details(&details),
        None => failure,
    }
}

plugin!(raw handle);
