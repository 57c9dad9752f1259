//! Unusable messages.

use super::subject::*;
use crate::db::{ClaimAnswer, DeadFilter, DeadLetter, DeadRecorded, Retention};
use crate::task::{Event, FailureKind, State, TaskId};
use serde_json::json;
use std::time::Duration;

fn letter(task_id: Option<TaskId>, reason: &str) -> DeadLetter {
    DeadLetter {
        reason: reason.into(),
        detail: "line 1, column 2".into(),
        queue: "default".into(),
        task_id,
        plugin: Some("word-count@1".into()),
        body: b"{"[..].into(),
        properties: json!({"content_type": "application/json"}),
        redelivered: false,
    }
}

pub async fn a_redelivered_letter_has_one_row(s: &Subject) {
    let first = letter(None, "not_json");
    let recorded = s.db.record_dead(&first).await.unwrap();
    assert!(!recorded.repeated);
    let headers = json!({"content_type": "application/json", "headers": {"x-delivery-count": 1}});
    let again = DeadLetter { redelivered: true, properties: headers, ..first.clone() };
    assert_eq!(s.db.record_dead(&again).await.unwrap(), DeadRecorded { id: recorded.id, repeated: true });
    // Not redelivered: an equal message of its own.
    let equal = s.db.record_dead(&first).await.unwrap();
    assert!(!equal.repeated && equal.id > recorded.id);
    // Redelivered, and not seen before.
    let other = DeadLetter { body: b"["[..].into(), ..again.clone() };
    assert!(!s.db.record_dead(&other).await.unwrap().repeated);
    // Seen too long ago.
    s.set("UPDATE dead_letters SET at = '2020-01-01T00:00:00.000000Z'").await;
    assert!(!s.db.record_dead(&again).await.unwrap().repeated);
    let keep = Retention { completed: LONG, failed: LONG, dead: LONG };
    assert_eq!(s.db.prune(&keep, 2).await.unwrap(), 2);
    assert_eq!(s.db.prune(&keep, 2).await.unwrap(), 1);
    assert_eq!(s.db.prune(&Retention { dead: Duration::ZERO, ..keep }, 2).await.unwrap(), 1);
}

pub async fn a_letter_with_an_id_has_one_row_whoever_comes_first(s: &Subject) {
    let second = s.back_door.open();
    // Delivered to one host, which was cut off and knows nothing of it, and delivered again to another.
    for _ in 0..20 {
        let first = letter(Some(id()), "not_json");
        let again = DeadLetter { redelivered: true, ..first.clone() };
        let (one, other) = tokio::join!(s.db.record_dead(&again), second.record_dead(&first));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.id, other.id);
        assert_ne!(one.repeated, other.repeated);
    }
}

pub async fn a_letter_with_an_id_is_a_rejected_task_unless_it_is_a_conflict(s: &Subject) {
    let host = s.host().await;
    let rejected = id();
    s.db.record_dead(&letter(Some(rejected), "bad_options")).await.unwrap();
    let row = s.row(rejected).await;
    let failure = row.failure.unwrap();
    assert_eq!((row.state, failure.kind, failure.retryable), (State::Failed, FailureKind::Rejected, false));
    assert_eq!((failure.message.as_str(), &failure.detail["reason"]), ("line 1, column 2", &json!("bad_options")));
    assert_eq!((row.plugin.as_str(), row.input, row.attempt), ("word-count@1", None, 0));
    assert!(row.finished_at.is_some());
    assert_eq!(s.history(rejected).await, [Event::Failed]);
    // A good message under that id is not the same task.
    let usable = arrival_of(message(rejected, "word-count", "1", Default::default()), here());
    assert_eq!(s.claim(host, &usable).await, ClaimAnswer::Conflict);

    let conflict = id();
    s.db.record_dead(&letter(Some(conflict), "conflict")).await.unwrap();
    assert!(s.db.task(conflict, Default::default()).await.unwrap().is_none());

    let running = arrival();
    s.run(host, &running).await;
    s.db.record_dead(&letter(Some(running.message.id), "not_json")).await.unwrap();
    assert_eq!(s.history(running.message.id).await, [Event::Running]);
    assert_eq!(s.db.dead_letters(&DeadFilter { limit: 10, ..DeadFilter::default() }).await.unwrap().rows.len(), 3);
}

pub async fn a_letter_is_made_storable_and_its_body_is_cut_for_reading(s: &Subject) {
    let mut body = vec![0xff, 0x00, b'a'];
    body.extend("é".repeat(40_000).bytes());
    let odd = DeadLetter {
        reason: "not\0json".into(),
        detail: "at \0".into(),
        queue: "q\0".into(),
        plugin: Some(format!("\0{}", "é".repeat(5000))),
        properties: json!({"headers": {"a\0": "b\0"}}),
        body: body.clone().into(),
        ..letter(Some(id()), "")
    };
    s.db.record_dead(&odd).await.unwrap();
    let row = s.db.dead_letters(&DeadFilter { limit: 1, ..DeadFilter::default() }).await.unwrap().rows.remove(0);
    assert_eq!(
        (row.reason.as_str(), row.detail.as_str(), row.queue.as_str()),
        ("not\u{FFFD}json", "at \u{FFFD}", "q\u{FFFD}")
    );
    assert_eq!(row.properties, json!({"headers": {"a\u{FFFD}": "b\u{FFFD}"}}));
    assert_eq!(row.body_bytes, body.len() as i64);
    assert!(row.body.starts_with("\u{FFFD}\0aéé") && row.body.ends_with('é'), "{}", &row.body[row.body.len() - 8..]);
    assert!(row.body.len() <= 64 * 1024 + 2);
    assert_eq!(row.task_id, odd.task_id);
    let task = s.row(odd.task_id.unwrap()).await;
    assert!(task.plugin.len() <= 202 && task.plugin.starts_with('\u{FFFD}'));
}

pub async fn letters_are_paged_and_filtered(s: &Subject) {
    for n in 0..5 {
        let queue = if n == 4 { "other" } else { "default" };
        let reason = if n % 2 == 0 { "not_json" } else { "too_large" };
        s.db.record_dead(&DeadLetter { queue: queue.into(), ..letter(None, reason) }).await.unwrap();
    }
    let all = DeadFilter { limit: 3, ..DeadFilter::default() };
    let page = s.db.dead_letters(&all).await.unwrap().rows;
    assert_eq!(page.len(), 3);
    assert!(page.is_sorted_by(|a, b| a.id > b.id));
    let rest = s.db.dead_letters(&DeadFilter { before: Some(page[2].id), ..all.clone() }).await.unwrap().rows;
    assert_eq!(rest.len(), 2);
    assert!(rest[0].id < page[2].id);
    let count = async |filter: DeadFilter| s.db.dead_letters(&filter).await.unwrap().rows.len();
    assert_eq!(count(DeadFilter { reason: Some("not_json".into()), limit: 10, ..all.clone() }).await, 3);
    assert_eq!(count(DeadFilter { queue: Some("other".into()), limit: 10, ..all.clone() }).await, 1);
    assert_eq!(count(DeadFilter { queue: Some("no\0ne".into()), limit: 10, ..all }).await, 0);
}
