//! The embedded queue's tables, in the file of the embedded database.
//!
//! A task that is submitted, due or interrupted is appended in the transaction that makes it so, without the outbox. The
//! message names the task's row, and is made from it when it is handed over; any other message is kept byte for byte.

use super::DbError;
use super::sqlite::SqliteDb;
use crate::task::TaskMessage;
use std::path::Path;
use std::sync::Arc;

mod import;

/// A queue: `id` in the table, its logical name, and which of its companions it is (the broker knows the numbers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    /// Its key.
    pub id: i64,
    /// The logical name.
    pub name: String,
    /// Tasks, returned, dead.
    pub kind: i64,
    /// Every message up to this id may have been handed over.
    pub handed: i64,
    /// How many messages it has.
    pub messages: u32,
    /// The last message's id; 0: there is none.
    pub last: i64,
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

/// What a message holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The message of a task that has a row.
    Task(Arc<TaskMessage>),
    /// Any other.
    Message {
        /// JSON.
        properties: String,
        /// The body.
        body: bytes::Bytes,
    },
    /// It was not read: it is in the table.
    Stored,
    /// Its task has ended or is gone: the message is to be removed.
    Gone,
}

impl Content {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        match self {
            Content::Task(task) => task.input.len() + 512,
            Content::Message { properties, body } => properties.len() + body.len() + 64,
            Content::Stored | Content::Gone => 0,
        }
    }
}

/// A message in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// Its id: order of arrival.
    pub id: i64,
    /// What it holds.
    pub content: Content,
}

/// A message that was appended and is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// The queue's key.
    pub queue: i64,
    /// Its id.
    pub id: i64,
    /// What it holds.
    pub content: Content,
}

/// Receives messages that are appended together with the rows of their tasks.
pub trait Arrivals: Send + Sync + 'static {
    /// The key of the queue that takes tasks under this name; `None`: the queue is not declared.
    fn key(&self, queue: &str) -> Option<i64>;
    /// These are committed. Called in the order of commits.
    fn appended(&self, messages: Vec<Appended>);
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
    /// Set it to this id, also back: what was appended after it was never handed over.
    pub handed_exactly: Vec<(i64, i64)>,
}

/// The tables.
#[derive(Clone, Debug)]
pub struct QueueTable {
    db: SqliteDb,
}

impl QueueTable {
    /// Make the tables if they are missing, and take over the messages of an earlier version's `queue.sqlite` in `folder`.
    pub async fn open(db: &SqliteDb, folder: &Path) -> Result<Self, DbError> {
        let table = QueueTable { db: db.clone() };
        table.db.create_queues().await?;
        import::old_files(&table, folder).await?;
        Ok(table)
    }

    /// From now on, tasks of queues that `arrivals` knows are appended in the transaction that sends them.
    pub fn attach(&self, arrivals: Arc<dyn Arrivals>) {
        self.db.attach(arrivals);
    }

    /// Enter queues by name and kind; those that exist stay as they are.
    pub async fn declare(&self, queues: &[(String, i64)]) -> Result<(), DbError> {
        self.db.declare_queues(queues).await
    }

    /// Every queue.
    pub async fn queues(&self) -> Result<Vec<StoredQueue>, DbError> {
        self.db.queues().await
    }

    /// Write everything in one transaction. What was appended is passed to `arrivals` after the commit, before this returns.
    pub async fn write(&self, changes: Changes, arrivals: Option<Arc<dyn Arrivals>>) -> Result<(), DbError> {
        self.db.change_queues(changes, arrivals).await
    }

    /// Messages of a queue after an id, oldest first.
    pub async fn read_after(&self, queue: i64, after: i64, limit: u32) -> Result<Vec<StoredMessage>, DbError> {
        self.db.read_queue(queue, after, limit).await
    }

    /// These messages, oldest first; without those that are gone.
    pub async fn read(&self, ids: Vec<i64>) -> Result<Vec<StoredMessage>, DbError> {
        self.db.read_messages(ids).await
    }

    /// The ids of a queue up to and including one.
    pub async fn ids_upto(&self, queue: i64, upto: i64) -> Result<Vec<i64>, DbError> {
        self.db.message_ids(queue, upto).await
    }

    /// Where the tables are, for people.
    pub fn place(&self) -> String {
        self.db.place()
    }
}

#[cfg(test)]
mod tests;
