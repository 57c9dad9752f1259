//! What must happen even if nobody asks.

use super::subject::*;
use crate::db::{ClaimAnswer, ParkedLook, Retention, SettleAnswer};
use crate::task::settle::Ended;
use crate::task::{Arrival, Event, FailureKind, Options, State, WaitCode};
use chrono::{TimeDelta, Utc};
use std::time::Duration;

pub async fn what_is_due_goes_to_its_queue(s: &Subject) {
    let host = s.host().await;
    let later = Options { run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Options::default() };
    let (scheduled, ahead, retried) = (new_task(id(), later.clone()), new_task(id(), later), arrival());
    s.db.submit(&[scheduled.clone(), ahead.clone()]).await.unwrap();
    s.end(host, &retried, retrying()).await;
    s.set(&format!("UPDATE tasks SET run_at = '2020-01-01T00:00:00.000000Z' WHERE id = '{}'", scheduled.message.id))
        .await;
    assert_eq!(s.db.wake_due(1).await.unwrap(), 1);
    assert_eq!(s.db.wake_due(10).await.unwrap(), 1);
    assert_eq!(s.db.wake_due(10).await.unwrap(), 0);
    assert_eq!(s.waits(scheduled.message.id).await, Some(WaitCode::NotPublished));
    assert_eq!(s.waits(ahead.message.id).await, Some(WaitCode::Scheduled));
    assert_eq!(s.published().await.len(), 2);
    assert_eq!(s.history(scheduled.message.id).await, [Event::Scheduled, Event::Pending]);
    assert_eq!(s.history(retried.message.id).await, [Event::Running, Event::Retrying, Event::Pending]);
    assert_eq!(s.run(host, &retried).await.standing.attempt, 2);
}

pub async fn what_has_expired_ends(s: &Subject) {
    let host = s.host().await;
    let limited = || Options { deadline: Some(Utc::now() + TimeDelta::hours(1)), ..Options::default() };
    let scheduled = Options { run_at: Some(Utc::now() + TimeDelta::minutes(30)), ..limited() };
    let tasks = [new_task(id(), limited()), new_task(id(), scheduled)];
    s.db.submit(&tasks).await.unwrap();
    let (retried, running) = (arrival_with(limited(), here()), arrival_with(limited(), here()));
    s.end(host, &retried, retrying()).await;
    s.run(host, &running).await;
    assert_eq!(s.db.fail_expired(10).await.unwrap(), 0);
    s.set("UPDATE tasks SET deadline = '2020-01-01T00:00:00.000000Z'").await;
    assert_eq!(s.db.fail_expired(2).await.unwrap(), 2);
    assert_eq!(s.db.fail_expired(10).await.unwrap(), 1);
    for id in [tasks[0].message.id, tasks[1].message.id, retried.message.id] {
        let row = s.row(id).await;
        assert_eq!((row.state, row.failure.unwrap().kind), (State::Failed, FailureKind::Expired));
        assert_eq!(s.history(id).await.last(), Some(&Event::Failed));
    }
    assert_eq!(s.row(running.message.id).await.state, State::Running);
    assert!(s.published().await.is_empty());
}

pub async fn what_nobody_serves_ends_after_its_grace(s: &Subject) {
    let host = s.host().await;
    let park = |plugin: &str, code| arrival_of(message(id(), plugin, "1", Options::default()), elsewhere(code));
    let unknown = park("nowhere", WaitCode::NoPlugin);
    let served = park("word-count", WaitCode::NoPlugin);
    let broken = [park("broken", WaitCode::NoPlugin), park("broken@1", WaitCode::PluginBroken)];
    // Another host serves what is broken where it was parked.
    let mended = park("word-count", WaitCode::PluginBroken);
    let waiting = park("busy", WaitCode::NoSlot);
    let newer = park("word-count@^9", WaitCode::NoPlugin);
    let mut all = vec![unknown.clone(), served.clone(), mended.clone(), waiting.clone(), newer.clone()];
    all.extend(broken.clone());
    s.db.claim(steady(host), &all).await.unwrap();
    assert_eq!(s.db.fail_unknown(LONG, 10).await.unwrap(), 0);
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 10).await.unwrap(), 4);
    for arrival in &broken {
        let row = s.row(arrival.message.id).await;
        let failure = row.failure.unwrap();
        assert_eq!((row.state, failure.kind), (State::Failed, FailureKind::PluginBroken));
        assert!(failure.message.contains("no component"), "{}", failure.message);
    }
    let failure = s.row(newer.message.id).await.failure.unwrap();
    assert_eq!(failure.detail["known"], serde_json::json!(["word-count@0.1.0"]), "{}", failure.message);
    let row = s.row(unknown.message.id).await;
    let failure = row.failure.unwrap();
    assert_eq!((row.state, failure.kind), (State::Failed, FailureKind::UnknownPlugin));
    assert!(failure.message.contains("nowhere") && failure.message.contains("word-count"), "{}", failure.message);
    assert_eq!(failure.detail["known"], serde_json::json!(["broken", "word-count"]));
    assert_eq!(s.history(row.id).await, [Event::Parked, Event::Failed]);
    // Its host is gone for a moment, as in a restart: that they have waited for long does not matter.
    s.db.end_lease(host).await.unwrap();
    s.set("UPDATE tasks SET waiting_since = '2020-01-01T00:00:00.000000Z' WHERE waiting_since IS NOT NULL").await;
    assert_eq!(s.db.fail_unknown(LEASE, 10).await.unwrap(), 0);
    // Nobody serves it any more.
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 1).await.unwrap(), 1);
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(s.waits(waiting.message.id).await, Some(WaitCode::NoSlot));
}

