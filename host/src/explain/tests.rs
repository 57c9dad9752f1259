//! Every cause from facts that show it.

use super::*;
use crate::db::HostRecord;
use crate::task::{Failure, FailureKind, WaitCode, Waiting};
use chrono::TimeDelta;
use serde_json::json;

fn now() -> DateTime<Utc> {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn seconds(n: i64) -> TimeDelta {
    TimeDelta::seconds(n)
}

fn id() -> TaskId {
    "01920c3e-0000-7000-8000-000000000001".parse().unwrap()
}

fn host(name: &str) -> HostRow {
    HostRow {
        record: HostRecord {
            id: TaskId::from_u128(7),
            name: name.into(),
            build: "0.1.0".into(),
            settings_digest: String::new(),
            queues: vec!["default".into()],
            plugins: vec!["word-count@0.1.0".into()],
            broken_plugins: Vec::new(),
            slots: 2,
            busy: 0,
        },
        started_at: now() - seconds(100),
        renewed_at: now() - seconds(1),
        lease_until: now() + seconds(29),
        alive: true,
    }
}

fn dead_host() -> HostRow {
    HostRow { alive: false, renewed_at: now() - seconds(90), lease_until: now() - seconds(60), ..host("former") }
}

fn task(state: State, code: Option<WaitCode>) -> TaskRow {
    TaskRow {
        id: id(),
        plugin: "word-count@^0.1".into(),
        version: None,
        digest: None,
        queue: "default".into(),
        state,
        waiting_for: code.map(|code| Waiting {
            code,
            message: code.message().into(),
            since: now() - seconds(60),
            until: Some(now() + seconds(5)),
            detail: Value::Null,
        }),
        input: None,
        output: None,
        failure: None,
        attempt: 1,
        max_attempts: 3,
        host: Some(TaskId::from_u128(7)),
        labels: Default::default(),
        priority: 5,
        created_at: now() - seconds(60),
        run_at: None,
        started_at: Some(now() - seconds(50)),
        finished_at: state.is_terminal().then(|| now() - seconds(10)),
        deadline: None,
        retry_of: None,
        traceparent: None,
        erased_at: None,
    }
}

fn letter() -> DeadRow {
    DeadRow {
        id: 12,
        at: now(),
        reason: "bad_options".into(),
        detail: "priority is 0 to 9".into(),
        queue: "default".into(),
        task_id: Some(id()),
        plugin: None,
        body: String::new(),
        body_bytes: 0,
        properties: Value::Null,
        redriven_at: None,
        redriven_as: None,
        erased_at: None,
    }
}

fn queue(ready: u32, consumers: u32) -> QueueLook {
    let tasks = Ok(QueueFacts { ready, consumers });
    QueueLook { queue: "default".into(), tasks, returned: Some(0), dead: Some(0) }
}

/// One live host and its consumed, empty queue.
fn facts(task: Option<TaskRow>) -> Facts {
    Facts {
        id: id(),
        now: now(),
        database: Ok(Recorded { task, letters: Vec::new(), hosts: vec![host("one")] }),
        broker: None,
        refusal: None,
        queues: vec![queue(0, 1)],
        reasons: Vec::new(),
        embedded: false,
    }
}

fn pending(code: WaitCode) -> Facts {
    facts(Some(task(State::Pending, Some(code))))
}

fn recorded(facts: &mut Facts) -> &mut Recorded {
    facts.database.as_mut().unwrap()
}

#[test]
fn each_situation_has_its_first_cause_and_a_sentence() {
    let with = |mut facts: Facts, change: &dyn Fn(&mut Facts)| {
        change(&mut facts);
        facts
    };
    let no_hosts = |facts: &mut Facts| recorded(facts).hosts = vec![dead_host()];
    let running = || facts(Some(task(State::Running, None)));
    let situations = [
        ("no_consumer", with(pending(WaitCode::Queued), &|f| f.queues = vec![queue(3, 0)])),
        ("no_consumer", with(facts(None), &|f| f.queues = vec![queue(1, 0)])),
        ("no_record", facts(None)),
        ("no_record", with(facts(None), &|f| f.queues = vec![queue(4, 1)])),
        ("dead_letter", with(facts(None), &|f| recorded(f).letters = vec![letter()])),
        ("database_away", with(facts(None), &|f| f.database = Err("connection refused".into()))),
        ("broker_away", with(pending(WaitCode::Queued), &|f| f.broker = Some("connection refused".into()))),
        ("broker_away", with(pending(WaitCode::NotPublished), &|f| f.broker = Some("connection refused".into()))),
        ("broker_away", with(facts(None), &|f| (f.broker, f.embedded) = (Some("no daemon runs".into()), true))),
        ("broker_blocked", with(pending(WaitCode::NotPublished), &|f| f.refusal = Some("memory alarm".into()))),
        ("not_published", pending(WaitCode::NotPublished)),
        ("no_host", with(pending(WaitCode::NotPublished), &no_hosts)),
        ("no_host", with(pending(WaitCode::NoPlugin), &no_hosts)),
        (
            "no_queue",
            with(pending(WaitCode::Queued), &|f| f.queues[0].tasks = Err(QueueError::Refused("NOT_FOUND".into()))),
        ),
        ("unroutable", pending(WaitCode::Unroutable)),
        ("held", pending(WaitCode::Queued)),
        ("queued", with(pending(WaitCode::Queued), &|f| f.queues = vec![queue(10, 1)])),
        (
            "queued",
            with(pending(WaitCode::Queued), &|f| {
                f.queues = vec![queue(1, 1)];
                recorded(f).hosts[0].record.busy = 2;
            }),
        ),
        (
            "unknown_consumer",
            with(pending(WaitCode::Queued), &|f| {
                f.queues = vec![queue(1, 2)];
                recorded(f).hosts[0].record.queues = vec!["other".into()];
            }),
        ),
        (
            "no_plugin",
            with(pending(WaitCode::Queued), &|f| recorded(f).hosts[0].record.plugins = vec!["word-count@0.2.0".into()]),
        ),
        (
            "plugin_broken",
            with(pending(WaitCode::Queued), &|f| {
                recorded(f).hosts[0].record.plugins.clear();
                recorded(f).hosts[0].record.broken_plugins = vec!["word-count@0.1.0: plugin.toml: no such key".into()];
            }),
        ),
        ("no_plugin", pending(WaitCode::NoPlugin)),
        ("plugin_broken", pending(WaitCode::PluginBroken)),
        ("paused", pending(WaitCode::Paused)),
        ("no_slot", pending(WaitCode::NoSlot)),
        ("isolation", pending(WaitCode::Isolation)),
        ("scheduled", facts(Some(task(State::Scheduled, Some(WaitCode::Scheduled))))),
        ("snoozed", facts(Some(task(State::Scheduled, Some(WaitCode::Snoozed))))),
        (
            "backoff",
            facts(Some(TaskRow {
                failure: Some(Failure::fatal(FailureKind::Trap, "unreachable")),
                ..task(State::Retrying, Some(WaitCode::Backoff))
            })),
        ),
        ("running", running()),
        ("owner_silent", with(running(), &|f| recorded(f).hosts[0].renewed_at = now() - seconds(20))),
        ("owner_lost", with(running(), &no_hosts)),
        ("owner_lost", with(running(), &|f| recorded(f).hosts.clear())),
        ("completed", facts(Some(task(State::Completed, None)))),
        ("cancelled", facts(Some(task(State::Cancelled, None)))),
        (
            "failed",
            facts(Some(TaskRow {
                failure: Some(Failure::fatal(FailureKind::CpuLimit, "used 30 s")),
                ..task(State::Failed, None)
            })),
        ),
        (
            "failed",
            with(
                facts(Some(TaskRow {
                    failure: Some(Failure::fatal(FailureKind::Rejected, "bad_options")),
                    ..task(State::Failed, None)
                })),
                &|f| recorded(f).letters = vec![letter()],
            ),
        ),
    ];
    let mut sentences = String::new();
    for (code, facts) in situations {
        let explanation = explain(&facts);
        assert_eq!(explanation.causes[0].code, code, "{explanation:#?}");
        sentences += &format!("{code}: {}\n", explanation.summary);
    }
    insta::assert_snapshot!(sentences);
}

#[test]
fn every_cause_that_an_operator_can_end_has_a_remedy() {
    let codes =
        [WaitCode::NotPublished, WaitCode::Unroutable, WaitCode::NoPlugin, WaitCode::PluginBroken, WaitCode::NoSlot];
    for code in codes {
        let explanation = explain(&pending(code));
        assert!(explanation.causes.iter().all(|cause| cause.remedy.is_some()), "{explanation:#?}");
    }
}

#[test]
fn what_the_daemon_says_against_itself_is_told_once_and_not_of_ended_tasks() {
    let reasons = || vec![("broker".into(), "the broker is away".into()), ("lease".into(), "not renewed".into())];
    let mut facts = pending(WaitCode::Queued);
    (facts.broker, facts.reasons) = (Some("refused".into()), reasons());
    let codes: Vec<_> = explain(&facts).causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["broker_away", "host_not_ready"]);
    let mut facts = super::tests::facts(Some(task(State::Completed, None)));
    facts.reasons = reasons();
    assert_eq!(explain(&facts).causes.len(), 1);
}

#[test]
fn facts_are_shown_with_their_errors() {
    let mut facts = pending(WaitCode::Queued);
    facts.queues[0].tasks = Err(QueueError::Away("no answer".into()));
    facts.broker = Some("no answer".into());
    let shown = explain(&facts).facts;
    assert_eq!((&shown["queues"][0]["error"], &shown["broker"]), (&json!("no answer"), &json!("no answer")), "{shown}");
    assert_eq!(shown["hosts"][0]["name"], "one", "{shown}");
}
