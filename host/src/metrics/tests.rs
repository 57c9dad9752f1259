//! What the endpoint shows.

use super::*;
use crate::broker::QueueFacts;
use crate::db::PoolFacts;
use crate::task::WaitCode;
use crate::task::limits::MessageLimits;
use crate::task::message::Envelope;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

fn call(capability: &str, target: &str, result: &str, detail: serde_json::Value) -> Call {
    Call {
        seq: 1,
        at: chrono::DateTime::UNIX_EPOCH,
        capability: capability.into(),
        operation: "chat".into(),
        target: target.into(),
        duration_us: 500_000,
        request_bytes: 1,
        response_bytes: 1,
        result: result.into(),
        detail,
        request_body: None,
        response_body: None,
    }
}

fn message(labels: &serde_json::Value) -> TaskMessage {
    let body = serde_json::json!({"plugin": "p", "input": 1, "options": {"labels": labels}}).to_string();
    let envelope = Envelope { body: body.as_bytes(), ..Envelope::default() };
    TaskMessage::decode(&envelope, &MessageLimits::default()).unwrap()
}

/// Metrics of a host with one queue, one priced model and one that is not, and a label.
fn priced() -> Metrics {
    let price = Price { input: 2.0, output: 8.0, cached: 0.5, cache_write: 4.0 };
    let models = BTreeMap::from([("big".to_owned(), Some(price)), ("free".to_owned(), None)]);
    let prices = Prices {
        models,
        currency: "EUR".into(),
        label: Some("team".into()),
        values: BTreeSet::from(["search".to_owned()]),
    };
    let queues = ["default".to_owned()];
    Metrics::knowing(4, Arc::default(), MemoryBudget::new(1 << 20), Turns::new(2), &queues, prices)
}

/// Everything that can be counted, with words of the code and with hostile ones.
fn busy() -> Metrics {
    let metrics = priced();
    let about = metrics.about("p".into(), "default".into(), &message(&serde_json::json!({"team": "search"})));
    let tokens =
        serde_json::json!({"input_tokens": 10, "output_tokens": 5, "cached_tokens": 4, "cache_write_tokens": 2});
    let calls = [call("llm", "big", "ok", tokens.clone()), call("llm", "free", "ok", tokens)];
    let usage = Usage { llm_tokens: 30, ..Usage::default() };
    metrics.ended(&about, Event::Completed, None, &usage, &calls);
    metrics.begun("default", &message(&serde_json::json!({})));
    metrics.delivery("default", false, false);
    metrics.claim(&ClaimAnswer::Conflict);
    metrics.record(&RecordAnswer::Exists);
    metrics.settlement(&SettleAnswer::Fenced);
    metrics.leg(Leg::Run, Duration::from_millis(1));
    metrics.batch(Step::Claim, 3);
    metrics.letter("default", "not_json");
    metrics.swept("rescuer", 1);
    metrics.reply(Replied::Published);
    metrics.brakes("queue", 1);
    metrics.memory_interruption();
    metrics.acknowledged(Acknowledged { sent: 2, stale: 1 });
    metrics.given_back(Acknowledged::default());
    metrics.published(Duration::from_millis(1), [("tasks", &Ok(()))].into_iter());
    metrics.warned("default", WaitCode::NoPlugin);
    let waiting = WaitingTasks {
        queue: "default".into(),
        code: WaitCode::NoPlugin,
        tasks: 3,
        overdue: 2,
        oldest: Duration::from_secs(90),
    };
    let facts = QueueFacts { ready: 7, consumers: 1 };
    metrics.sampled(Some(Sampled {
        at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
        waiting: vec![waiting],
        outbox: Some(1),
        relay_lag: Some(Duration::from_secs(2)),
        queues: vec![QueueLevels { queue: "default".into(), tasks: Some(facts), returned: Some(0), dead: Some(9) }],
    }));
    metrics.watch(Sources {
        build: "0.1.0 (abc)".into(),
        pools: Box::new(|| vec![PoolFacts { name: "path", max: 10, open: 4, used: 3, waiting: 1 }]),
        lease: Box::new(|| LeaseFacts { remaining: Duration::from_secs(20), ..LeaseFacts::default() }),
        ready: Box::new(|| ReadyFacts { ready: false, reasons: vec!["broker".into(), "broker".into()] }),
        broker_up: Box::new(|| true),
        window: Box::new(|| 64),
        dropped_lines: Box::new(|| 0),
        spool: "/nonexistent".into(),
    });
    metrics
}

