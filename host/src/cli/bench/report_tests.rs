use super::super::Via;
use super::super::rows::Row;
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
        shape: Shape::Flood { tasks: 4 },
        plugin: "a<b>&\"c\"".into(),
        input: "1".into(),
        queue: None,
        via: Via::Http,
        batch: 500,
        in_flight: None,
        patience: Duration::from_secs(1),
    };
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let tasks = ids.iter().zip(0..).map(|(id, n)| (*id, at(10 * n))).collect();
    let mut rows = BTreeMap::new();
    for (id, n) in ids.iter().zip(0_i64..4) {
        let state = if n < 3 { Some("completed") } else { last };
        if let Some(state) = state {
            let ended = Some(at(10 * n + 5 * (n + 1)));
            rows.insert(*id, Row { state: state.into(), started_at: Some(at(10 * n + 1)), finished_at: ended });
        }
    }
    let usage = |cpu, resident_kib| Usage { cpu: Duration::from_millis(cpu), resident_kib, peak_kib: 4_096 };
    let measured = Measured {
        sent: Sent { tasks, took: Duration::from_millis(40) },
        rows,
        legs: BTreeMap::new(),
        resources: Ok((usage(100, 1_024), usage(140, 2_048))),
    };
    Report::new(&plan, "http://127.0.0.1:1", false, measured)
}

#[test]
fn figures_follow_from_what_was_sent_and_recorded() {
    let report = report(Some("failed"));
    let json = report.json();
    assert_eq!(json["states"], json!({"completed": 3, "failed": 1}));
    assert_eq!(json["submission"], json!({"seconds": 0.04, "per_second": 100.0}));
    // First start after 1 ms, last end after 50 ms, first send at 0.
    assert_eq!(json["throughput"]["seconds"], 0.049);
    assert_eq!(json["throughput"]["from_submission_per_second"], 80.0);
    assert_eq!((&json["latency_ms"]["p50"], &json["latency_ms"]["max"]), (&json!(10.0), &json!(20.0)));
    assert_eq!(json["resources"]["cpu_us_per_task"], 10_000.0);
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
    assert!(text.contains("3 completed, 1 missing") && text.contains("not reported by this daemon"), "{text}");
}

#[test]
fn ends_are_counted_once_over_time() {
    let (counts, part) = over_time(Some(at(0)), &[at(0), at(59), at(60), at(60)]);
    assert_eq!((counts.iter().sum::<u64>(), counts[PARTS - 1]), (4, 3));
    assert_eq!(part, Duration::from_millis(1));
    assert_eq!(over_time(None, &[]).0, Vec::<u64>::new());
}
