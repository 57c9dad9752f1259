use super::super::Via;
use super::super::rows::{Reason, Row};
use super::super::send::Sent;
use super::*;
use uuid::Uuid;

fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(milliseconds)
}

/// Four tasks sent 10 ms apart; the last failed, or never got a row.
pub fn report(last: Option<&str>) -> Report {
    let plan = Plan {
        run: "r1".into(),
        shape: Shape::Rate { tasks: 4, every: Duration::from_millis(10) },
        plugin: "a<b>&\"c\"".into(),
        input: "1".into(),
        queue: None,
        via: Via::Http,
        batch: 500,
        in_flight: None,
        patience: Duration::from_secs(1),
    };
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let tasks: Vec<_> = ids.iter().zip(0..).map(|(id, n)| (*id, at(10 * n))).collect();
    let mut rows = BTreeMap::new();
    for (id, n) in ids.iter().zip(0_i64..4) {
        let state = if n < 3 { Some("completed") } else { last };
        if let Some(state) = state {
            let ended = Some(at(10 * n + 5 * (n + 1)));
            let reason = (state == "failed").then(|| Reason { kind: "trap".into(), code: None, message: "no".into() });
            rows.insert(*id, Row { state: state.into(), started_at: Some(at(10 * n + 1)), finished_at: ended, reason });
        }
    }
    let usage = |cpu, resident_kib| Usage { cpu: Duration::from_millis(cpu), resident_kib, peak_kib: 4_096 };
    let measured = Measured {
        sent: Sent { confirmed: tasks.len() as u64, tasks, took: Duration::from_millis(40) },
        rows: Some(rows),
        counted: (4, Duration::from_millis(50)),
        legs: BTreeMap::new(),
        resources: Ok((usage(100, 1_024), usage(140, 2_048))),
        glance: None,
        early: None,
    };
    Report::new(&plan, "http://127.0.0.1:1", false, 500, measured)
}

#[test]
fn figures_follow_from_what_was_sent_and_recorded() {
    let report = report(Some("failed"));
    let json = report.json();
    assert_eq!(json["states"], json!({"completed": 3, "failed": 1}));
    assert_eq!(json["submission"], json!({"confirmed": 4, "seconds": 0.04, "per_second": 80.0, "unknown": null}));
    // First start after 1 ms, last end after 50 ms, first send at 0.
    assert_eq!(json["throughput"]["seconds"], 0.049);
    assert_eq!(json["throughput"]["from_submission_per_second"], 66.6667);
    assert_eq!((&json["latency_ms"]["p50"], &json["latency_ms"]["max"]), (&json!(10.0), &json!(20.0)));
    let reasons = json!([{"state": "failed", "kind": "trap", "code": null, "count": 1, "first_message": "no"}]);
    assert_eq!(json["reasons"], reasons);
    assert_eq!(json["resources"]["resident_mib"], 2.0);
    assert_eq!(json["legs"], Value::Null);
    assert_eq!(report.verdict().unwrap_err().code, 1);
}

#[test]
fn a_task_without_a_row_is_missing_and_fails_the_run() {
    let report = report(None);
    assert_eq!(report.json()["states"], json!({"completed": 3, "missing": 1}));
    assert!(report.verdict().unwrap_err().message.contains("1 of 4"));
    let text = report.text();
    assert!(
        text.contains("3 completed, 1 missing")
            && text.contains("1 missing: without a record")
            && text.contains("legs        unknown"),
        "{text}"
    );
}

#[test]
fn cpu_per_task_is_reported_of_enough_tasks_and_ticks_alone() {
    let mut report = report(Some("failed"));
    let few = report.json();
    assert_eq!(few["resources"]["cpu_us_per_task"], Value::Null);
    assert!(
        few["resources"]["cpu_per_task_unknown"].as_str().is_some_and(|why| why.starts_with("too few tasks: 4 ended"))
    );
    assert!(
        report.text().contains("too few tasks") && report.text().contains("1 failed: trap: no"),
        "{}",
        report.text()
    );
    report.over_time.0 = vec![100];
    assert_eq!(report.json()["resources"]["cpu_us_per_task"], Value::Null, "4 ticks");
    report.resources.as_mut().unwrap().1.cpu += Duration::from_millis(60);
    assert_eq!(report.json()["resources"]["cpu_us_per_task"], 1_000.0);
    assert!(report.text().contains("1000 µs"), "{}", report.text());
}

#[test]
fn the_bound_of_tasks_in_flight_is_shown_with_what_it_allows() {
    let mut report = report(Some("completed"));
    (report.in_flight, report.glance) = (Some(10), Some(Duration::from_millis(2)));
    assert_eq!(report.json()["in_flight_ceiling_per_second"], 5_000.0);
    assert!(report.text().contains("counted every 2 ms, which allows 5000/s at most"), "{}", report.text());
}