pub async fn parked_tasks_are_read_by_priority_then_age(s: &Subject) {
    let host = s.host().await;
    let park = |plugin: &str, priority| {
        let options = Options { priority: Some(priority), ..Options::default() };
        arrival_of(message(id(), plugin, "1", options), elsewhere(WaitCode::NoSlot))
    };
    let (old, urgent, other, young) = (park("a", 1), park("a", 9), park("b", 5), park("a@1", 1));
    for arrival in [&old, &urgent, &other, &young, &park("c", 9)] {
        s.claim(host, arrival).await;
    }
    s.db.submit(&[new_task(id(), Options::default())]).await.unwrap();
    let names = ["a".to_owned(), "b".to_owned(), "z".to_owned()];
    let parked = s.db.parked(&parked_of(&names, true, 10)).await.unwrap().tasks;
    let ids: Vec<_> = parked.iter().map(|p| p.message.id).collect();
    assert_eq!(ids, [&urgent, &other, &old, &young].map(|a| a.message.id));
    assert_eq!(parked[0].message, *urgent.message);
    assert_eq!(parked[0].queue, "default");
    assert_eq!(s.db.parked(&parked_of(&names, true, 2)).await.unwrap().tasks.len(), 2);
    // Page by page, however many are read of one.
    for limit in [1, 2, 3, 10] {
        let (mut look, mut found) = (parked_of(&names, true, limit), Vec::new());
        loop {
            let page = s.db.parked(&look).await.unwrap();
            found.extend(page.tasks.iter().map(|p| p.message.id));
            look.after = page.last;
            if page.last.is_none() {
                break;
            }
        }
        assert_eq!(found, ids, "{limit}");
    }
    let except = ParkedLook { except: vec!["a".to_owned()], ..parked_of(&names, true, 10) };
    let others = s.db.parked(&except).await.unwrap().tasks;
    assert_eq!(others.iter().map(|p| p.message.id).collect::<Vec<_>>(), [&other, &young].map(|a| a.message.id));
    assert!(s.db.parked(&parked_of(&[], true, 10)).await.unwrap().tasks.is_empty());
    // They are claimed as deliveries are.
    let arrival = arrival_of(parked[0].message.clone(), here());
    s.run(host, &arrival).await;
    assert_eq!(s.db.parked(&parked_of(&names, true, 10)).await.unwrap().tasks.len(), 3);
}

pub async fn what_is_old_is_forgotten_in_small_batches(s: &Subject) {
    let host = s.host().await;
    let mut ended = Vec::new();
    for n in 0..6 {
        let arrival = arrival();
        let claimed = s.run(host, &arrival).await;
        let end = match n {
            0..=3 => completed(),
            4 => failed(),
            _ => Ended::Cancelled,
        };
        let mut settlement = settlement(&arrival, &claimed, end);
        settlement.logs = vec![line(1, "", "x")];
        settlement.calls = vec![call(1, "x")];
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled);
        ended.push(arrival.message.id);
    }
    let running = arrival();
    s.run(host, &running).await;
    let keep = Retention { completed: LONG, failed: LONG, dead: LONG, audit: LONG };
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 0);
    let keep = Retention { completed: Duration::ZERO, ..keep };
    assert_eq!(s.db.prune(&keep, 3).await.unwrap(), 3);
    assert_eq!(s.db.prune(&keep, 3).await.unwrap(), 1);
    assert_eq!(s.db.prune(&keep, 3).await.unwrap(), 0);
    let keep = Retention { failed: Duration::ZERO, ..keep };
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 2);
    for id in ended {
        assert!(s.db.task(id, Default::default()).await.unwrap().is_none());
    }
    assert_eq!(s.history(running.message.id).await, [Event::Running]);
    for table in ["task_attempts", "task_logs", "task_calls"] {
        assert_eq!(s.back_door.number(&format!("SELECT count(*) FROM {table}")).await, 0);
    }
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_events").await, 1);
    // A host that ended long ago is forgotten, unless something still says that it runs there.
    s.host().await;
    s.set("UPDATE hosts SET lease_until = '2020-01-01T00:00:00.000000Z'").await;
    s.db.prune(&keep, 10).await.unwrap();
    assert_eq!(s.back_door.number("SELECT count(*) FROM hosts").await, 1);
}

