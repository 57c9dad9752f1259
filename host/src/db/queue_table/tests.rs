//! The tables themselves, and what the database and the queue do together.

use super::*;
use crate::db::{Db, DbOptions, Fields, NewTask, OutboxBatch, OutboxTake, Submitted, conformance};
use crate::task::{Options, State, TaskId};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::sync::Mutex;
use std::time::Duration;

fn database(folder: &Path) -> SqliteDb {
    SqliteDb::connect(&folder.join("agentry.sqlite"), &DbOptions::default()).unwrap()
}

async fn fresh() -> (tempfile::TempDir, SqliteDb, QueueTable) {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    db.migrate().await.unwrap();
    let table = QueueTable::open(&db, folder.path()).await.unwrap();
    (folder, db, table)
}

fn new(queue: i64, body: &str) -> NewMessage {
    NewMessage { queue, properties: "{}".into(), body: bytes::Bytes::copy_from_slice(body.as_bytes()) }
}

fn text(message: &StoredMessage) -> String {
    match &message.content {
        Content::Message { body, .. } => String::from_utf8(body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Takes tasks of the queue `q`, whose key is 1.
#[derive(Default)]
struct Line(Mutex<Vec<Appended>>);

impl Arrivals for Line {
    fn key(&self, queue: &str) -> Option<i64> {
        (queue == "q").then_some(1)
    }

    fn appended(&self, messages: Vec<Appended>) {
        self.0.lock().unwrap().extend(messages);
    }
}

impl Line {
    fn taken(&self) -> Vec<Appended> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn task(queue: &str, options: Options) -> NewTask {
    let message = conformance::message(conformance::id(), "word-count", r#"{"text":"\ud83d\u0000 é 😀"}"#, options);
    NewTask { message, queue: queue.into(), retry_of: None, max_attempts: 3 }
}

async fn outbox(db: &SqliteDb) -> OutboxBatch {
    db.take_outbox(&OutboxTake::new(100, Duration::from_secs(60))).await.unwrap()
}

#[tokio::test]
async fn messages_come_back_in_order_and_go_when_removed() {
    let (_folder, _db, table) = fresh().await;
    table.declare(&[("a".into(), 0), ("b".into(), 0), ("a".into(), 0)]).await.unwrap();
    let append = (0..123).map(|i| new(1 + i % 2, &i.to_string())).collect();
    table.write(Changes { append, ..Changes::default() }, None).await.unwrap();
    let all = table.read_after(1, 0, 1000).await.unwrap();
    assert_eq!(
        all.iter().map(text).collect::<Vec<_>>(),
        (0..123).step_by(2).map(|i| i.to_string()).collect::<Vec<_>>()
    );
    let handed_exactly = vec![(1, all[2].id)];
    let changes = Changes { remove: vec![all[0].id, all[1].id], handed_exactly, ..Changes::default() };
    table.write(changes, None).await.unwrap();
    assert_eq!(table.ids_upto(1, all[2].id).await.unwrap(), [all[2].id]);
    assert_eq!(table.read(vec![all[1].id, all[2].id]).await.unwrap(), all[2..3]);
    let queues = table.queues().await.unwrap();
    assert_eq!((queues[0].messages, queues[0].handed, queues[0].last), (60, all[2].id, 123));
    assert_eq!((queues[1].messages, queues[1].last), (61, 122));
}

#[tokio::test]
async fn appended_messages_are_reported_after_the_commit_with_their_ids() {
    let (_folder, _db, table) = fresh().await;
    table.declare(&[("q".into(), 0)]).await.unwrap();
    let line = Arc::new(Line::default());
    for n in [1, 3, 70] {
        let append = (0..n).map(|i| new(1, &i.to_string())).collect();
        table.write(Changes { append, ..Changes::default() }, Some(line.clone())).await.unwrap();
    }
    let stored = table.read_after(1, 0, 1000).await.unwrap();
    let appended: Vec<_> = line.taken().into_iter().map(|a| StoredMessage { id: a.id, content: a.content }).collect();
    assert_eq!(appended, stored);
    assert_eq!(stored.len(), 74);
}

#[tokio::test]
async fn a_message_that_was_removed_is_not_in_the_file() {
    let (folder, db, table) = fresh().await;
    table.declare(&[("a".into(), 0)]).await.unwrap();
    let append = vec![new(1, &"hunter2 ".repeat(4_000))];
    table.write(Changes { append, ..Changes::default() }, None).await.unwrap();
    table.write(Changes { remove: vec![1], ..Changes::default() }, None).await.unwrap();
    db.close().await;
    let file = std::fs::read(folder.path().join("agentry.sqlite")).unwrap();
    assert_eq!(file.windows(7).filter(|bytes| bytes == b"hunter2").count(), 0);
}

#[tokio::test]
async fn an_id_is_never_used_twice() {
    let (folder, db, table) = fresh().await;
    table.declare(&[("a".into(), 0)]).await.unwrap();
    table.write(Changes { append: vec![new(1, "x")], ..Changes::default() }, None).await.unwrap();
    table.write(Changes { remove: vec![1], ..Changes::default() }, None).await.unwrap();
    db.close().await;
    let table = QueueTable::open(&database(folder.path()), folder.path()).await.unwrap();
    table.write(Changes { append: vec![new(1, "y")], ..Changes::default() }, None).await.unwrap();
    assert_eq!(table.read_after(1, 0, 9).await.unwrap()[0].id, 2);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let (folder, _db, _table) = fresh().await;
    let file = SqliteConnectOptions::new().filename(folder.path().join("agentry.sqlite"));
    let mut connection = file.connect().await.unwrap();
    sqlx::query("PRAGMA user_version = 7").execute(&mut connection).await.unwrap();
    let error = QueueTable::open(&database(folder.path()), folder.path()).await.unwrap_err();
    assert!(matches!(&error, DbError::Schema(text) if text.contains("version 7")), "{error}");
}

#[tokio::test]
async fn a_submitted_task_is_appended_in_its_own_transaction_without_the_outbox() {
    let (_folder, db, table) = fresh().await;
    table.declare(&[("q".into(), 0)]).await.unwrap();
    let line = Arc::new(Line::default());
    table.attach(line.clone());
    let later = Options { run_at: Some(chrono::Utc::now() + chrono::TimeDelta::hours(1)), ..Options::default() };
    let batch = [task("q", Options::default()), task("elsewhere", Options::default()), task("q", later)];
    assert_eq!(db.submit(&batch).await.unwrap(), [Submitted::Created; 3]);
    let appended = line.taken();
    assert_eq!(appended.len(), 1);
    // At hand and in the table it is the task as it was submitted, byte for byte.
    let stored = table.read_after(1, 0, 10).await.unwrap();
    assert_eq!((stored[0].id, &stored[0].content), (appended[0].id, &appended[0].content));
    let Content::Task(message, 0) = &stored[0].content else { panic!("{stored:?}") };
    assert_eq!((&message.input, message.fingerprint), (&batch[0].message.input, batch[0].message.fingerprint));
    // A queue that is not declared here is left to the relay, and what is ahead of its time is not sent.
    let outbox: Vec<TaskId> = outbox(&db).await.rows.iter().map(|row| row.id).collect();
    assert_eq!(outbox, [batch[1].message.id]);
    // A repetition appends nothing, and a conflict neither.
    assert_eq!(db.submit(&batch[..1]).await.unwrap(), [Submitted::Exists]);
    let mut conflict = batch[0].clone();
    conflict.message.fingerprint = [0; 32];
    assert_eq!(db.submit(&[task("q", Options::default()), conflict]).await.unwrap()[1], Submitted::Conflict);
    assert!(line.taken().is_empty());
    assert_eq!(table.queues().await.unwrap()[0].messages, 1);
}

#[tokio::test]
async fn a_message_of_an_ended_task_is_reported_as_gone() {
    let (_folder, db, table) = fresh().await;
    table.declare(&[("q".into(), 0)]).await.unwrap();
    table.attach(Arc::new(Line::default()));
    let batch = [task("q", Options::default()), task("q", Options::default())];
    db.submit(&batch).await.unwrap();
    db.cancel(batch[0].message.id).await.unwrap();
    let stored = table.read_after(1, 0, 10).await.unwrap();
    let gone: Vec<bool> = stored.iter().map(|message| message.content == Content::Gone).collect();
    let first = batch.iter().map(|task| task.message.id).min() == Some(batch[0].message.id);
    assert_eq!(gone, [first, !first]);
}

#[tokio::test]
async fn message_of_a_task_that_cannot_be_read_says_that_it_has_a_row() {
    let (folder, db, table) = fresh().await;
    table.declare(&[("q".into(), 0)]).await.unwrap();
    table.attach(Arc::new(Line::default()));
    let task = task("q", Options::default());
    db.submit(std::slice::from_ref(&task)).await.unwrap();
    let file = SqliteConnectOptions::new().filename(folder.path().join("agentry.sqlite"));
    let newer = r#"UPDATE tasks SET options = '{"of_a_newer_build": 1}'"#;
    sqlx::raw_sql(newer).execute(&mut file.connect().await.unwrap()).await.unwrap();
    let stored = table.read_after(1, 0, 10).await.unwrap().remove(0);
    let Content::Message { properties, body } = stored.content else { panic!("{stored:?}") };
    let properties: serde_json::Value = serde_json::from_str(&properties).unwrap();
    assert_eq!(properties["message_id"], task.message.id.to_string());
    assert_eq!(properties["headers"][crate::task::claim::FENCE], "0");
    assert!(String::from_utf8_lossy(&body).contains("of_a_newer_build"));
}

#[tokio::test]
async fn interrupted_and_due_tasks_are_appended_too() {
    let (_folder, db, table) = fresh().await;
    table.declare(&[("q".into(), 0)]).await.unwrap();
    let line = Arc::new(Line::default());
    table.attach(line.clone());
    let host = conformance::id();
    let message = conformance::message(conformance::id(), "word-count", "{}", Options::default());
    let mut arrival = conformance::arrival_of(message, conformance::here());
    arrival.queue = "q".into();
    let answer = db.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap().remove(0);
    let crate::db::ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
    let interrupted = crate::task::Ended::Interrupted { reason: "as asked".into() };
    db.settle(host, &[conformance::settlement(&arrival, &claimed, interrupted)]).await.unwrap();
    let row = db.task(arrival.message.id, Fields::default()).await.unwrap().unwrap();
    assert_eq!(row.state, State::Pending);
    let [appended] = &line.taken()[..] else { panic!("one message") };
    assert_eq!(appended.content, Content::Stored);
    let stored = table.read(vec![appended.id]).await.unwrap();
    assert!(matches!(&stored[0].content, Content::Task(task, _) if task.id == arrival.message.id), "{stored:?}");
    assert!(outbox(&db).await.rows.is_empty());
}

/// A file as the last version left it when it was killed: two queues, of which one has handed over two messages.
async fn old_file(folder: &Path, messages: usize) {
    let elsewhere = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(elsewhere.path().join("queue.sqlite"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let mut connection: SqliteConnection = options.connect().await.unwrap();
    let schema = "CREATE TABLE queues (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind INTEGER NOT NULL,
            handed INTEGER NOT NULL DEFAULT 0, UNIQUE (name, kind)) STRICT;
        CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL REFERENCES queues (id),
            properties TEXT NOT NULL, body BLOB NOT NULL) STRICT;
        INSERT INTO queues (id, name, kind, handed) VALUES (4, 'q', 0, 12), (5, 'q', 2, 0);
        PRAGMA user_version = 1";
    sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    for n in 0..messages {
        sqlx::query("INSERT INTO messages (id, queue, properties, body) VALUES (?, ?, '{\"reply_to\":\"r\"}', ?)")
            .bind(n as i64 + 11)
            .bind(if n % 100 == 99 { 5 } else { 4 })
            .bind(n.to_string().into_bytes())
            .execute(&mut connection)
            .await
            .unwrap();
    }
    // Before it is closed, so that most of it is still in the write-ahead log.
    for name in ["queue.sqlite", "queue.sqlite-wal"] {
        std::fs::copy(elsewhere.path().join(name), folder.join(name)).unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn messages_of_an_earlier_versions_file_are_taken_over_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    old_file(folder.path(), 1_200).await;
    let db = database(folder.path());
    let table = QueueTable::open(&db, folder.path()).await.unwrap();
    let queues = table.queues().await.unwrap();
    let tasks = queues.iter().find(|queue| queue.kind == 0).unwrap();
    let dead = queues.iter().find(|queue| queue.kind == 2).unwrap();
    assert_eq!((tasks.messages, dead.messages), (1_188, 12));
    let bodies: Vec<usize> =
        table.read_after(tasks.id, 0, 2_000).await.unwrap().iter().map(|m| text(m).parse().unwrap()).collect();
    assert_eq!(bodies, (0..1_200).filter(|n| n % 100 != 99).collect::<Vec<_>>());
    // Those that were handed over before still say so, and no others.
    assert_eq!(table.ids_upto(tasks.id, tasks.handed).await.unwrap().len(), 2);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("agentry.sqlite")), "{left:?}");
    // Opened again, there is nothing more to take over.
    let table = QueueTable::open(&database(folder.path()), folder.path()).await.unwrap();
    assert_eq!(table.queues().await.unwrap(), queues);
}

#[tokio::test]
async fn a_take_over_that_died_half_way_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    old_file(folder.path(), 1_200).await;
    let db = database(folder.path());
    // Renamed, and the first part committed: so much was done by the process that died.
    let mut old = SqliteConnectOptions::new().filename(folder.path().join("queue.sqlite")).connect().await.unwrap();
    sqlx::raw_sql("PRAGMA journal_mode = DELETE").execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    std::fs::rename(folder.path().join("queue.sqlite"), folder.path().join("queue-1.old")).unwrap();
    db.create_queues().await.unwrap();
    db.declare_queues(&[("q".into(), 0), ("q".into(), 2)]).await.unwrap();
    let part = (0..500).filter(|n| n % 100 != 99).map(|n| (new(1, &n.to_string()), n < 2)).collect();
    db.import("queue-1.old".into(), 510, part).await.unwrap();
    let table = QueueTable::open(&db, folder.path()).await.unwrap();
    let mut connection =
        SqliteConnectOptions::new().filename(folder.path().join("agentry.sqlite")).connect().await.unwrap();
    let statement = "SELECT count(*), count(DISTINCT body) FROM embedded_messages";
    let row = sqlx::query(statement).fetch_one(&mut connection).await.unwrap();
    // The dead letters of the first part are left out above.
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (1_195, 1_195));
    assert_eq!(table.ids_upto(1, table.queues().await.unwrap()[0].handed).await.unwrap().len(), 2);
}
