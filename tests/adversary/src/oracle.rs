//! What must hold of every attack, whatever it was. A pure function over what was seen.

use std::time::Duration;

use serde_json::Value;

use crate::case::{Case, Expect};
use crate::stage::{STAYS, Seen};
use crate::{install, patience};

/// By how much resident memory may rise besides the task's own memory, in KiB.
const RISE: u64 = 64 << 10;
/// How much longer than its limit an attempt may take.
const LATE: Duration = Duration::from_secs(1);
/// The longest that `/healthz` may take.
const HEALTH: Duration = Duration::from_secs(1);

/// Everything that is not as it must be.
pub fn violations(case: &Case, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if seen.pid_changed {
        wrong.push("the daemon is gone".to_owned());
    }
    expected(case, seen, &mut wrong);
    let allowed = Duration::from_secs(install::limit(case, "timeout_seconds")) + LATE.mul_f64(patience());
    if seen.wall() > allowed {
        wrong.push(format!("the attempt took {:.1?}, and {allowed:.1?} is the most", seen.wall()));
    }
    let most = (install::limit(case, "memory_mib") << 10) + RISE;
    if seen.rise > most {
        wrong.push(format!("memory rose by {} MiB, and {} MiB is the most", seen.rise >> 10, most >> 10));
    }
    if seen.stays > STAYS {
        wrong.push(format!("{} MiB of memory stay", seen.stays >> 10));
    }
    if seen.noticed.slowest > HEALTH.mul_f64(patience()) {
        wrong.push(format!("/healthz took {:.1?}", seen.noticed.slowest));
    }
    wrong.extend(seen.noticed.bad.iter().take(2).cloned());
    match &seen.honest {
        Some((task, _)) if task["state"] != "completed" => {
            let words = task["failure"].to_string();
            wrong.push(format!("the next honest task: {} {}", task["state"], cut(&words)));
        }
        Some((task, answer)) if task["output"] != *answer => {
            wrong.push(format!("the next honest task answered {}", cut(&task["output"].to_string())));
        }
        _ => {}
    }
    for check in &case.checks {
        wrong.extend(check(case, seen));
    }
    wrong
}

fn expected(case: &Case, seen: &Seen, wrong: &mut Vec<String>) {
    let failure = seen.failure();
    match &case.expect {
        Expect::Completes if seen.state() == "completed" => {}
        Expect::Completes => {
            wrong.push(format!("{} instead of completed: {}", seen.state(), cut(&failure.to_string())))
        }
        Expect::Fails { kind, limit, says } => {
            if seen.state() != "failed" || failure["kind"] != *kind {
                wrong.push(format!("{} instead of {kind}: {}", seen.state(), cut(&failure.to_string())));
                return;
            }
            if let Some(limit) = limit {
                over(failure, limit, wrong);
            }
            let text = failure.to_string();
            wrong.extend(
                says.iter().filter(|words| !text.contains(*words)).map(|words| format!("{words:?} is not said")),
            );
        }
    }
    // What the guest chooses is bounded wherever it is stored.
    let message = failure["message"].as_str().map_or(0, str::len);
    if message > 8 << 10 {
        wrong.push(format!("a failure's message of {message} bytes"));
    }
    let detail = failure["detail"].to_string().len();
    if failure.is_object() && detail > 128 << 10 {
        wrong.push(format!("a failure's detail of {detail} bytes"));
    }
    logs(case, &seen.logs, wrong);
}

/// Named, and more used than allowed.
fn over(failure: &Value, limit: &str, wrong: &mut Vec<String>) {
    let detail = &failure["detail"];
    if detail["limit"] != limit {
        wrong.push(format!("the limit is {} instead of {limit}", detail["limit"]));
    }
    match (detail["used"].as_f64(), detail["allowed"].as_f64()) {
        (Some(used), Some(allowed)) if used <= allowed => {
            wrong.push(format!("{used} used of {allowed} is not over {limit}"));
        }
        (_, None) => wrong.push(format!("how much of {limit} is allowed is not said")),
        _ => {}
    }
}

/// Nothing in the log is over its limits, but for the one line that says so.
fn logs(case: &Case, logs: &[Value], wrong: &mut Vec<String>) {
    let lines = install::limit(case, "log_lines");
    if logs.len() as u64 > lines + 1 {
        wrong.push(format!("{} lines of log, and log_lines = {lines}", logs.len()));
    }
    let length = |line: &Value| line["message"].as_str().map_or(0, str::len) as u64;
    let own = |line: &&Value| line["logger"] != "agentry";
    let bytes: u64 = logs.iter().filter(own).map(length).sum();
    let most = install::limit(case, "log_kib") << 10;
    if bytes > most {
        wrong.push(format!("{bytes} bytes of log, and {most} is the most"));
    }
    let most = install::limit(case, "log_line_kib") << 10;
    if let Some(long) = logs.iter().filter(own).map(length).find(|bytes| *bytes > most) {
        wrong.push(format!("a line of log of {long} bytes, and {most} is the most"));
    }
    if let Some(long) = logs.iter().filter_map(|line| line["logger"].as_str()).find(|name| name.len() > 256) {
        wrong.push(format!("a logger's name of {} bytes", long.len()));
    }
}

/// As much of a text as a table has room for.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