pub async fn a_deletion_takes_tasks_until_they_have_too_many_lines(s: &Subject) {
    let host = s.host().await;
    for _ in 0..5 {
        s.end(host, &arrival(), completed()).await;
    }
    s.set("UPDATE tasks SET log_seq = 9000").await;
    let keep = Retention { completed: Duration::ZERO, failed: LONG, dead: LONG, audit: LONG };
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 2);
    // One is deleted, however many lines it has.
    s.set("UPDATE tasks SET log_seq = 90000").await;
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 1);
    s.set("UPDATE tasks SET log_seq = 0").await;
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 2);
}

pub async fn parked_tasks_are_read_until_they_have_too_many_bytes(s: &Subject) {
    let host = s.host().await;
    let input = format!("\"{}\"", "x".repeat(6 << 20));
    for _ in 0..4 {
        s.claim(host, &arrival_of(message(id(), "a", &input, Options::default()), elsewhere(WaitCode::NoSlot))).await;
    }
    let names = ["a".to_owned()];
    assert_eq!(s.db.parked(&parked_of(&names, true, 10)).await.unwrap().tasks.len(), 2);
}

pub async fn a_row_that_cannot_be_read_stops_no_duty(s: &Subject) {
    let host = s.host().await;
    let later = || Options { run_at: Some(at("2999-01-01T00:00:00Z")), ..Options::default() };
    let due = [arrival_with(later(), here()), arrival_with(later(), here())];
    let parked = [1, 2].map(|_| arrival_of(message(id(), "a", "1", Options::default()), elsewhere(WaitCode::NoSlot)));
    for arrival in due.iter().chain(&parked) {
        s.claim(host, arrival).await;
    }
    s.set("UPDATE tasks SET run_at = '2020-01-01T00:00:00.000000Z' WHERE state = 'scheduled'").await;
    // More than a count may be.
    let spoil = |arrival: &Arrival| {
        format!(
            r#"UPDATE tasks SET host_losses = 5000000000, options = '{{"of_a_newer_build": 1}}' WHERE id = '{}'"#,
            arrival.message.id
        )
    };
    s.set(&spoil(&due[0])).await;
    s.set(&spoil(&parked[0])).await;
    assert_eq!(s.db.wake_due(10).await.unwrap(), 1);
    assert_eq!(s.published().await, [due[1].message.id]);
    let found = s.db.parked(&parked_of(&["a".to_owned()], true, 10)).await.unwrap();
    assert_eq!(found.tasks.iter().map(|task| task.message.id).collect::<Vec<_>>(), [parked[1].message.id]);
    assert_eq!(found.unread.iter().map(|unread| unread.id).collect::<Vec<_>>(), [parked[0].message.id]);
    // A batch of claims is answered in spite of it.
    let batch: Vec<Arrival> = [&due[0], &arrival(), &due[1]].map(|a| Arrival { runnable: here(), ..a.clone() }).into();
    let answers = s.db.claim(steady(host), &batch).await.unwrap();
    assert!(matches!(&answers[0], ClaimAnswer::Refused(reason) if reason.contains("host_losses")), "{:?}", answers[0]);
    assert!(answers[1..].iter().all(|a| matches!(a, ClaimAnswer::Run(_) | ClaimAnswer::Mine(_))), "{answers:?}");
}

pub async fn rows_that_cannot_be_read_do_not_stand_before_others(s: &Subject) {
    let host = s.host().await;
    let long_ago = "2020-01-01T00:00:00.000000Z";
    let ahead = Some(at("2999-01-01T00:00:00Z"));
    let later = || Options { run_at: ahead, ..Options::default() };
    let limited = || Options { deadline: ahead, ..Options::default() };
    let spoilt = [0; 3].map(|_| arrival_with(later(), here()));
    let limited_too = [0; 3].map(|_| arrival_with(limited(), elsewhere(WaitCode::NoSlot)));
    let unserved =
        [0; 3].map(|_| arrival_of(message(id(), "nowhere", "1", Options::default()), elsewhere(WaitCode::NoPlugin)));
    for arrival in spoilt.iter().chain(&limited_too).chain(&unserved) {
        s.claim(host, arrival).await;
    }
    // More than a count may be.
    s.set("UPDATE tasks SET host_losses = 5000000000").await;
    let (due, expired) = (arrival_with(later(), here()), arrival_with(limited(), elsewhere(WaitCode::NoSlot)));
    let unknown = arrival_of(message(id(), "nowhere", "1", Options::default()), elsewhere(WaitCode::NoPlugin));
    for arrival in [&due, &expired, &unknown] {
        s.claim(host, arrival).await;
    }
    s.set(&format!("UPDATE tasks SET run_at = '{long_ago}' WHERE state = 'scheduled'")).await;
    s.set(&format!("UPDATE tasks SET deadline = '{long_ago}' WHERE deadline IS NOT NULL")).await;
    assert_eq!(s.db.wake_due(2).await.unwrap(), 1);
    assert_eq!(s.published().await, [due.message.id]);
    assert_eq!(s.db.fail_expired(2).await.unwrap(), 1);
    assert_eq!(s.row(expired.message.id).await.state, State::Failed);
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 2).await.unwrap(), 1);
    assert_eq!(s.row(unknown.message.id).await.state, State::Failed);
}
