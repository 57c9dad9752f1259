//! The embedded queue's tables, in a SQLite file of their own (`queue.sqlite`): messages and queues, nothing of tasks.
//!
//! They are not part of the numbered migrations: the file belongs to one process and one version at a time, and makes
//! its own schema. Messages are handed over in the order of their ids, so what was handed over before a restart is one
//! number per queue (`handed`), not a mark on every message.

use super::DbError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, SqlitePool};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// The version that this build reads and writes (`PRAGMA user_version`).
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS queues (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    kind   INTEGER NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (name, kind)
) STRICT;
CREATE TABLE IF NOT EXISTS messages (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    queue      INTEGER NOT NULL REFERENCES queues (id),
    properties TEXT NOT NULL,
    body       BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue, id);
";

/// Rows of one `INSERT`; four parameters each, well below SQLite's 32,766.
const ROWS: usize = 50;
const INSERT: &str = "INSERT INTO messages (queue, properties, body) VALUES (?, ?, ?)";
static INSERT_MANY: LazyLock<&'static str> = LazyLock::new(|| {
    // Made once and kept for the life of the process, so that it is as static as the others.
    String::leak(format!("{INSERT}{}", ", (?, ?, ?)".repeat(ROWS - 1)))
});

/// A queue: `id` in the table, its logical name, and which of its companions it is (the broker knows the numbers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    /// Its key.
    pub id: i64,
    /// The logical name.
    pub name: String,
    /// Tasks, returned, dead.
    pub kind: i64,
    /// Every message up to this id was handed over at least once.
    pub handed: i64,
    /// How many messages it has.
    pub messages: u32,
}

/// A message to be appended.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The queue's key.
    pub queue: i64,
    /// JSON.
    pub properties: String,
    /// The body, as it is.
    pub body: bytes::Bytes,
}

/// A message in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its id: order of arrival.
    pub id: i64,
    /// JSON.
    pub properties: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Append, in order.
    pub append: Vec<NewMessage>,
    /// Remove these ids: acknowledged.
    pub remove: Vec<i64>,
    /// Raise `handed` of a queue (by key) to this id.
    pub handed: Vec<(i64, i64)>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct QueueTable {
    pool: SqlitePool,
}

