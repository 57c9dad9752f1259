//! The outbox and its tokens.

use super::subject::*;
use crate::db::{NewTask, OutboxReason, OutboxTake};
use crate::task::message::Envelope;
use crate::task::{Event, Options, TaskMessage, WaitCode};
use std::time::Duration;

async fn submitted(s: &Subject) -> NewTask {
    let task = new_task(id(), Options::default());
    s.db.submit(std::slice::from_ref(&task)).await.unwrap();
    task
}

pub async fn a_row_is_held_under_its_token_and_dropped_by_it(s: &Subject) {
    let (first, second) = (submitted(s).await, submitted(s).await);
    let one = s.db.take_outbox(&OutboxTake::new(1, LONG)).await.unwrap();
    let other = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    assert_eq!(one.rows.iter().map(|r| r.id).collect::<Vec<_>>(), [first.message.id]);
    assert_eq!(other.rows.iter().map(|r| r.id).collect::<Vec<_>>(), [second.message.id]);
    assert_ne!(one.token, other.token);
    assert!(s.published().await.is_empty());
    // Not the holder.
    s.db.drop_outbox(one.token, &[second.message.id]).await.unwrap();
    assert_eq!(s.waits(second.message.id).await, Some(WaitCode::NotPublished));
    s.db.drop_outbox(other.token, &[second.message.id]).await.unwrap();
    assert_eq!(s.waits(second.message.id).await, Some(WaitCode::Queued));
    assert_eq!(s.waits(first.message.id).await, Some(WaitCode::NotPublished));
}

pub async fn a_hold_that_runs_out_makes_the_row_due_again(s: &Subject) {
    let task = submitted(s).await;
    let lapsed = s.db.take_outbox(&OutboxTake::new(10, Duration::ZERO)).await.unwrap();
    assert_eq!(lapsed.rows.len(), 1);
    let held = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    assert_eq!(held.rows.len(), 1);
    s.db.drop_outbox(lapsed.token, &[task.message.id]).await.unwrap();
    s.db.defer_outbox(lapsed.token, &[task.message.id], OutboxReason::Unroutable, Duration::ZERO).await.unwrap();
    assert_eq!(s.waits(task.message.id).await, Some(WaitCode::NotPublished));
    assert!(s.published().await.is_empty());
}

pub async fn a_deferred_row_says_why_and_comes_back(s: &Subject) {
    let task = submitted(s).await;
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    assert_eq!(batch.rows[0].deferred, 0);
    let ids = [task.message.id];
    s.db.defer_outbox(batch.token, &ids, OutboxReason::Unroutable, LONG).await.unwrap();
    assert_eq!(s.waits(task.message.id).await, Some(WaitCode::Unroutable));
    assert!(s.published().await.is_empty());
    s.set("UPDATE outbox SET due_at = '2020-01-01T00:00:00.000000Z'").await;
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    assert_eq!(batch.rows[0].deferred, 1);
    s.db.defer_outbox(batch.token, &ids, OutboxReason::NotPublished, Duration::ZERO).await.unwrap();
    assert_eq!(s.waits(task.message.id).await, Some(WaitCode::NotPublished));
    assert_eq!(s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap().rows[0].deferred, 2);
}

pub async fn a_drop_does_not_take_what_was_queued_anew(s: &Subject) {
    let host = s.host().await;
    let task = submitted(s).await;
    let published = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    // Published, delivered, run, and due again, before the relay comes to drop its row.
    let arrival = arrival_of(task.message.clone(), here());
    s.end(host, &arrival, retrying()).await;
    assert_eq!(s.db.wake_due(10).await.unwrap(), 1);
    s.db.drop_outbox(published.token, &[task.message.id]).await.unwrap();
    assert_eq!(s.published().await, [task.message.id]);
    // The same with an interruption.
    let claimed = s.run(host, &arrival).await;
    let published = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    let interrupted = crate::task::settle::Ended::Interrupted { reason: "stop".into() };
    s.settle(host, &settlement(&arrival, &claimed, interrupted)).await;
    s.db.drop_outbox(published.token, &[task.message.id]).await.unwrap();
    assert_eq!(s.published().await, [task.message.id]);
}

pub async fn a_message_from_the_outbox_is_the_one_that_was_submitted(s: &Subject) {
    let options = Options {
        timeout_seconds: Some(30),
        max_attempts: Some(2),
        priority: Some(9),
        run_at: Some(at("2020-01-01T00:00:00.123456789Z")),
        deadline: Some(at("2999-01-01T00:00:00Z")),
        labels: [("é".to_owned(), "\"".to_owned())].into(),
    };
    let mut message = message(id(), "word-count@>=0.1, <2", "{\"b\":1, \"a\" :[1.0] }", options);
    message.reply_to = Some("answers".into());
    message.correlation_id = Some("c-1".into());
    message.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    let task = NewTask { message, ..new_task(id(), Options::default()) };
    s.db.submit(std::slice::from_ref(&task)).await.unwrap();
    let row = s.db.take_outbox(&OutboxTake::new(1, LONG)).await.unwrap().rows.remove(0);
    assert_eq!(row.message, task.message);
    assert_eq!(row.queue, "default");
    let body = row.message.encode();
    let decoded = TaskMessage::decode(&Envelope { body: &body, ..Envelope::default() }, &Default::default()).unwrap();
    assert_eq!(decoded.fingerprint, task.message.fingerprint);
    let read = s.row(row.id).await;
    assert_eq!((read.plugin, read.traceparent), (task.message.plugin.to_string(), task.message.traceparent.clone()));
    // What comes back from the broker is recognised.
    let host = s.host().await;
    s.run(host, &arrival_of(decoded, here())).await;
    assert_eq!(s.history(row.id).await, [Event::Pending, Event::Running]);
}

