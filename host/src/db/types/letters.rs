//! Dead letters: what is recorded, and what is still to be published.

use crate::task::TaskId;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::sync::Arc;

/// An unusable message.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// A stable word: `not_json`, `conflict`, `returned` …
    pub reason: String,
    /// What was wrong.
    pub detail: String,
    /// The logical queue it came from.
    pub queue: String,
    /// Its task, where an id could be read and is the reason not to touch another task's row.
    pub task_id: Option<TaskId>,
    /// The plugin it named.
    pub plugin: Option<String>,
    /// As it came.
    pub body: Arc<[u8]>,
    /// AMQP properties and headers as JSON.
    pub properties: Value,
    /// The broker says that it may have been delivered before.
    pub redelivered: bool,
}

/// What `record_dead` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadRecorded {
    /// Its row's id.
    pub id: i64,
    /// A redelivery of a message that has a row.
    pub repeated: bool,
}

/// Result of [`Db::record_dead`](super::Db::record_dead) for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadAnswer {
    /// It has a row.
    Recorded(DeadRecorded),
    /// The database does not store it, for this reason.
    Refused(String),
}

/// A task that a relay published, and whose message the host that received it cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The task.
    pub id: TaskId,
    /// The word that a dead letter would have.
    pub reason: String,
    /// What is wrong.
    pub detail: String,
}

/// Result for an [`Unusable`] task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnusableAnswer {
    /// Its row waits for a host that can use it, or for another reason; or it runs, or has ended.
    Kept,
    /// Its row cannot be changed by this build either, for this reason: it is published again later.
    Later(String),
    /// It has no row.
    Unknown,
}

/// A dead letter that is to be published to its dead-letter queue.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpublishedLetter {
    /// Its row's id.
    pub id: i64,
    /// A stable word.
    pub reason: String,
    /// What was wrong.
    pub detail: String,
    /// As it came.
    pub body: Vec<u8>,
    /// AMQP properties and headers as JSON.
    pub properties: Value,
}

/// A dead letter as read.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadRow {
    /// Its number, in the order of recording.
    pub id: i64,
    /// Time at which it was recorded.
    pub at: DateTime<Utc>,
    /// A stable word.
    pub reason: String,
    /// The reason for a person.
    pub detail: String,
    /// The logical queue that it came from.
    pub queue: String,
    /// The id of its task, if it has one.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub task_id: Option<TaskId>,
    /// The plugin it named.
    pub plugin: Option<String>,
    /// The body as text, undecodable bytes replaced; cut at 64 KiB.
    pub body: String,
    /// The body's size in bytes.
    pub body_bytes: i64,
    /// AMQP properties and headers.
    pub properties: Value,
    /// Time of the last redrive; `null`: none that was completed.
    pub redriven_at: Option<DateTime<Utc>>,
    /// Id of the task that the last redrive made.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub redriven_as: Option<TaskId>,
    /// Time at which its body was erased, with its task's data.
    pub erased_at: Option<DateTime<Utc>>,
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Only those that carry this task's id.
    pub task: Option<TaskId>,
    /// Only this reason.
    pub reason: Option<String>,
    /// Only from this queue.
    pub queue: Option<String>,
    /// Only those recorded since.
    pub since: Option<DateTime<Utc>>,
    /// Only those that were not redriven (and can be: not erased).
    pub waiting: bool,
    /// Below this id.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}
