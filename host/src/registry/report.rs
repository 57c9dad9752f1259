//! What became of a run, in the words of the rest of the host.

use crate::task::settle::{Body, Call, LogLine, Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, RetryPolicy};
use agentry_sandbox::{Fault, FaultKind, Level, Outcome, Ran, Stream};
use serde_json::{Value, json};
use std::time::Duration;

/// What a run is to the rest of the host.
pub(super) fn report(ran: Ran, retry: &RetryPolicy) -> Report {
    let Ran { outcome, usage, logs, calls, denied, used_up } = ran;
    Report {
        verdict: with_refusals(verdict(outcome, retry), &denied, used_up.as_deref(), retry),
        usage: Usage {
            wall_us: micros(usage.wall),
            instantiate_us: micros(usage.instantiate),
            cpu_us: micros(usage.cpu),
            peak_memory: usage.peak_memory,
            log_bytes: usage.log_bytes,
            host_calls: usage.host_calls,
            calls: usage.calls,
            llm_tokens: usage.llm_tokens,
        },
        logs: logs.iter().map(log_line).collect(),
        calls: calls.into_iter().map(call).collect(),
    }
}

fn verdict(outcome: Outcome, retry: &RetryPolicy) -> Verdict {
    let failed = |kind, message, retryable, detail, after| Verdict::Failed {
        failure: Failure { kind, message, retryable, detail },
        after,
    };
    match outcome {
        Outcome::Output(output) => Verdict::Output(output.into()),
        Outcome::Retry { message, code, data, after } => {
            let retryable = retry.retries(FailureKind::PluginError);
            failed(FailureKind::PluginError, message, retryable, guest_detail(code, data), after)
        }
        // The guest knows that trying again is of no use, whatever the policy says.
        Outcome::Permanent { message, code, data } => {
            failed(FailureKind::PluginError, message, false, guest_detail(code, data), None)
        }
        Outcome::InvalidInput { message, pointer } => {
            failed(FailureKind::InvalidInput, message, false, json!({ "pointer": pointer }), None)
        }
        Outcome::Snooze { message, after } => Verdict::Snooze { message, after },
        Outcome::Fault(Fault { kind, message, detail }) => {
            let kind = failure_kind(kind);
            failed(kind, message, retry.retries(kind), detail, None)
        }
        Outcome::Stopped => Verdict::Stopped,
        Outcome::NoMemory(none) => super::no_memory(none),
    }
}

/// A failure lists what the run was refused. One that passes on that an allowance is used up is `budget_exceeded`; so is one that
/// would be tried again all the same: the next attempt would find it used up as well.
fn with_refusals(verdict: Verdict, denied: &[String], used_up: Option<&str>, retry: &RetryPolicy) -> Verdict {
    let Verdict::Failed { mut failure, after } = verdict else { return verdict };
    if !denied.is_empty() {
        if failure.detail.is_null() {
            failure.detail = json!({});
        }
        failure.detail["denied"] = json!(denied);
    }
    let passed_on = failure.detail["code"] == "budget_exceeded";
    if let Some(what) = used_up.filter(|_| matches!(failure.kind, FailureKind::PluginError | FailureKind::Trap))
        && (failure.retryable || passed_on)
    {
        failure.kind = FailureKind::BudgetExceeded;
        failure.retryable = retry.retries(FailureKind::BudgetExceeded);
        if !failure.message.contains(what) {
            failure.message = format!("{what}: {}", failure.message);
        }
    }
    Verdict::Failed { failure, after }
}

fn call(call: agentry_sandbox::Call) -> Call {
    Call {
        seq: call.seq,
        at: call.at.into(),
        capability: call.capability.to_owned(),
        operation: call.operation,
        target: call.target,
        duration_us: micros(call.duration),
        request_bytes: call.request_bytes,
        response_bytes: call.response_bytes,
        result: call.result.to_owned(),
        detail: call.detail,
        request_body: call.request_body.map(body),
        response_body: call.response_body.map(body),
    }
}

fn body(body: agentry_sandbox::Body) -> Body {
    Body { bytes: body.bytes, size: body.size }
}