impl QueueTable {
    /// Open or create the file. Commits are durable when they answer (WAL, `synchronous=FULL`).
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON") // a message that is acknowledged does not stay in free pages
            .busy_timeout(Duration::from_secs(5));
        // One writes, one reads ahead.
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await
            .map_err(|e| DbError::Refused(format!("opening {}: {e}", path.display())))?;
        let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&pool).await.map_err(classify)?.get(0);
        if version > VERSION {
            return Err(DbError::Schema(format!(
                "{} was written by a newer agentry (version {version}, this one knows {VERSION}); use that one, or another data.dir",
                path.display()
            )));
        }
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(classify)?;
        sqlx::query("PRAGMA user_version = 1").execute(&pool).await.map_err(classify)?;
        Ok(QueueTable { pool })
    }

    /// Enter queues by name and kind; those that exist stay as they are.
    pub async fn declare(&self, queues: &[(String, i64)]) -> Result<(), DbError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
        for (name, kind) in queues {
            sqlx::query("INSERT INTO queues (name, kind) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(name)
                .bind(kind)
                .execute(&mut *tx)
                .await
                .map_err(classify)?;
        }
        tx.commit().await.map_err(classify)
    }

    /// Every queue.
    pub async fn queues(&self) -> Result<Vec<StoredQueue>, DbError> {
        let rows = sqlx::query(
            "SELECT q.id, q.name, q.kind, q.handed, (SELECT count(*) FROM messages m WHERE m.queue = q.id) \
             FROM queues q ORDER BY q.id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(classify)?;
        Ok(rows
            .iter()
            .map(|row| StoredQueue {
                id: row.get(0),
                name: row.get(1),
                kind: row.get(2),
                handed: row.get(3),
                messages: u32::try_from(row.get::<i64, _>(4)).unwrap_or(u32::MAX),
            })
            .collect())
    }

    /// Write everything in one transaction.
    pub async fn write(&self, changes: &Changes) -> Result<(), DbError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
        let (many, rest) = changes.append.as_chunks::<ROWS>();
        let statements = many.iter().map(|rows| (*INSERT_MANY, rows.as_slice()));
        for (statement, rows) in statements.chain(rest.iter().map(|row| (INSERT, std::slice::from_ref(row)))) {
            let mut query = sqlx::query(statement);
            for row in rows {
                query = query.bind(row.queue).bind(row.properties.as_str()).bind(row.body.as_ref());
            }
            query.execute(&mut *tx).await.map_err(classify)?;
        }
        if !changes.remove.is_empty() {
            sqlx::query("DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))")
                .bind(serde_json::json!(changes.remove).to_string())
                .execute(&mut *tx)
                .await
                .map_err(classify)?;
        }
        for (queue, handed) in &changes.handed {
            sqlx::query("UPDATE queues SET handed = max(handed, ?) WHERE id = ?")
                .bind(handed)
                .bind(queue)
                .execute(&mut *tx)
                .await
                .map_err(classify)?;
        }
        tx.commit().await.map_err(classify)
    }

    /// Messages of a queue after an id, oldest first.
    pub async fn read_after(&self, queue: i64, after: i64, limit: u32) -> Result<Vec<StoredMessage>, DbError> {
        let rows =
            sqlx::query("SELECT id, properties, body FROM messages WHERE queue = ? AND id > ? ORDER BY id LIMIT ?")
                .bind(queue)
                .bind(after)
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(classify)?;
        Ok(rows.iter().map(message).collect())
    }

    /// One message.
    pub async fn read(&self, id: i64) -> Result<Option<StoredMessage>, DbError> {
        let row = sqlx::query("SELECT id, properties, body FROM messages WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(classify)?;
        Ok(row.as_ref().map(message))
    }

    /// The ids of a queue up to and including one.
    pub async fn ids_upto(&self, queue: i64, upto: i64) -> Result<Vec<i64>, DbError> {
        let rows = sqlx::query("SELECT id FROM messages WHERE queue = ? AND id <= ? ORDER BY id")
            .bind(queue)
            .bind(upto)
            .fetch_all(&self.pool)
            .await
            .map_err(classify)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Close the file; its write-ahead log is merged into it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn message(row: &SqliteRow) -> StoredMessage {
    StoredMessage { id: row.get(0), properties: row.get(1), body: row.get(2) }
}

fn classify(error: sqlx::Error) -> DbError {
    match &error {
        sqlx::Error::Database(e) if e.code().is_some_and(|code| matches!(&*code, "1" | "20" | "25")) => {
            DbError::Defect(error.to_string())
        }
        _ => DbError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fresh() -> (tempfile::TempDir, QueueTable) {
        let folder = tempfile::tempdir().unwrap();
        let table = QueueTable::open(&folder.path().join("queue.sqlite")).await.unwrap();
        (folder, table)
    }

    fn new(queue: i64, body: &str) -> NewMessage {
        NewMessage { queue, properties: "{}".into(), body: bytes::Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[tokio::test]
    async fn messages_come_back_in_order_and_go_when_removed() {
        let (_folder, table) = fresh().await;
        table.declare(&[("a".into(), 0), ("b".into(), 0), ("a".into(), 0)]).await.unwrap();
        let append = (0..123).map(|i| new(1 + i % 2, &i.to_string())).collect();
        table.write(&Changes { append, ..Changes::default() }).await.unwrap();
        let all = table.read_after(1, 0, 1000).await.unwrap();
        let bodies: Vec<String> = all.iter().map(|m| String::from_utf8(m.body.clone()).unwrap()).collect();
        assert_eq!(bodies, (0..123).step_by(2).map(|i| i.to_string()).collect::<Vec<_>>());
        let changes =
            Changes { remove: vec![all[0].id, all[1].id], handed: vec![(1, all[2].id)], ..Changes::default() };
        table.write(&changes).await.unwrap();
        assert_eq!(table.ids_upto(1, all[2].id).await.unwrap(), [all[2].id]);
        let queues = table.queues().await.unwrap();
        assert_eq!((queues[0].messages, queues[0].handed), (60, all[2].id));
        assert_eq!((queues[1].messages, queues[1].handed), (61, 0));
    }

    #[tokio::test]
    async fn what_was_removed_is_not_in_the_file_either() {
        let (folder, table) = fresh().await;
        table.declare(&[("a".into(), 0)]).await.unwrap();
        let append = vec![new(1, &"hunter2 ".repeat(4_000))];
        table.write(&Changes { append, ..Changes::default() }).await.unwrap();
        table.write(&Changes { remove: vec![1], ..Changes::default() }).await.unwrap();
        table.close().await;
        let file = std::fs::read(folder.path().join("queue.sqlite")).unwrap();
        assert_eq!(file.windows(7).filter(|bytes| bytes == b"hunter2").count(), 0);
    }

    #[tokio::test]
    async fn an_id_is_never_used_twice() {
        let (folder, table) = fresh().await;
        table.declare(&[("a".into(), 0)]).await.unwrap();
        table.write(&Changes { append: vec![new(1, "x")], ..Changes::default() }).await.unwrap();
        table.write(&Changes { remove: vec![1], handed: vec![(1, 1)], ..Changes::default() }).await.unwrap();
        table.close().await;
        let table = QueueTable::open(&folder.path().join("queue.sqlite")).await.unwrap();
        table.write(&Changes { append: vec![new(1, "y")], ..Changes::default() }).await.unwrap();
        assert_eq!(table.read_after(1, 0, 9).await.unwrap()[0].id, 2);
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_refused() {
        let (folder, table) = fresh().await;
        sqlx::query("PRAGMA user_version = 7").execute(&table.pool).await.unwrap();
        let error = QueueTable::open(&folder.path().join("queue.sqlite")).await.unwrap_err();
        assert!(matches!(&error, DbError::Schema(text) if text.contains("version 7")), "{error}");
    }
}
