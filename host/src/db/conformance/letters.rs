//! Unusable messages.

use super::subject::*;
use crate::db::{
    ClaimAnswer, DeadAnswer, DeadFilter, DeadLetter, DeadRecorded, OutboxTake, Retention, Unusable, UnusableAnswer,
    record_dead,
};
use crate::task::{Arrival, Event, FailureKind, Options, State, TaskId, WaitCode};
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
    let recorded = record_dead(&*s.db, &first).await.unwrap();
    assert!(!recorded.repeated);
    let headers = json!({"content_type": "application/json", "headers": {"x-delivery-count": 1}});
    let again = DeadLetter { redelivered: true, properties: headers, ..first.clone() };
    assert_eq!(record_dead(&*s.db, &again).await.unwrap(), DeadRecorded { id: recorded.id, repeated: true });
    // Not redelivered: an equal message of its own.
    let equal = record_dead(&*s.db, &first).await.unwrap();
    assert!(!equal.repeated && equal.id > recorded.id);
    // Redelivered, and not seen before.
    let other = DeadLetter { body: b"["[..].into(), ..again.clone() };
    assert!(!record_dead(&*s.db, &other).await.unwrap().repeated);
    // Seen too long ago.
    s.set("UPDATE dead_letters SET at = '2020-01-01T00:00:00.000000Z'").await;
    assert!(!record_dead(&*s.db, &again).await.unwrap().repeated);
    let keep = Retention { completed: LONG, failed: LONG, dead: LONG, audit: LONG };
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
        let (one, other) = tokio::join!(record_dead(&*s.db, &again), record_dead(&*second, &first));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.id, other.id);
        assert_ne!(one.repeated, other.repeated);
    }
}

pub async fn a_letter_with_an_id_is_a_rejected_task_unless_it_is_a_conflict(s: &Subject) {
    let host = s.host().await;
    let rejected = id();
    record_dead(&*s.db, &letter(Some(rejected), "bad_options")).await.unwrap();
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
    record_dead(&*s.db, &letter(Some(conflict), "conflict")).await.unwrap();
    assert!(s.db.task(conflict, Default::default()).await.unwrap().is_none());

    let running = arrival();
    s.run(host, &running).await;
    record_dead(&*s.db, &letter(Some(running.message.id), "not_json")).await.unwrap();
    assert_eq!(s.history(running.message.id).await, [Event::Running]);
    assert_eq!(s.db.dead_letters(&DeadFilter { limit: 10, ..DeadFilter::default() }).await.unwrap().rows.len(), 3);
    for (task, letters) in [(rejected, 1), (conflict, 1), (id(), 0)] {
        let of_task = DeadFilter { task: Some(task), limit: 10, ..DeadFilter::default() };
        let rows = s.db.dead_letters(&of_task).await.unwrap().rows;
        assert!(rows.len() == letters && rows.iter().all(|row| row.task_id == Some(task)), "{rows:?}");
    }
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
    record_dead(&*s.db, &odd).await.unwrap();
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
        record_dead(&*s.db, &DeadLetter { queue: queue.into(), ..letter(None, reason) }).await.unwrap();
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

pub async fn a_batch_of_letters_is_answered_in_its_order_and_each_has_one_row(s: &Subject) {
    let first = letter(None, "not_json");
    let again = DeadLetter { redelivered: true, ..first.clone() };
    let (named, other) = (letter(Some(id()), "not_json"), DeadLetter { body: b"["[..].into(), ..first.clone() });
    let known = record_dead(&*s.db, &named).await.unwrap().id;
    let batch = [first.clone(), first, again, named.clone(), other.clone(), named];
    let answers = s.db.record_dead(&batch).await.unwrap();
    let recorded: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer {
            DeadAnswer::Recorded(DeadRecorded { id, repeated }) => (id, repeated),
            DeadAnswer::Refused(reason) => panic!("{reason}"),
        })
        .collect();
    let (a, b, c) = (recorded[0].0, recorded[1].0, recorded[4].0);
    assert!(known < a && a < b && b < c, "{recorded:?}");
    assert_eq!(recorded, [(a, false), (b, false), (b, true), (known, true), (c, false), (known, true)]);
    assert_eq!(s.db.take_letters("default", 10, LONG).await.unwrap().len(), 4);
}

pub async fn a_letter_that_the_database_refuses_fails_alone(s: &Subject) {
    s.back_door.refuse("unwanted").await;
    let unwanted = || DeadLetter { plugin: Some("unwanted@1".into()), ..letter(Some(id()), "bad_options") };
    let mut batch: Vec<_> = (0..20).map(|_| letter(Some(id()), "bad_options")).collect();
    for place in [0, 7, 21] {
        batch.insert(place, unwanted());
    }
    let answers = s.db.record_dead(&batch).await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            DeadAnswer::Refused(reason) => assert!([0, 7, 21].contains(&n) && !reason.is_empty(), "{n}: {reason}"),
            DeadAnswer::Recorded(_) => assert!(![0, 7, 21].contains(&n), "{n}"),
        }
    }
    assert_eq!(s.db.take_letters("default", 100, LONG).await.unwrap().len(), 20);
}

