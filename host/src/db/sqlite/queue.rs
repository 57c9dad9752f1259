//! The embedded queue's tables, in the same file as the tasks: a submitted task and its message are one commit.
//!
//! They are not part of the numbered migrations: only SQLite has them, and the queue makes them when it is opened. Messages
//! are handed over in the order of their ids, so what was handed over before a restart is one number per queue (`handed`),
//! not a mark on every message. A message of a task that has a row names the row; any other is kept byte for byte.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::queue_table::{Changes, Content, NewMessage, StoredMessage, StoredQueue};
use super::super::rows;
use super::many::{Many, json_ids, repeated};
use super::transition::begin;
use crate::task::TaskId;
use crate::task::claim::FENCE;
use serde_json::{Value, json};
use sqlx::{SqliteConnection, query, raw_sql};
use std::collections::HashMap;
use std::sync::Arc;

/// The version of these tables that this build reads and writes (`PRAGMA user_version`).
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS embedded_queues (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    kind   INTEGER NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0,  -- every message up to this id may have been handed over
    UNIQUE (name, kind)
) STRICT;
CREATE TABLE IF NOT EXISTS embedded_messages (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    queue      INTEGER NOT NULL,
    task       TEXT,                    -- the message of this task's row; null: that of properties and body
    properties TEXT,                    -- JSON
    body       BLOB,
    CONSTRAINT a_message_has_a_body CHECK ((task IS NULL) = (properties IS NOT NULL)
        AND (task IS NULL) = (body IS NOT NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS embedded_messages_by_queue ON embedded_messages (queue, id);
CREATE TABLE IF NOT EXISTS embedded_imports (
    file TEXT    NOT NULL PRIMARY KEY,  -- a queue's file of an earlier version
    upto INTEGER NOT NULL               -- every message of it up to this id is in here
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

statements! {
    USER_VERSION = "SELECT user_version FROM pragma_user_version";
}

macro_rules! messages {
    ($size:tt) => {
        concat!(
            "INSERT INTO embedded_messages (queue, properties, body) VALUES ",
            repeated!($size "(?, ?, ?)")
        )
    };
}

/// Statements that need the tables.
pub(super) mod tables {
    use super::repeated;
    statements! {
        DECLARE = "INSERT INTO embedded_queues (name, kind) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        QUEUES = "SELECT q.id, q.name, q.kind, q.handed, count(m.id) AS messages, COALESCE(max(m.id), 0) AS last
            FROM embedded_queues q LEFT JOIN embedded_messages m ON m.queue = q.id GROUP BY q.id ORDER BY q.id";
        TASKS = "INSERT INTO embedded_messages (queue, task) SELECT value ->> 0, value ->> 1 FROM json_each(?1)";
        /// What is appended counts as handed over, since it may be at once: `redelivered` errs on the safe side after a crash.
        HANDED = "UPDATE embedded_queues SET handed = max(handed, (SELECT max(id) FROM embedded_messages))
            WHERE id IN (SELECT value ->> 0 FROM json_each(?1))";
        RAISE = "UPDATE embedded_queues SET handed = max(handed, ?2) WHERE id = ?1";
        MARK = "UPDATE embedded_queues SET handed = ?2 WHERE id = ?1";
        REMOVE = "DELETE FROM embedded_messages WHERE id IN (SELECT value FROM json_each(?1))";
        AFTER = "SELECT id, task, properties, body FROM embedded_messages WHERE queue = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        THESE = "SELECT id, task, properties, body FROM embedded_messages
            WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id";
        UP_TO = "SELECT id FROM embedded_messages WHERE queue = ?1 AND id <= ?2 ORDER BY id";
        MESSAGES_64 = messages!(64);
        MESSAGES_16 = messages!(16);
        MESSAGES_4 = messages!(4);
        MESSAGES_1 = messages!(1);
        IMPORTED = "SELECT COALESCE(max(upto), 0) AS upto FROM embedded_imports WHERE file = ?1";
        IMPORT = "INSERT INTO embedded_imports (file, upto) VALUES (?1, ?2)
            ON CONFLICT (file) DO UPDATE SET upto = excluded.upto";
    }
}

/// What tasks of these ids ask, unless they have ended.
pub(super) mod asked {
    statements! {
        ASKED = "SELECT t.id, t.fence, t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent
            FROM tasks t WHERE t.id IN (SELECT value FROM json_each(?1)) AND t.fingerprint IS NOT NULL
                AND t.state NOT IN ('completed', 'failed', 'cancelled')";
    }
}

const MESSAGES: Many = Many([tables::MESSAGES_64, tables::MESSAGES_16, tables::MESSAGES_4, tables::MESSAGES_1]);

pub(super) async fn create(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let version = query(USER_VERSION).fetch_one(&mut *connection).await?;
    let version = need(version.int("user_version")?, "user_version")?;
    if version > VERSION {
        return Err(Fault::Schema(format!(
            "the embedded queue was written by a newer agentry (version {version}, this one knows {VERSION}); use that one, \
             or another data.dir"
        )));
    }
    if version < VERSION {
        raw_sql(SCHEMA).execute(connection).await?;
    }
    Ok(())
}

pub(super) async fn declare(connection: &mut SqliteConnection, queues: &[(String, i64)]) -> Result<(), Fault> {
    let (mut tx, _) = begin(connection).await?;
    for (name, kind) in queues {
        query(tables::DECLARE).bind(name.as_str()).bind(kind).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

pub(super) async fn queues(connection: &mut SqliteConnection) -> Result<Vec<StoredQueue>, Fault> {
    let rows = query(tables::QUEUES).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(StoredQueue {
                id: need(row.int("id")?, "id")?,
                name: need(row.text("name")?, "name")?,
                kind: need(row.int("kind")?, "kind")?,
                handed: need(row.int("handed")?, "handed")?,
                messages: row.count("messages")?,
                last: need(row.int("last")?, "last")?,
            })
        })
        .collect()
}

/// Append messages of tasks, by queue and task, and return the first one's id; the others follow it.
pub(super) async fn append_tasks(connection: &mut SqliteConnection, rows: &[(&i64, &TaskId)]) -> Result<i64, Fault> {
    let text = serde_json::to_string(rows).map_err(|e| Fault::Defect(format!("messages: {e}")))?;
    let done = query(tables::TASKS).bind(text.as_str()).execute(&mut *connection).await?;
    query(tables::HANDED).bind(text).execute(connection).await?;
    Ok(done.last_insert_rowid() - rows.len() as i64 + 1)
}

async fn append(connection: &mut SqliteConnection, messages: &[NewMessage]) -> Result<i64, Fault> {
    let mut last = 0;
    for (statement, part) in MESSAGES.parts(messages) {
        let mut insert = query(statement);
        for message in part {
            insert = insert.bind(message.queue).bind(message.properties.as_str()).bind(message.body.as_ref());
        }
        last = insert.execute(&mut *connection).await?.last_insert_rowid();
    }
    Ok(last - messages.len() as i64 + 1)
}

/// Up to which id the messages of an earlier version's file are in here.
pub(super) async fn imported(connection: &mut SqliteConnection, file: &str) -> Result<i64, Fault> {
    let row = query(tables::IMPORTED).bind(file).fetch_one(connection).await?;
    need(row.int("upto")?, "upto")
}

/// Append the next messages of an earlier version's file, each with whether it was handed over before.
pub(super) async fn import(
    connection: &mut SqliteConnection,
    file: &str,
    upto: i64,
    messages: &[(NewMessage, bool)],
) -> Result<(), Fault> {
    let (mut tx, _) = begin(connection).await?;
    for (message, handed) in messages {
        let id = append(&mut tx, std::slice::from_ref(message)).await?;
        if *handed {
            query(tables::MARK).bind(message.queue).bind(id).execute(&mut *tx).await?;
        }
    }
    query(tables::IMPORT).bind(file).bind(upto).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Append and remove in one transaction; returns the id of the first message that was appended, which the others follow.
pub(super) async fn change(connection: &mut SqliteConnection, changes: &Changes) -> Result<i64, Fault> {
    let (mut tx, _) = begin(connection).await?;
    let first = append(&mut tx, &changes.append).await?;
    if !changes.append.is_empty() {
        let queues: Vec<_> = changes.append.iter().map(|message| [message.queue]).collect();
        query(tables::HANDED).bind(serde_json::json!(queues).to_string()).execute(&mut *tx).await?;
    }
    if !changes.remove.is_empty() {
        query(tables::REMOVE).bind(serde_json::json!(changes.remove).to_string()).execute(&mut *tx).await?;
    }
    for (queue, handed) in &changes.handed {
        query(tables::RAISE).bind(queue).bind(handed).execute(&mut *tx).await?;
    }
    for (queue, handed) in &changes.handed_exactly {
        query(tables::MARK).bind(queue).bind(handed).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(first)
}

pub(super) async fn read_after(
    connection: &mut SqliteConnection,
    queue: i64,
    after: i64,
    limit: u32,
) -> Result<Vec<StoredMessage>, Fault> {
    let rows = query(tables::AFTER).bind(queue).bind(after).bind(limit).fetch_all(&mut *connection).await?;
    messages(connection, &rows).await
}

pub(super) async fn read(connection: &mut SqliteConnection, ids: &[i64]) -> Result<Vec<StoredMessage>, Fault> {
    let ids = serde_json::json!(ids).to_string();
    let rows = query(tables::THESE).bind(ids).fetch_all(&mut *connection).await?;
    messages(connection, &rows).await
}

async fn messages(
    connection: &mut SqliteConnection,
    rows: &[sqlx::sqlite::SqliteRow],
) -> Result<Vec<StoredMessage>, Fault> {
    let tasks = rows.iter().filter_map(|row| row.id("task").transpose()).collect::<Result<Vec<TaskId>, _>>()?;
    let mut asked = HashMap::new();
    if !tasks.is_empty() {
        for row in query(asked::ASKED).bind(json_ids(tasks)).fetch_all(connection).await? {
            let content = match rows::message(&row) {
                Ok(message) => Content::Task(Arc::new(message), need(row.int("fence")?, "fence")?),
                // Its reader finds out what is wrong with it, as with any other message, and that it has a row.
                Err(Fault::Row(_)) => {
                    let fence = need(row.int("fence")?, "fence")?.to_string();
                    let properties = json!({"message_id": need(row.id("id")?, "id")?, "headers": {(FENCE): fence}});
                    Content::Message { properties: properties.to_string(), body: as_it_stands(&row)?.into() }
                }
                Err(fault) => return Err(fault),
            };
            asked.insert(need(row.id("id")?, "id")?, content);
        }
    }
    rows.iter()
        .map(|row| {
            let content = match row.id("task")? {
                // The same task may have two messages.
                Some(task) => asked.get(&task).cloned().unwrap_or(Content::Gone),
                None => Content::Message {
                    properties: need(row.text("properties")?, "properties")?,
                    body: need(row.bytes("body")?, "body")?.into(),
                },
            };
            Ok(StoredMessage { id: need(row.int("id")?, "id")?, content })
        })
        .collect()
}

/// The message of a task whose row cannot be read, made of its columns.
fn as_it_stands(row: &sqlx::sqlite::SqliteRow) -> Result<String, Fault> {
    let plugin = Value::from(need(row.text("plugin")?, "plugin")?);
    let (input, options) = (need(row.text("input")?, "input")?, need(row.text("options")?, "options")?);
    Ok(format!(r#"{{"id":"{}","plugin":{plugin},"input":{input},"options":{options}}}"#, need(row.id("id")?, "id")?))
}

pub(super) async fn ids_upto(connection: &mut SqliteConnection, queue: i64, upto: i64) -> Result<Vec<i64>, Fault> {
    let rows = query(tables::UP_TO).bind(queue).bind(upto).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.int("id")?, "id")).collect()
}