/// Family and labels of every sample, with the kinds of families.
fn shown(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, BTreeSet<String>>) {
    let kinds: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|c| *c != '{' && *c != ' ').collect();
        let family = kinds.keys().filter(|family| name.starts_with(family.as_str())).max_by_key(|family| family.len());
        let of = labels.entry(family.expect(&name).clone()).or_default();
        let inner = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let keys = inner.split("\",").flat_map(|pair| pair.split_once('=')).map(|(key, _)| key.to_owned());
        of.extend(keys.filter(|key| key != "le"));
    }
    (kinds, labels)
}

#[test]
fn the_endpoint_and_the_table_have_the_same_families_with_the_same_labels() {
    let text = busy().text();
    let (kinds, labels) = shown(&text);
    let on_linux = cfg!(target_os = "linux");
    let rows: Vec<_> = table::ROWS.iter().filter(|row| on_linux || !row.is_of_process()).collect();
    let described: BTreeMap<String, String> =
        rows.iter().map(|row| (row.family(), row.kind.as_str().to_owned())).collect();
    assert_eq!(kinds, described);
    for row in rows {
        let expected: BTreeSet<String> = row.labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(labels[&row.family()], expected, "{}", row.name);
        assert!(text.contains(&format!("# HELP {} {}.\n", row.family(), row.help)), "{}", row.name);
    }
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for row in table::ROWS {
        let name = row.sample();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(!row.name.ends_with("_total") && !row.help.ends_with('.') && !row.help.is_empty(), "{name}");
        assert!(["", "seconds", "bytes"].contains(&row.unit), "{name}");
        assert!(
            !row.labels.contains(&"le") && !row.labels.contains(&"job") && !row.labels.contains(&"instance"),
            "{name}"
        );
    }
    let names: BTreeSet<String> = table::ROWS.iter().map(table::Row::family).collect();
    assert_eq!(names.len(), table::ROWS.len());
}

#[test]
fn hostile_producers_and_guests_make_no_series() {
    let metrics = busy();
    let series = |metrics: &Metrics| metrics.text().lines().filter(|line| !line.starts_with('#')).count();
    let flood = |metrics: &Metrics, n: usize| {
        let name = format!("x{n}\"}} 1\nevil");
        metrics.delivery(&name, true, true);
        metrics.letter(&name, "not_json");
        metrics.warned(&name, WaitCode::Queued);
        let about =
            metrics.about("p".into(), name.as_str().into(), &message(&serde_json::json!({"team": format!("t{n}")})));
        let tokens = serde_json::json!({"input_tokens": 1, "output_tokens": 1});
        let calls = [
            call("llm", "big", "ok", tokens.clone()),
            call(&name, &name, &name, tokens.clone()),
            call("llm", &name, "ok", tokens),
        ];
        metrics.ended(&about, Event::Completed, None, &Usage::default(), &calls);
        let waiting =
            WaitingTasks { queue: name, code: WaitCode::Queued, tasks: 1, overdue: 0, oldest: Duration::ZERO };
        metrics.sampled(Some(Sampled { waiting: vec![waiting], ..Sampled::default() }));
    };
    flood(&metrics, 0);
    let before = series(&metrics);
    (1..500).for_each(|n| flood(&metrics, n));
    assert_eq!(series(&metrics), before);
    assert!(!metrics.text().contains("evil"));
}