pub async fn an_ended_task_is_not_published(s: &Subject) {
    let host = s.host().await;
    let task = submitted(s).await;
    // Its delivery came by another way, and it ended before the relay looked.
    s.end(host, &arrival_of(task.message, here()), completed()).await;
    assert!(s.published().await.is_empty());
    assert_eq!(s.back_door.number("SELECT count(*) FROM outbox").await, 0);
}

fn large() -> TaskMessage {
    message(id(), "word-count", &format!("\"{}\"", "x".repeat(1_000)), Options::default())
}

pub async fn a_batch_of_large_rows_is_cut(s: &Subject) {
    let tasks: Vec<NewTask> =
        (0..5).map(|_| NewTask { message: large(), ..new_task(id(), Options::default()) }).collect();
    s.db.submit(&tasks).await.unwrap();
    let take = OutboxTake { bytes: 2_500, ..OutboxTake::new(10, LONG) };
    let batch = s.db.take_outbox(&take).await.unwrap();
    assert_eq!((batch.rows.len(), batch.more), (2, true));
    // One is taken, however large it is.
    let batch = s.db.take_outbox(&OutboxTake { bytes: 1, ..take.clone() }).await.unwrap();
    assert_eq!((batch.rows.len(), batch.more), (1, true));
    let batch = s.db.take_outbox(&take).await.unwrap();
    assert_eq!((batch.rows.len(), batch.more), (2, false));
    assert!(s.published().await.is_empty());
}

pub async fn rows_of_a_queue_that_rests_are_set_aside(s: &Subject) {
    let other = NewTask { queue: "other".into(), ..new_task(id(), Options::default()) };
    s.db.submit(std::slice::from_ref(&other)).await.unwrap();
    let task = submitted(s).await;
    let aside = vec![("other".to_owned(), OutboxReason::Unroutable)];
    let batch = s.db.take_outbox(&OutboxTake { aside, rest: LONG, ..OutboxTake::new(10, LONG) }).await.unwrap();
    assert_eq!((batch.rows.len(), batch.aside, batch.more), (1, 1, false));
    assert_eq!(batch.rows[0].id, task.message.id);
    assert_eq!(s.waits(other.message.id).await, Some(WaitCode::Unroutable));
    assert!(s.published().await.is_empty());
    s.set("UPDATE outbox SET due_at = '2020-01-01T00:00:00.000000Z'").await;
    assert_eq!(s.published().await.len(), 2);
}

pub async fn a_hold_can_be_extended_by_its_holder_alone(s: &Subject) {
    let task = submitted(s).await;
    let ids = [task.message.id];
    let batch = s.db.take_outbox(&OutboxTake::new(10, Duration::ZERO)).await.unwrap();
    s.db.hold_outbox(id(), &ids, LONG).await.unwrap();
    let batch2 = s.db.take_outbox(&OutboxTake::new(10, Duration::ZERO)).await.unwrap();
    assert_eq!(batch2.rows.len(), batch.rows.len());
    s.db.hold_outbox(batch2.token, &ids, LONG).await.unwrap();
    assert!(s.published().await.is_empty());
}

pub async fn a_search_from_a_time_finds_what_was_due_since(s: &Subject) {
    let none = s.db.take_outbox(&OutboxTake::new(10, Duration::ZERO)).await.unwrap();
    assert_eq!((none.rows.len(), none.first_due), (0, None));
    let before = s.db.ping().await.unwrap() - chrono::TimeDelta::minutes(1);
    let (first, second) = (submitted(s).await, submitted(s).await);
    let from = OutboxTake { from: Some(before), ..OutboxTake::new(10, Duration::ZERO) };
    let all = s.db.take_outbox(&from).await.unwrap();
    assert_eq!(all.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [first.message.id, second.message.id]);
    let first_due = all.first_due.expect("rows were found");
    assert!(first_due > before && first_due <= s.db.ping().await.unwrap());
    let again = OutboxTake { from: Some(first_due), ..from };
    assert_eq!(s.db.take_outbox(&again).await.unwrap().rows.len(), 2, "a bound is within the search");
}

pub async fn a_row_that_cannot_be_read_is_held_apart_from_its_neighbours(s: &Subject) {
    let (first, spoilt, last) = (submitted(s).await, submitted(s).await, submitted(s).await);
    s.set(&format!(r#"UPDATE tasks SET options = '{{"of_a_newer_build": 1}}' WHERE id = '{}'"#, spoilt.message.id))
        .await;
    let batch = s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap();
    assert_eq!(batch.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [first.message.id, last.message.id]);
    assert_eq!(batch.unread.len(), 1);
    assert!(batch.unread[0].id == spoilt.message.id && batch.unread[0].reason.contains("of_a_newer_build"));
    s.db.defer_outbox(batch.token, &[spoilt.message.id], OutboxReason::NotPublished, LONG).await.unwrap();
    assert!(s.db.take_outbox(&OutboxTake::new(10, LONG)).await.unwrap().unread.is_empty(), "it rests");
}
