//! Replies to producers: due with the end of a task, however it ended, and until they are marked.

use super::*;
use crate::db::conformance::{LONG, arrival_of, here, id, message};
use crate::db::{DeadLetter, Reply, record_dead};
use crate::task::{Arrival, State, TaskId};
use serde_json::json;

/// An arrival whose producer waits for a reply.
fn asked(correlation: &str) -> Arrival {
    let mut message = message(id(), "word-count", r#"{"text":"a b"}"#, Options::default());
    message.reply_to = Some("answers".into());
    message.correlation_id = Some(correlation.into());
    arrival_of(message, here())
}

async fn taken(db: &dyn Db, hold: Duration) -> Vec<Reply> {
    db.take_replies(10, hold).await.unwrap()
}

fn ids(replies: &[Reply]) -> Vec<TaskId> {
    replies.iter().map(|reply| reply.task.id).collect()
}

#[tokio::test]
async fn a_reply_is_due_once_its_task_has_ended_until_it_is_marked() {
    let s = subject().await;
    let host = s.host().await;
    let (waiting, silent) = (asked("c-1"), arrival());
    let claimed = s.run(host, &waiting).await;
    s.end(host, &silent, completed()).await;
    assert!(taken(&*s.db, LONG).await.is_empty(), "one runs, the other's producer waits for nothing");
    s.settle(host, &settlement(&waiting, &claimed, completed())).await;
    // A host that died after it had taken it: it is due again.
    assert_eq!(ids(&taken(&*s.db, Duration::ZERO).await), [waiting.message.id]);
    let replies = taken(&*s.db, LONG).await;
    let [reply] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((&*reply.reply_to, reply.correlation_id.as_deref()), ("answers", Some("c-1")));
    assert_eq!(
        (reply.task.state, reply.task.input.is_some(), reply.task.output.is_some()),
        (State::Completed, true, true)
    );
    assert!(taken(&*s.db, LONG).await.is_empty(), "another host has it");
    s.db.defer_replies(&[waiting.message.id], Duration::ZERO).await.unwrap();
    assert_eq!(taken(&*s.db, LONG).await.len(), 1);
    s.db.replied(&[waiting.message.id]).await.unwrap();
    s.db.defer_replies(&[waiting.message.id], Duration::ZERO).await.unwrap();
    assert!(taken(&*s.db, LONG).await.is_empty(), "it stays marked");
}

#[tokio::test]
async fn every_end_has_its_reply() {
    let s = subject().await;
    let host = s.host().await;
    let cancelled = asked("cancelled");
    s.claim(
        host,
        &Arrival { runnable: crate::db::conformance::elsewhere(crate::task::WaitCode::NoPlugin), ..cancelled.clone() },
    )
    .await;
    s.db.cancel(cancelled.message.id).await.unwrap();
    let rejected = id();
    let letter = DeadLetter {
        reason: "bad_options".into(),
        detail: "options.priority is 10".into(),
        queue: "default".into(),
        task_id: Some(rejected),
        plugin: None,
        body: b"{"[..].into(),
        properties: json!({"reply_to": "answers", "correlation_id": "rejected"}),
        redelivered: false,
    };
    record_dead(&*s.db, &letter).await.unwrap();
    let mut found: Vec<_> =
        taken(&*s.db, LONG).await.into_iter().map(|r| (r.correlation_id.unwrap(), r.task.state)).collect();
    found.sort();
    assert_eq!(found, [("cancelled".to_owned(), State::Cancelled), ("rejected".to_owned(), State::Failed)]);
}

#[tokio::test]
async fn tasks_from_before_the_step_get_no_reply() {
    let s = subject().await;
    let host = s.host().await;
    let old = asked("old");
    s.end(host, &old, completed()).await;
    // As the step leaves them.
    s.set("UPDATE tasks SET reply_due = NULL").await;
    assert!(taken(&*s.db, LONG).await.is_empty());
}
