//! What an operator asks about the database itself. Called by the tests of each database that can be asked.

use super::subject::*;
use crate::db::{Db, DeadLetter, Examiner, record_dead};
use crate::task::{Options, WaitCode};
use serde_json::json;

/// From an empty database to one with two running tasks, a parked one and a dead letter. Returns nothing that needs care.
pub async fn examined(db: &dyn Db, examiner: &dyn Examiner) {
    let before = examiner.schema().await.unwrap();
    assert_eq!(before.found, 0);
    db.migrate().await.unwrap();
    let after = examiner.schema().await.unwrap();
    assert_eq!((after.found, after.known), (before.known, before.known));
    let server = examiner.server().await.unwrap();
    assert!(server.encoding.starts_with("UTF") && !server.read_only && !server.database.is_empty(), "{server:?}");

    assert_eq!(examiner.waiting().await.unwrap(), []);
    assert_eq!(examiner.running().await.unwrap(), []);
    assert_eq!(examiner.letters().await.unwrap().oldest, None);
    let host = record();
    db.register_host(&host, LONG).await.unwrap();
    let parked = arrival_with(Options::default(), elsewhere(WaitCode::NoPlugin));
    db.claim(steady(host.id), &[arrival(), arrival(), parked]).await.unwrap();
    let letter = DeadLetter {
        reason: "not_json".into(),
        detail: "line 1, column 2".into(),
        queue: "default".into(),
        task_id: None,
        plugin: None,
        body: b"{"[..].into(),
        properties: json!({}),
        redelivered: false,
    };
    record_dead(db, &letter).await.unwrap();
    let running = examiner.running().await.unwrap();
    assert_eq!(running.iter().map(|of| (of.host, of.tasks)).collect::<Vec<_>>(), [(host.id, 2)]);
    let waiting = examiner.waiting().await.unwrap();
    assert_eq!(waiting.iter().map(|of| (of.code.as_str(), of.tasks)).collect::<Vec<_>>(), [("no_plugin", 1)]);
    let letters = examiner.letters().await.unwrap();
    assert!(letters.unpublished == 1 && letters.oldest.is_some(), "{letters:?}");
    let tables = examiner.tables().await.unwrap();
    assert!(tables.iter().any(|table| table.table == "tasks" && table.bytes > 0), "{tables:?}");
    assert_eq!(examiner.invalid_indexes().await.unwrap(), Vec::<String>::new());
    assert_eq!(examiner.damage().await.unwrap(), Vec::<String>::new());
}

/// A due task that nothing wakes: `age` makes its time pass.
pub async fn late(db: &dyn Db, examiner: &dyn Examiner, age: impl AsyncFn(&str)) {
    let host = record();
    let at = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let later = arrival_with(Options { run_at: Some(at), ..Options::default() }, here());
    db.claim(steady(host.id), std::slice::from_ref(&later)).await.unwrap();
    let codes = async || examiner.waiting().await.unwrap().into_iter().map(|of| of.code).collect::<Vec<_>>();
    assert!(!codes().await.contains(&"scheduled".to_owned()), "it waits for its time");
    age("UPDATE tasks SET run_at = '2020-01-01T00:00:00.000000Z' WHERE state = 'scheduled'").await;
    assert!(codes().await.contains(&"scheduled".to_owned()), "its time has passed");
}
