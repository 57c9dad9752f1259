//! A task as a person reads it: a record, and its life as a timeline.

use super::escape::line;
use super::output::{field, table};
use super::screen::{self, Screen, Tone};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// The record.
pub fn record(task: &Value, screen: &Screen) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{name:<10} {value}\n");
    row("task", field(task, "id"));
    let state = field(task, "state");
    row("state", screen.paint(screen::of_state(&state), &state));
    if let Some(code) = task["waiting_for"]["code"].as_str() {
        row("waits for", format!("{code}: {}", field(&task["waiting_for"], "message")));
    }
    if task["failure"].is_object() {
        let failure = &task["failure"];
        row("failure", format!("{}: {}", field(failure, "kind"), field(failure, "message")));
        if !failure["detail"].is_null() {
            row("detail", line(&failure["detail"].to_string()));
        }
    }
    let version = if task["version"].is_null() { String::new() } else { format!(" {}", field(task, "version")) };
    row("plugin", format!("{}{version}", field(task, "plugin")));
    row("queue", field(task, "queue"));
    row("attempt", format!("{} of {}", field(task, "attempt"), field(task, "max_attempts")));
    for name in ["created_at", "run_at", "started_at", "finished_at", "deadline", "erased_at"] {
        if !task[name].is_null() {
            row(name.trim_end_matches("_at"), screen.moment(&task[name]));
        }
    }
    for name in ["host", "retry_of"] {
        if !task[name].is_null() {
            row(name, field(task, name));
        }
    }
    if let Some(labels) = task["labels"].as_object().filter(|l| !l.is_empty()) {
        let labels: Vec<_> =
            labels.iter().map(|(k, v)| format!("{}={}", line(k), line(v.as_str().unwrap_or("")))).collect();
        row("labels", labels.join(" "));
    }
    for name in ["input", "output"] {
        if !task[name].is_null() {
            row(name, cut(&line(&task[name].to_string())));
        }
    }
    text
}

/// The life: each event with the time since the first.
pub fn events(events: &[Value]) -> String {
    let mut first = None;
    events.iter().map(|one| event(one, &mut first)).collect()
}

