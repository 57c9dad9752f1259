//! Each cause follows from facts that show it.

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
            brakes: Some(0),
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
            until: (state != State::Pending).then(|| now() + seconds(5)),
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
        database: Ok(Recorded { task, letters: Vec::new(), hosts: vec![host("one")], brakes: Brakes::default() }),
        broker: None,
        place: None,
        refusal: None,
        queues: vec![queue(0, 1)],
        daemon: None,
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
    let lost = |f: &mut Facts| {
        recorded(f).hosts = vec![
            dead_host(),
            HostRow { record: HostRecord { id: TaskId::from_u128(8), ..host("other").record }, ..host("other") },
        ]
    };
    let served = |f: &mut Facts| recorded(f).hosts[0].record.busy = 2;
    let unserved = |f: &mut Facts| recorded(f).hosts[0].record.plugins.clear();
    let broken = |f: &mut Facts| {
        recorded(f).hosts[0].record.plugins.clear();
        recorded(f).hosts[0].record.broken_plugins = vec!["word-count: plugin.toml: no such key".into()];
    };
    let failed = |kind, message: &str| {
        facts(Some(TaskRow { failure: Some(Failure::fatal(kind, message)), ..task(State::Failed, None) }))
    };
    let lettered = |f: &mut Facts| recorded(f).letters = vec![letter()];
    let redriven = |f: &mut Facts| {
        recorded(f).letters =
            vec![DeadRow { redriven_at: Some(now()), redriven_as: Some(TaskId::from_u128(9)), ..letter() }]
    };
    let conflicting = |f: &mut Facts| recorded(f).letters = vec![DeadRow { reason: "conflict".into(), ..letter() }];
    let away = |f: &mut Facts| {
        f.broker = Some("connection refused".into());
        f.queues[0].tasks = Err(QueueError::Away("connection refused".into()));
    };
    let refused = |why: &'static str| move |f: &mut Facts| f.queues[0].tasks = Err(QueueError::Refused(why.into()));
    let database =
        |error: fn(String) -> DatabaseError| move |f: &mut Facts| f.database = Err(error("the reason".into()));
    let waits = |ready, consumers| move |f: &mut Facts| f.queues = vec![queue(ready, consumers)];
    let elsewhere = |f: &mut Facts| {
        f.queues = vec![queue(1, 2)];
        recorded(f).hosts[0].record.queues = vec!["other".into()];
    };
    let situations = [
        ("no_host", with(with(pending(WaitCode::NoPlugin), &no_hosts), &waits(3, 0))),
        ("no_consumer", with(with(pending(WaitCode::Queued), &no_hosts), &waits(3, 0))),
        ("no_consumer", with(pending(WaitCode::Queued), &waits(3, 0))),
        ("no_consumer", with(facts(None), &waits(1, 0))),
        ("no_record", facts(None)),
        ("no_record", with(facts(None), &waits(4, 1))),
        ("no_record", with(facts(None), &|f| f.queues[0].dead = Some(3))),
        ("no_record", with(facts(None), &conflicting)),
        ("unknown_consumer", with(facts(None), &elsewhere)),
        ("dead_letter", with(facts(None), &lettered)),
        ("dead_letter", with(facts(None), &redriven)),
        ("database_away", with(facts(None), &database(DatabaseError::Away))),
        ("database_schema", with(facts(None), &database(DatabaseError::Schema))),
        ("database_refused", with(facts(None), &database(DatabaseError::Refused))),
        ("broker_away", with(pending(WaitCode::Queued), &away)),
        ("broker_away", with(pending(WaitCode::NotPublished), &away)),
        ("broker_away", with(facts(None), &away)),
        ("broker_away", with(with(facts(None), &away), &|f| f.embedded = true)),
        ("broker_blocked", with(pending(WaitCode::NotPublished), &|f| f.refusal = Some("memory alarm".into()))),
        ("delivered", with(pending(WaitCode::Queued), &|f| f.refusal = Some("memory alarm".into()))),
        ("not_published", pending(WaitCode::NotPublished)),
        ("no_host", with(pending(WaitCode::NotPublished), &no_hosts)),
        ("no_queue", with(pending(WaitCode::Queued), &refused("queue \"q\" does not exist"))),
        ("queue_refused", with(pending(WaitCode::Queued), &refused("RESOURCE_LOCKED"))),
        ("unroutable", pending(WaitCode::Unroutable)),
        ("delivered", pending(WaitCode::Queued)),
        ("queued", with(pending(WaitCode::Queued), &waits(10, 1))),
        ("queued", with(with(pending(WaitCode::Queued), &waits(1, 1)), &served)),
        ("unknown_consumer", with(pending(WaitCode::Queued), &elsewhere)),
        ("no_plugin", with(pending(WaitCode::Queued), &unserved)),
        ("plugin_broken", with(pending(WaitCode::Queued), &broken)),
        ("no_plugin", with(pending(WaitCode::NoPlugin), &unserved)),
        ("plugin_broken", with(pending(WaitCode::NoPlugin), &broken)),
        ("queued", with(pending(WaitCode::NoPlugin), &served)),
        ("plugin_broken", with(pending(WaitCode::PluginBroken), &broken)),
        ("queued", pending(WaitCode::PluginBroken)),
        ("paused", with(pending(WaitCode::Paused), &unserved)),
        ("no_slot", pending(WaitCode::NoSlot)),
        ("isolation", pending(WaitCode::Isolation)),
        ("held", pending(WaitCode::Held)),
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
        (
            "owner_silent",
            with(running(), &|f| {
                (recorded(f).hosts[0].renewed_at, recorded(f).hosts[0].lease_until) =
                    (now() - seconds(20), now() + seconds(10));
            }),
        ),
        ("owner_lost", with(running(), &lost)),
        ("no_host", with(running(), &no_hosts)),
        ("no_host", with(running(), &|f| recorded(f).hosts.clear())),
        ("completed", facts(Some(task(State::Completed, None)))),
        ("cancelled", facts(Some(task(State::Cancelled, None)))),
        ("failed", failed(FailureKind::CpuLimit, "used 30 s")),
        ("failed", with(failed(FailureKind::CpuLimit, "used 30 s"), &lettered)),
        ("failed", failed(FailureKind::Rejected, "maxlen")),
        ("failed", with(failed(FailureKind::Rejected, "bad_options"), &lettered)),
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
fn causes_that_an_operator_can_end_have_a_remedy() {
    let nothing_to_do =
        ["running", "completed", "cancelled", "scheduled", "snoozed", "backoff", "mixed_builds", "deadline"];
    for code in WaitCode::ALL {
        let state = match code {
            WaitCode::Scheduled | WaitCode::Snoozed => State::Scheduled,
            WaitCode::Backoff => State::Retrying,
            _ => State::Pending,
        };
        for unserved in [false, true] {
            let mut facts = facts(Some(task(state, Some(code))));
            if unserved {
                recorded(&mut facts).hosts[0].record.plugins.clear();
            } else {
                recorded(&mut facts).hosts[0].record.busy = 2;
            }
            let causes = explain(&facts).causes;
            let without: Vec<_> =
                causes.iter().filter(|c| c.remedy.is_none() && !nothing_to_do.contains(&c.code)).collect();
            assert!(!causes.is_empty() && without.is_empty(), "{without:#?}");
        }
    }
}

#[test]
fn readyz_reasons_are_reported_once_and_not_for_ended_tasks() {
    let daemon = |ready| {
        let reasons = vec![("broker".into(), "the broker is away".into()), ("lease".into(), "not renewed".into())];
        Some(Responding { ready, reasons })
    };
    let codes = |facts: &Facts| explain(facts).causes.iter().map(|cause| cause.code).collect::<Vec<_>>();
    let mut waiting = pending(WaitCode::Queued);
    (waiting.broker, waiting.daemon) = (Some("refused".into()), daemon(false));
    assert_eq!(codes(&waiting), ["broker_away", "host_not_ready"]);
    waiting.daemon = daemon(true);
    assert_eq!(codes(&waiting), ["broker_away", "host_trouble"]);
    let mut ended = facts(Some(task(State::Completed, None)));
    ended.daemon = daemon(false);
    assert_eq!(codes(&ended), ["completed"]);
}

#[test]
fn a_responding_daemon_is_not_to_be_started() {
    let mut facts = pending(WaitCode::NotPublished);
    recorded(&mut facts).hosts = vec![dead_host()];
    facts.daemon = Some(Responding { ready: false, reasons: Vec::new() });
    let explanation = explain(&facts);
    assert_eq!(explanation.causes[0].code, "no_host");
    assert!(!explanation.summary.contains("agentry up"), "{explanation:#?}");
}

#[test]
fn hosts_of_different_builds_and_a_deadline_are_mentioned() {
    let mut facts =
        facts(Some(TaskRow { deadline: Some(now() + seconds(30)), ..task(State::Pending, Some(WaitCode::Queued)) }));
    recorded(&mut facts)
        .hosts
        .push(HostRow { record: HostRecord { build: "0.0.9".into(), ..host("old").record }, ..host("old") });
    let codes: Vec<_> = explain(&facts).causes.iter().map(|cause| cause.code).collect();
    assert_eq!(codes, ["delivered", "mixed_builds", "deadline"]);
}

#[test]
fn facts_include_errors() {
    let mut facts = pending(WaitCode::Queued);
    facts.queues[0].tasks = Err(QueueError::Away("no answer".into()));
    facts.broker = Some("no answer".into());
    let shown = explain(&facts).facts;
    assert_eq!((&shown["queues"][0]["error"], &shown["broker"]), (&json!("no answer"), &json!("no answer")), "{shown}");
    assert_eq!(shown["hosts"][0]["name"], "one", "{shown}");
}

fn brake(kind: crate::db::BrakeKind, target: &str) -> crate::db::Brake {
    let (by, reason) = ("ops".into(), Some("a bad release".into()));
    crate::db::Brake { kind, target: target.into(), by, reason, since: now() - seconds(600) }
}

#[test]
fn brake_comes_first_with_who_when_why_and_the_remedy() {
    use crate::db::BrakeKind;
    for code in [WaitCode::Queued, WaitCode::NotPublished, WaitCode::NoPlugin, WaitCode::NoSlot] {
        let mut facts = pending(code);
        facts.queues = vec![queue(4, 0)];
        recorded(&mut facts).brakes = Brakes { change: 1, held: vec![brake(BrakeKind::Queue, "default")] };
        let explanation = explain(&facts);
        assert_eq!(
            explanation.summary,
            "the queue \"default\" is paused by ops (a bad release), 10 min ago; release it with `agentry queue resume default`",
        );
        assert_eq!(explanation.causes.iter().map(|cause| cause.code).collect::<Vec<_>>(), ["paused"]);
    }
    let mut facts = pending(WaitCode::Held);
    recorded(&mut facts).brakes = Brakes { change: 1, held: vec![brake(BrakeKind::Queue, "default")] };
    assert_eq!(explain(&facts).causes[0].code, "held", "no host can use it, paused or not");
    let mut facts = pending(WaitCode::Paused);
    recorded(&mut facts).brakes = Brakes { change: 1, held: vec![brake(BrakeKind::Plugin, "word-count")] };
    let HostRow { record, .. } = host("old");
    recorded(&mut facts).hosts.push(HostRow { record: HostRecord { brakes: None, ..record }, ..host("old") });
    let explanation = explain(&facts);
    assert!(explanation.summary.contains("`agentry plugin enable word-count`"), "{explanation:#?}");
    assert_eq!(explanation.causes[1].code, "unaware_host");
    // A task that has not come yet says so for its queue.
    let mut facts = self::facts(None);
    recorded(&mut facts).brakes = Brakes { change: 1, held: vec![brake(BrakeKind::Queue, "default")] };
    assert_eq!(explain(&facts).causes[0].code, "paused");
}

#[test]
fn drained_hosts_are_a_cause_if_no_other_takes_the_queue() {
    use crate::db::BrakeKind;
    let mut facts = pending(WaitCode::Queued);
    facts.queues = vec![queue(4, 0)];
    let id = TaskId::from_u128(7).to_string();
    recorded(&mut facts).brakes = Brakes { change: 1, held: vec![brake(BrakeKind::Host, &id)] };
    let explanation = explain(&facts);
    assert_eq!(explanation.causes[0].code, "drained");
    assert!(explanation.summary.contains(&format!("`agentry host undrain {id}`")), "{explanation:#?}");
    let HostRow { record, .. } = host("two");
    let other = HostRecord { id: TaskId::from_u128(8), ..record };
    recorded(&mut facts).hosts.push(HostRow { record: other, ..host("two") });
    assert_ne!(explain(&facts).causes[0].code, "drained");
}
