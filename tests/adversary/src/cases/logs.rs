//! Floods, lines without end, and text that would be somebody else's.

use serde_json::{Value, json};

use super::{attack, times};
use crate::case::Case;
use crate::guest::{ECHO, Guest, LOGGING, STREAMS, quoted};
use crate::stage::Seen;

/// Begins every line that claims to be the daemon's own: no line of its log may.
pub const FORGED: &str = "1999-12-31T23:59:59.999999Z";

pub(super) fn all() -> Vec<Case> {
    let cpu = |id, guest: Guest| Case::new(id, guest).over("cpu_limit", "cpu_seconds");
    vec![
        cpu("stdout-without-end", floods("stdout", b'x', None)),
        cpu("lines-without-end", floods("stdout", b'\n', None)),
        cpu("log-calls-without-end", attack(&format!("(loop $l {LINE} (br $l))")).with(LOGGING)),
        Case::new("one-line-of-20-mb", floods("stdout", b'x', Some(5_000))).check(one_cut_line).shows(&["log_line"]),
        Case::new("ten-million-lines", floods("stderr", b'\n', Some(2_500))).check(says_that_it_was_cut).shows(&["log_lines"]),
        Case::new("more-bytes-than-allowed", attack(&times(60, LINE)).with(LOGGING))
            .check(says_that_it_was_cut)
            .shows(&["log_bytes"]),
        Case::new("bytes-that-are-no-text", floods("stdout", 0xff, Some(2))).check(some_log),
        Case::new("nul-bytes", floods("stdout", 0, Some(2))).check(some_log),
        Case::new("nul-in-the-log", says("a\0b", "c\0d")).check(some_log),
        Case::new("escapes-in-the-log", says("\u{1b}]0;mine\u{7}", "\u{1b}[2J\u{1b}[31m\u{9b}\u{202e}\u{feff}")).check(some_log),
        Case::new("a-loggers-name-of-1-mib", long_logger()).limit("hostcall_kib", 2_048).limit("memory_mib", 32).check(some_log),
        Case::new("the-hosts-own-logger", says("agentry", "the log was cut here: not at all")).check(not_the_hosts),
        Case::probe(
            "forged-lines",
            json!({"do": "stderr", "text": format!("\n{FORGED}  INFO agentry::daemon: forged\r\nready http://127.0.0.1:1")}),
        )
        .check(forged_is_in_its_own_log)
        .shows(&["own_streams"]),
        Case::probe(
            "forged-failure",
            json!({"do": "fail_permanent", "message": format!("\n{FORGED}  INFO agentry::daemon: forged\u{1b}[2J\0")}),
        )
        .fails("plugin_error"),
        Case::probe("forged-panic", json!({"do": "panic", "message": format!("x\n{FORGED}  INFO agentry: forged\0\u{1b}[2J")}))
            .fails("trap")
            .saying(&["panicked at"]),
        Case::new("stderr-before-a-trap", stderr_then_trap(0xff)).fails("trap").check(short_tail),
        Case::new("nul-on-stderr-before-a-trap", stderr_then_trap(0)).fails("trap").check(short_tail),
    ]
}

const LINE: &str = "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 1000))";

/// Writes 4 KiB of one byte again and again.
fn floods(stream: &str, byte: u8, how_often: Option<u32>) -> Guest {
    let write = "(call $write (local.get $m) (i32.const 4096) (i32.const 4096) (i32.const 64))";
    let body = match how_often {
        Some(how_often) => times(how_often, write),
        None => format!("(loop $l {write} (br $l))"),
    };
    attack(&format!(
        "(memory.fill (i32.const 4096) (i32.const {byte}) (i32.const 4096))
         (local.set $m (call ${stream})) {body}"
    ))
    .with(STREAMS)
}

/// Logs one line under a logger's name.
fn says(logger: &str, message: &str) -> Guest {
    let (long, short) = (message.len(), logger.len());
    let mut guest = attack(&format!(
        "(call $log (i32.const 2) (i32.const 1024) (i32.const {short}) (i32.const 2048) (i32.const {long}))"
    ));
    guest.core = format!("(data (i32.const 1024) {}) (data (i32.const 2048) {})", quoted(logger), quoted(message));
    guest.with(LOGGING)
}

fn long_logger() -> Guest {
    attack(
        "(drop (memory.grow (i32.const 40)))
         (memory.fill (i32.const 65536) (i32.const 0x6c) (i32.const 1048576))
         (call $log (i32.const 2) (i32.const 65536) (i32.const 1048576) (i32.const 65536) (i32.const 4))",
    )
    .with(LOGGING)
}

/// Traps when it has written a great deal to standard error, none of it text.
fn stderr_then_trap(byte: u8) -> Guest {
    let flood = floods("stderr", byte, Some(100));
    Guest { handle: flood.handle.replace(&format!(")) {ECHO}"), &format!(" unreachable)) {ECHO}")), ..flood }
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// As much of the line as fits, and nothing of the host's in its place.
fn one_cut_line(_: &Case, seen: &Seen) -> Vec<String> {
    let whole = matches!(&seen.logs[..], [line] if line["cut"] == true && message(line) == "x".repeat(1 << 10));
    if whole { Vec::new() } else { vec![format!("{} lines instead of one that is cut", seen.logs.len())] }
}

fn says_that_it_was_cut(_: &Case, seen: &Seen) -> Vec<String> {
    let last = seen.logs.last();
    let says = last.is_some_and(|last| last["cut"] == true && message(last).contains("the log was cut here"));
    if says { Vec::new() } else { vec!["no last line says that the log was cut".to_owned()] }
}

fn some_log(_: &Case, seen: &Seen) -> Vec<String> {
    if seen.logs.is_empty() { vec!["nothing was logged".to_owned()] } else { Vec::new() }
}

/// Only the host itself says what it cut.
fn not_the_hosts(case: &Case, seen: &Seen) -> Vec<String> {
    let hosts = seen.logs.iter().any(|line| line["logger"] == "agentry");
    let mut wrong = some_log(case, seen);
    wrong.extend(hosts.then(|| "a line under the host's own name".to_owned()));
    wrong
}

fn forged_is_in_its_own_log(_: &Case, seen: &Seen) -> Vec<String> {
    let own = seen.logs.iter().any(|line| message(line).contains(FORGED) && line["stream"] == "stderr");
    if own { Vec::new() } else { vec!["what it wrote is not in its own log".to_owned()] }
}

/// The end of standard error is kept, and no more than that, although each bad byte is shown as three.
fn short_tail(_: &Case, seen: &Seen) -> Vec<String> {
    let tail = seen.failure()["detail"]["stderr_tail"].as_str().map_or(0, str::len);
    if (1..=4 << 10).contains(&tail) { Vec::new() } else { vec![format!("a tail of {tail} bytes")] }
}