pub async fn a_letter_is_due_until_it_is_published(s: &Subject) {
    let of = |queue: &str| DeadLetter { queue: queue.into(), ..letter(None, "not_json") };
    let named = DeadLetter { body: b"[1"[..].into(), ..letter(Some(id()), "not_json") };
    s.db.record_dead(&[of("default"), of("other"), named.clone(), of("default")]).await.unwrap();
    let take = async |queue: &str, limit, hold| {
        s.db.take_letters(queue, limit, hold).await.unwrap().into_iter().map(|l| l.id).collect::<Vec<_>>()
    };
    let taken = s.db.take_letters("default", 2, LONG).await.unwrap();
    let ids: Vec<i64> = taken.iter().map(|letter| letter.id).collect();
    assert!(ids.len() == 2 && ids[0] < ids[1], "{ids:?}");
    let (letter, expected) = (&taken[1], &named);
    assert_eq!((&letter.reason, &letter.detail), (&expected.reason, &expected.detail));
    assert_eq!((&letter.body[..], &letter.properties), (&expected.body[..], &expected.properties));
    let last = take("default", 2, Duration::ZERO).await;
    assert_eq!(take("default", 2, LONG).await, last, "its hold has ended");
    assert!(take("default", 2, LONG).await.is_empty());
    s.db.letters_published(&ids[..1]).await.unwrap();
    s.db.defer_letters(&[ids[0], ids[1], last[0]], Duration::ZERO).await.unwrap();
    assert_eq!(take("default", 9, Duration::ZERO).await, [ids[1], last[0]]);
    // Its host may have died between recording and publishing, or between publishing and acknowledging.
    s.db.letters_published(&[ids[1], last[0]]).await.unwrap();
    assert!(record_dead(&*s.db, &DeadLetter { redelivered: true, ..named.clone() }).await.unwrap().repeated);
    assert_eq!(take("default", 9, Duration::ZERO).await, [ids[1]]);
    s.db.erase(named.task_id.unwrap()).await.unwrap();
    assert!(take("default", 9, LONG).await.is_empty(), "there is nothing to publish");
    assert_eq!(take("other", 9, LONG).await.len(), 1);
}

fn unusable(id: TaskId) -> Unusable {
    Unusable { id, reason: "bad_options".into(), detail: "options.priority is 10".into() }
}

pub async fn a_task_whose_message_is_unusable_waits_for_a_host_that_can_use_it(s: &Subject) {
    let (host, lost) = (s.host().await, s.host().await);
    let submitted = new_task(id(), Options::default());
    s.db.submit(std::slice::from_ref(&submitted)).await.unwrap();
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    s.db.drop_outbox(batch.token, &[submitted.message.id]).await.unwrap();
    let later = arrival_with(Options { run_at: Some(at("2999-01-01T00:00:00Z")), ..Options::default() }, here());
    s.claim(host, &later).await;
    let (running, ended, orphan) = (arrival(), arrival(), arrival());
    s.run(host, &running).await;
    s.end(host, &ended, completed()).await;
    s.run(lost, &orphan).await;
    s.db.end_lease(lost).await.unwrap();
    let due = arrival();
    s.end(host, &due, retrying()).await;
    let id_of = |arrival: &Arrival| arrival.message.id;
    let others = [&later, &running, &ended, &orphan, &due].map(id_of);
    let ids: Vec<TaskId> = [submitted.message.id, id()].into_iter().chain(others).collect();
    let tasks: Vec<Unusable> = ids.iter().map(|id| unusable(*id)).collect();
    // The second time nothing is left to be done.
    for _ in 0..2 {
        let answers = s.db.park_unusable(steady(host), &tasks, LONG).await.unwrap();
        let is_unknown = |answer: &UnusableAnswer| *answer == UnusableAnswer::Unknown;
        assert_eq!(answers.iter().position(is_unknown), Some(1), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| **answer == UnusableAnswer::Kept).count(), 6, "{answers:?}");
        assert_eq!(s.history(submitted.message.id).await, [Event::Pending, Event::Parked]);
        assert_eq!(s.history(id_of(&orphan)).await, [Event::Running, Event::Interrupted]);
        assert_eq!(s.history(id_of(&due)).await, [Event::Running, Event::Retrying, Event::Parked]);
        for (arrival, state) in [(&later, State::Scheduled), (&running, State::Running), (&ended, State::Completed)] {
            assert_eq!(s.row(id_of(arrival)).await.state, state);
        }
    }
    let waiting = s.row(submitted.message.id).await.waiting_for.unwrap();
    assert_eq!(waiting.code, WaitCode::Held);
    assert_eq!(waiting.detail, json!({"reason": "bad_options", "detail": "options.priority is 10"}));
    let parked = s.db.parked(&parked_of(&["word-count".to_owned()], true, 10)).await.unwrap().tasks;
    assert_eq!(parked.len(), 3);
    // A host that can use it takes it from there.
    let task = parked.into_iter().find(|task| task.message.id == submitted.message.id).unwrap();
    s.run(host, &arrival_of(task.message, here())).await;
}

pub async fn a_task_whose_row_cannot_be_read_either_is_published_again_later(s: &Subject) {
    let host = s.host().await;
    let (spoilt, good) = (new_task(id(), Options::default()), new_task(id(), Options::default()));
    s.db.submit(&[spoilt.clone(), good.clone()]).await.unwrap();
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    s.set(&format!("UPDATE tasks SET host_losses = 5000000000 WHERE id = '{}'", spoilt.message.id)).await;
    let tasks = [unusable(spoilt.message.id), unusable(good.message.id)];
    let answers = s.db.park_unusable(steady(host), &tasks, LONG).await.unwrap();
    assert!(matches!(&answers[0], UnusableAnswer::Later(reason) if reason.contains("host_losses")), "{answers:?}");
    assert_eq!(answers[1], UnusableAnswer::Kept);
    // The relay that published both deletes what it held.
    s.db.drop_outbox(batch.token, &[spoilt.message.id, good.message.id]).await.unwrap();
    assert!(s.published().await.is_empty(), "not yet");
    s.set("UPDATE outbox SET due_at = '2020-01-01T00:00:00.000000Z'").await;
    assert_eq!(s.published().await, [spoilt.message.id]);
}