#[test]
fn costs_are_added_up_by_plugin_model_and_group() {
    let metrics = busy();
    let other = metrics.about("p".into(), "default".into(), &message(&serde_json::json!({"team": "else"})));
    let none = metrics.about("p".into(), "default".into(), &message(&serde_json::json!({})));
    let million = serde_json::json!({"input_tokens": 1_000_000, "output_tokens": 500_000});
    for about in [&other, &none] {
        metrics.ended(about, Event::Completed, None, &Usage::default(), &[call("llm", "big", "ok", million.clone())]);
    }
    let text = metrics.text();
    // 4 of 10 plain, 4 cached, 2 written, 5 of the answer: 4·2 + 4·0.5 + 2·4 + 5·8 = 58 millionths.
    let cost = |group: &str| {
        let start = format!("agentry_llm_cost_total{{plugin=\"p\",model=\"big\",group=\"{group}\",currency=\"EUR\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap_or_else(|| panic!("{group}: {text}"))
            .parse::<f64>()
            .unwrap()
    };
    assert!((cost("search") - 58e-6).abs() < 1e-12);
    assert!((cost("other") - 6.0).abs() < 1e-9 && (cost("none") - 6.0).abs() < 1e-9);
    for line in [
        "agentry_llm_unpriced_calls_total{model=\"free\"} 1",
        "agentry_llm_model_tokens_total{plugin=\"p\",model=\"free\",kind=\"cached\"} 4",
        "agentry_llm_model_tokens_total{plugin=\"p\",model=\"free\",kind=\"cache_write\"} 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn times_since_creation_are_those_of_ids_that_hold_it() {
    let second = Duration::from_secs(1);
    let now = SystemTime::now();
    assert_eq!(passed(now - second, now), Some(second));
    assert_eq!((passed(now + second, now), passed(now + 60 * second, now)), (Some(Duration::ZERO), None));
    assert_eq!(passed(now - BELIEVED - second, now), None);
    assert_eq!(created(uuid::Uuid::new_v4()), None);
    let age = now.duration_since(created(uuid::Uuid::now_v7()).unwrap()).unwrap_or_default();
    assert!(age < 60 * second, "{age:?}");
    let later = TaskMessage { id: uuid::Uuid::now_v7(), ..message(&serde_json::json!({})) };
    assert_eq!(due(&later), created(later.id));
}

#[test]
fn a_sample_that_fails_is_not_shown_as_the_last_one() {
    let metrics = busy();
    metrics.sampled(None);
    let text = metrics.text();
    assert!(!text.contains("agentry_waiting_tasks") && !text.contains("agentry_queue_messages"), "{text}");
    assert!(
        text.contains("agentry_sample_timestamp_seconds 5.0\n") && text.contains("agentry_sample_failures_total 1\n")
    );
}

#[test]
fn what_was_recorded_is_summed_by_plugin_and_levels_are_read_when_asked() {
    let (busy, memory) = (Arc::new(AtomicU32::new(0)), MemoryBudget::new(1 << 20));
    let metrics = Metrics::new(4, busy.clone(), memory.clone(), Turns::new(2));
    let usage =
        Usage { llm_tokens: 9, wall_us: 1_500_000, cpu_us: 250_000, log_bytes: 7, host_calls: 2, ..Usage::default() };
    let call = Call {
        seq: 1,
        at: chrono::DateTime::UNIX_EPOCH,
        capability: "llm".into(),
        operation: "chat".into(),
        target: "default".into(),
        duration_us: 500_000,
        request_bytes: 1,
        response_bytes: 1,
        result: "ok".into(),
        detail: serde_json::Value::Null,
        request_body: None,
        response_body: None,
    };
    metrics.attempt("p", Event::Completed, None, &usage, &[call.clone(), call]);
    metrics.attempt("p", Event::Retrying, Some(FailureKind::Trap), &usage, &[]);
    metrics.memory_interruption();
    let held = memory.try_reserve(1 << 16);
    busy.store(3, Ordering::Relaxed);
    let text = metrics.text();
    for line in [
        "agentry_attempts_total{plugin=\"p\",ended=\"completed\",kind=\"\"} 1",
        "agentry_attempts_total{plugin=\"p\",ended=\"retrying\",kind=\"trap\"} 1",
        "agentry_wall_seconds_total{plugin=\"p\"} 3.0",
        "agentry_cpu_seconds_total{plugin=\"p\"} 0.5",
        "agentry_log_bytes_total{plugin=\"p\"} 14",
        "agentry_host_calls_total{plugin=\"p\"} 4",
        "agentry_capability_calls_total{plugin=\"p\",capability=\"llm\",result=\"ok\"} 2",
        "agentry_capability_wall_seconds_total{plugin=\"p\",capability=\"llm\",result=\"ok\"} 1.0",
        "agentry_llm_tokens_total{plugin=\"p\"} 18",
        "agentry_peak_memory_bytes_count{plugin=\"p\"} 2",
        "agentry_memory_interruptions_total 1",
        "agentry_slots 4",
        "agentry_slots_busy 3",
        "agentry_guests{state=\"computing\"} 0",
        "agentry_guests{state=\"waiting\"} 0",
        "agentry_memory_budget_bytes 1048576",
        "agentry_memory_reserved_bytes 65536",
        "agentry_memory_waiting 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    drop(held);
    assert!(metrics.text().contains("agentry_memory_reserved_bytes 0\n"));
}