#[test]
fn a_slow_run_is_shown_with_its_digits_and_an_early_end_is_named() {
    let mut report = report(Some("completed"));
    report.running = Some(Duration::from_millis(7_990));
    report.interrupted = Some("SIGINT");
    let text = report.text();
    assert!(text.contains("0.5/s, first start to last end") && text.starts_with("interrupted; so far: "), "{text}");
    assert_eq!(
        (&report.json()["throughput"]["per_second"], &report.json()["interrupted"]),
        (&json!(0.5), &json!("SIGINT"))
    );
}

#[test]
fn ends_are_counted_once_over_time() {
    let (counts, part) = over_time(Some(at(0)), &[at(0), at(59), at(60), at(60)]);
    assert_eq!((counts, part), (vec![4], Duration::from_millis(60)));
    assert_eq!(over_time(None, &[]).0, Vec::<u64>::new());
}

#[test]
fn a_part_of_the_time_holds_several_batches() {
    // 50 batches of 100 tasks, 20 ms apart: no part is empty, and none holds twice what another does.
    let ends: Vec<_> = (1..=50).flat_map(|batch| std::iter::repeat_n(at(20 * batch), 100)).collect();
    let (counts, part) = over_time(Some(at(0)), &ends);
    assert_eq!(counts.iter().sum::<u64>(), 5_000);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(counts.len() > 1 && *least > 0 && most < &(2 * least), "{counts:?} in {part:?}");
    // As many parts as there may be, of ends at times of their own.
    let ends: Vec<_> = (1..=5_000).map(at).collect();
    assert_eq!(over_time(Some(at(0)), &ends).0.len(), PARTS);
}

#[test]
fn a_rate_is_not_reported_of_a_few_tasks_of_a_flood() {
    let mut report = report(Some("completed"));
    report.shape = Shape::Flood { tasks: 4 };
    let json = report.json();
    for figures in ["submission", "throughput"] {
        let figures = &json[figures];
        assert_eq!((&figures["per_second"], figures["unknown"].is_string()), (&Value::Null, true), "{figures}");
    }
    assert_eq!(json["throughput"]["from_submission_per_second"], Value::Null);
    assert!(report.text().contains("throughput  too few tasks for a rate: 4; at least 10"), "{}", report.text());
    assert!(report.shown_over_time().0.is_empty());
    (report.over_time.0, report.running) = (vec![10], Some(Duration::from_secs(2)));
    assert_eq!(report.json()["throughput"]["per_second"], 5.0);
}

#[test]
fn one_task_or_two_at_a_rate_do_not_exceed_it() {
    let mut report = report(Some("completed"));
    report.shape = Shape::Rate { tasks: 2, every: Duration::from_secs(1) };
    (report.sent, report.over_time.0) = (2, vec![2]);
    let span = Some(Duration::from_millis(1_001));
    (report.submission, report.running, report.whole) = ((2, Duration::from_secs(1)), span, span);
    let json = report.json();
    assert_eq!(json["submission"]["per_second"], 1.0);
    assert_eq!(json["throughput"]["per_second"], 0.9995);
    assert_eq!(json["throughput"]["from_submission_per_second"], 0.9995);
}

#[test]
fn a_run_whose_rows_cannot_be_read_shows_the_counters() {
    let plan = Plan {
        run: "r1".into(),
        shape: Shape::Flood { tasks: 400 },
        plugin: "p".into(),
        input: "1".into(),
        queue: None,
        via: Via::Http,
        batch: 500,
        in_flight: None,
        patience: Duration::from_secs(1),
    };
    let tasks: Vec<_> = (0..3).map(|n| (Uuid::now_v7(), at(n))).collect();
    let measured = Measured {
        sent: Sent { confirmed: tasks.len() as u64, tasks, took: Duration::from_secs(1) },
        rows: None,
        counted: (100, Duration::from_secs(2)),
        legs: BTreeMap::new(),
        resources: Err("it ended".into()),
        glance: None,
        early: None,
    };
    let mut report = Report::new(&plan, "http://127.0.0.1:1", false, 500, measured);
    report.error = Some("the daemon has ended".into());
    let json = report.json();
    assert_eq!(json["states"], json!({"unknown": 3}));
    assert_eq!(json["counted"], json!({"ended": 100, "seconds": 2.0, "per_second": 50.0}));
    let text = report.text();
    assert!(text.starts_with("ended early by an error; so far: "), "{text}");
    assert!(text.contains("100 ended within 2 s by the daemon's counters, 50/s"), "{text}");
    assert!(!text.contains("latency") && !text.contains("- ms"), "{text}");
}

#[test]
fn the_most_tasks_at_once_are_counted_from_their_times() {
    let at = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap();
    assert_eq!(in_flight_most(&[]), 0);
    assert_eq!(in_flight_most(&[(at(0), at(5)), (at(5), at(9))]), 1);
    assert_eq!(in_flight_most(&[(at(0), at(5)), (at(1), at(3)), (at(2), at(9)), (at(4), at(6))]), 3);
}