/// `{code, data}`: the data as the JSON that it is.
fn guest_detail(code: Option<String>, data: Option<String>) -> Value {
    let data = data.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    json!({ "code": code, "data": data })
}

fn failure_kind(kind: FaultKind) -> FailureKind {
    match kind {
        FaultKind::Trap => FailureKind::Trap,
        FaultKind::Timeout => FailureKind::Timeout,
        FaultKind::CpuLimit => FailureKind::CpuLimit,
        FaultKind::MemoryLimit => FailureKind::MemoryLimit,
        FaultKind::ResourceLimit => FailureKind::ResourceLimit,
        FaultKind::OutputTooLarge => FailureKind::OutputTooLarge,
        FaultKind::InvalidOutput => FailureKind::InvalidOutput,
        FaultKind::Denied => FailureKind::Denied,
        FaultKind::Internal => FailureKind::Internal,
    }
}

pub(super) fn log_line(line: &agentry_sandbox::LogLine) -> LogLine {
    LogLine {
        seq: line.seq,
        at: line.at.into(),
        stream: match line.stream {
            Stream::Log => "log",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        },
        level: match line.level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        },
        logger: line.logger.clone(),
        message: line.message.clone(),
        cut: line.cut,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use std::time::SystemTime;

    fn ran(outcome: Outcome) -> Ran {
        let usage = agentry_sandbox::Usage::default();
        Ran { outcome, usage, logs: Vec::new(), calls: Vec::new(), denied: Vec::new(), used_up: None }
    }

    fn failure(outcome: Outcome, retry: &RetryPolicy) -> (Failure, Option<Duration>) {
        match report(ran(outcome), retry).verdict {
            Verdict::Failed { failure, after } => (failure, after),
            other => panic!("{other:?}"),
        }
    }

    fn fault(kind: FaultKind) -> Outcome {
        Outcome::Fault(Fault { kind, message: "m".into(), detail: json!({"limit": "x"}) })
    }

    #[test]
    fn what_the_guest_says_becomes_a_plugin_error() {
        let policy = RetryPolicy::default();
        let data = Some("{\"rest\": [1, 2]}".into());
        let after = Some(Duration::from_secs(5));
        let retry = Outcome::Retry { message: "later".into(), code: Some("rate_limited".into()), data, after };
        let (failure_, after) = failure(retry, &policy);
        assert_eq!(failure_.kind, FailureKind::PluginError);
        assert!(failure_.retryable);
        assert_eq!(failure_.detail, json!({"code": "rate_limited", "data": {"rest": [1, 2]}}));
        assert_eq!(after, Some(Duration::from_secs(5)));

        let permanent = Outcome::Permanent { message: "never".into(), code: None, data: Some("not JSON".into()) };
        let all = RetryPolicy { on: Some(vec![FailureKind::PluginError]), ..policy.clone() };
        let (failure_, _) = failure(permanent, &all);
        assert!(!failure_.retryable, "the guest's word is the last");
        assert_eq!(failure_.detail, json!({"code": null, "data": "not JSON"}));

        let invalid = Outcome::InvalidInput { message: "url".into(), pointer: Some("/url".into()) };
        let (failure_, _) = failure(invalid, &policy);
        assert_eq!((failure_.kind, failure_.retryable), (FailureKind::InvalidInput, false));
        assert_eq!(failure_.detail, json!({"pointer": "/url"}));
    }

    #[test]
    fn every_fault_keeps_its_word_and_follows_the_policy() {
        let kinds = [
            FaultKind::Trap,
            FaultKind::Timeout,
            FaultKind::CpuLimit,
            FaultKind::MemoryLimit,
            FaultKind::ResourceLimit,
            FaultKind::OutputTooLarge,
            FaultKind::InvalidOutput,
            FaultKind::Denied,
            FaultKind::Internal,
        ];
        let (default, only_cpu) =
            (RetryPolicy::default(), RetryPolicy { on: Some(vec![FailureKind::CpuLimit]), ..RetryPolicy::default() });
        for kind in kinds {
            let (failure_, _) = failure(fault(kind), &default);
            assert_eq!(failure_.kind.as_str(), kind.as_str());
            assert_eq!(failure_.detail, json!({"limit": "x"}));
            let expected = matches!(kind, FaultKind::Trap | FaultKind::Timeout | FaultKind::Internal);
            assert_eq!(failure_.retryable, expected, "{kind:?}");
            assert_eq!(failure(fault(kind), &only_cpu).0.retryable, kind == FaultKind::CpuLimit);
        }
    }

    #[test]
    fn other_endings_keep_their_meaning() {
        let policy = RetryPolicy::default();
        let verdict = |outcome| report(ran(outcome), &policy).verdict;
        assert_eq!(verdict(Outcome::Output("\"failed\"".into())), Verdict::Output("\"failed\"".into()));
        assert_eq!(verdict(Outcome::Stopped), Verdict::Stopped);
        let none = agentry_sandbox::NoMemory { asked: 4, held: 3, free: 2, total: 1 };
        assert_eq!(verdict(Outcome::NoMemory(none)), Verdict::NoMemory { asked: 4, held: 3, free: 2, total: 1 });
        let after = Duration::from_secs(9);
        let snooze = Outcome::Snooze { message: "early".into(), after };
        assert_eq!(verdict(snooze), Verdict::Snooze { message: "early".into(), after });
    }

    #[test]
    fn a_failure_lists_what_was_refused_and_is_not_retried_without_an_allowance() {
        let retry = || Outcome::Retry { message: "m".into(), code: Some("c".into()), data: None, after: None };
        let refused = Ran { denied: vec!["http https://a.example".into()], ..ran(retry()) };
        let Verdict::Failed { failure, .. } = report(refused, &RetryPolicy::default()).verdict else { panic!() };
        assert_eq!(failure.kind, FailureKind::PluginError);
        assert_eq!(failure.detail, json!({"code": "c", "data": null, "denied": ["http https://a.example"]}));

        let spent = || Some("llm_tokens = 5 is used up".to_owned());
        let Verdict::Failed { failure, .. } =
            report(Ran { used_up: spent(), ..ran(retry()) }, &RetryPolicy::default()).verdict
        else {
            panic!()
        };
        assert_eq!((failure.kind, failure.retryable), (FailureKind::BudgetExceeded, false));
        assert_eq!(failure.message, "llm_tokens = 5 is used up: m");
        let passed_on = |code: &str| {
            let message = "llm_tokens = 5 is used up".into();
            let outcome = Outcome::Permanent { message, code: Some(code.into()), data: None };
            let Verdict::Failed { failure, .. } =
                report(Ran { used_up: spent(), ..ran(outcome) }, &RetryPolicy::default()).verdict
            else {
                panic!()
            };
            assert_eq!(failure.message, "llm_tokens = 5 is used up");
            failure.kind
        };
        assert_eq!(passed_on("budget_exceeded"), FailureKind::BudgetExceeded);
        assert_eq!(passed_on("its own"), FailureKind::PluginError);
        let output = Ran { used_up: spent(), ..ran(Outcome::Output("1".into())) };
        assert_eq!(report(output, &RetryPolicy::default()).verdict, Verdict::Output("1".into()));
    }

    #[test]
    fn lines_and_usage_are_carried_over() {
        let line = agentry_sandbox::LogLine {
            seq: 3,
            at: SystemTime::UNIX_EPOCH,
            stream: Stream::Stderr,
            level: Level::Critical,
            logger: "l".into(),
            message: "m".into(),
            cut: true,
        };
        let usage = agentry_sandbox::Usage { cpu: Duration::from_micros(7), host_calls: 2, ..Default::default() };
        let report = report(Ran { usage, logs: vec![line], ..ran(Outcome::Stopped) }, &RetryPolicy::default());
        assert_eq!((report.usage.cpu_us, report.usage.host_calls), (7, 2));
        let line = &report.logs[0];
        assert_eq!((line.seq, line.stream, line.level, line.cut), (3, "stderr", "critical", true));
        assert_eq!(line.at, DateTime::<Utc>::UNIX_EPOCH);
    }
}