/// One event, with the time since `first`, which the first one sets.
pub fn event(event: &Value, first: &mut Option<DateTime<Utc>>) -> String {
    let at = event["at"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    *first = first.or(at);
    let since = at.zip(*first).map(|(at, first)| elapsed((at - first).num_microseconds().unwrap_or(i64::MAX)));
    let mut about = Vec::new();
    if !event["attempt"].is_null() {
        about.push(format!("attempt {}", field(event, "attempt")));
    }
    if !event["fence"].is_null() {
        about.push(format!("fence {}", field(event, "fence")));
    }
    if !event["detail"].is_null() {
        about.push(cut(&line(&event["detail"].to_string())));
    }
    format!(
        "{:>3}  {:>12}  {:<12} {}\n",
        field(event, "seq"),
        since.unwrap_or_default(),
        field(event, "event"),
        about.join(", ")
    )
}

/// What each attempt used.
pub fn attempts(attempts: &[Value]) -> String {
    let mut text = String::new();
    for attempt in attempts {
        let usage = &attempt["usage"];
        let number = |name: &str| usage[name].as_i64().unwrap_or_default();
        text += &format!("\nattempt {} {}", field(attempt, "attempt"), field(attempt, "ended"));
        if usage.is_object() {
            text += &format!(
                ": {} wall (instantiated in {}), {} CPU, {} memory at most, {} log, {} host calls",
                span(number("wall_us")),
                span(number("instantiate_us")),
                span(number("cpu_us")),
                size(number("peak_memory")),
                size(number("log_bytes")),
                number("host_calls"),
            );
            if number("calls") > 0 {
                let tokens = number("llm_tokens");
                let called = attempt["called_us"].as_i64().unwrap_or_default();
                let tokens = if tokens > 0 { format!(", {tokens} tokens") } else { String::new() };
                let s = if number("calls") == 1 { "" } else { "s" };
                text += &format!("\n  {} call{s} of capabilities{tokens}, {} in calls", number("calls"), span(called));
            }
        }
    }
    text
}

/// What was called, as a table.
pub fn calls(calls: &[Value]) -> String {
    let row = |call: &Value| {
        let number = |name: &str| call[name].as_i64().unwrap_or_default();
        let detail = if call["detail"].is_null() { String::new() } else { cut(&line(&call["detail"].to_string())) };
        vec![
            field(call, "at"),
            format!("{}.{}", field(call, "fence"), field(call, "seq")),
            field(call, "capability"),
            field(call, "operation"),
            field(call, "result"),
            span(number("duration_us")),
            size(number("request_bytes")),
            size(number("response_bytes")),
            field(call, "target"),
            detail,
        ]
    };
    let rows: Vec<_> = calls.iter().map(row).collect();
    let heading = ["at", "call", "capability", "operation", "result", "took", "out", "in", "target", "detail"];
    table(&heading, &rows)
}

/// One log line.
pub fn log(entry: &Value, screen: &Screen) -> String {
    let cut = if entry["cut"] == true { " …" } else { "" };
    let level = field(entry, "level");
    let tone = match level.as_str() {
        "error" | "critical" => Tone::Bad,
        "warn" => Tone::Waiting,
        "debug" | "trace" => Tone::Faint,
        _ => Tone::Plain,
    };
    let logger =
        entry["logger"].as_str().filter(|l| !l.is_empty()).map(|l| format!(" {}:", line(l))).unwrap_or_default();
    format!(
        "{} #{} {}{logger} {}{cut}\n",
        screen.clock(&entry["at"]),
        field(entry, "attempt"),
        screen.paint(tone, &format!("{level:<5}")),
        field(entry, "message")
    )
}

/// Microseconds for a person.
pub fn elapsed(us: i64) -> String {
    format!("+{}", span(us))
}

fn span(us: i64) -> String {
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Bytes for a person.
pub(super) fn size(bytes: i64) -> String {
    match bytes {
        ..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A screenful at most; the whole is in `--json`.
fn cut(text: &str) -> String {
    const MOST: usize = 2_000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… ({} bytes; --json shows all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_life_is_told_from_its_first_event() {
        let events = [
            json!({"seq": 1, "at": "2026-01-01T00:00:00.000000Z", "event": "running", "attempt": 1, "fence": 1}),
            json!({"seq": 2, "at": "2026-01-01T00:00:00.001500Z", "event": "completed", "attempt": 1, "fence": 1}),
        ];
        let text = super::events(&events);
        assert_eq!(
            text,
            "  1         +0 µs  running      attempt 1, fence 1\n  2       +1.5 ms  completed    attempt 1, fence 1\n"
        );
    }

    #[test]
    fn nothing_of_a_guest_steers_the_terminal() {
        let task = json!({"id": "x", "state": "failed", "failure": {"kind": "trap", "message": "a\u{1b}[31m\nb"}});
        let text = record(&task, &Screen::PIPE);
        assert!(!text.contains('\u{1b}') && text.contains("a\\u{1b}[31m\\nb"), "{text}");
    }

    #[test]
    fn calls_are_a_table_in_which_nothing_of_a_guest_steers_the_terminal() {
        let call = json!({
            "fence": 2, "seq": 1, "at": "2026-01-01T00:00:00.000000Z", "attempt": 2, "capability": "llm", "operation": "chat",
            "target": "gpt\u{1b}[31m", "duration_us": 1_500_000, "request_bytes": 2_048, "response_bytes": 10,
            "result": "ok", "detail": {"model": "a\nb"},
        });
        let heading = "at                           call  capability  operation  result  took    out      in        target         detail";
        let row = "2026-01-01T00:00:00.000000Z  2.1   llm         chat       ok      1.50 s  2.0 KiB  10 bytes  \
                   gpt\\u{1b}[31m  {\"model\":\"a\\nb\"}";
        assert_eq!(calls(&[call]), format!("{heading}\n{row}\n"));
    }

    #[test]
    fn an_attempt_that_called_says_how_often_how_long_and_for_how_many_tokens() {
        let shown = |calls: u64, tokens: u64| {
            let usage = json!({"calls": calls, "llm_tokens": tokens});
            let text = attempts(&[json!({"attempt": 1, "ended": "completed", "usage": usage, "called_us": 2_500})]);
            text.lines().skip(2).collect::<String>()
        };
        assert_eq!(shown(3, 120), "  3 calls of capabilities, 120 tokens, 2.5 ms in calls");
        assert_eq!(shown(1, 0), "  1 call of capabilities, 2.5 ms in calls");
        assert_eq!(shown(0, 0), "");
    }

    #[test]
    fn an_attempt_is_shown_with_what_it_used_in_units_a_person_reads() {
        let usage = json!({
            "wall_us": 2_500_000, "instantiate_us": 250, "cpu_us": 12_340, "peak_memory": 4_259_840, "log_bytes": 120,
            "host_calls": 3,
        });
        let shown = attempts(&[
            json!({"attempt": 1, "ended": "host_lost", "usage": null}),
            json!({"attempt": 1, "ended": "completed", "usage": usage}),
        ]);
        assert_eq!(
            shown,
            "\nattempt 1 host_lost\nattempt 1 completed: 2.50 s wall (instantiated in 250 µs), 12.3 ms CPU, 4.1 MiB memory at \
             most, 120 bytes log, 3 host calls"
        );
    }
}
