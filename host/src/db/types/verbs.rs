//! What operators ask for, and what became of it.

use crate::task::{State, TaskId, TaskMessage};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// What a task was asked, as far as that is still known.
#[derive(Clone, Debug)]
pub struct AskedTask {
    /// Where it is.
    pub state: State,
    /// Its queue.
    pub queue: String,
    /// The message; `None`: it was unusable, or the task was erased.
    pub message: Option<TaskMessage>,
    /// When it was erased.
    pub erased_at: Option<DateTime<Utc>>,
}

/// What became of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAnswer {
    /// The new task has a row.
    Created,
    /// An earlier call with the same new id has made it.
    Exists,
    /// The new id belongs to a task that is no retry of this one.
    Conflict,
    /// There is no task to be retried.
    Unknown,
    /// It has not ended.
    NotEnded(State),
    /// It is retried already, by this task, which has not ended; or has, and one retry was to be all.
    Retried(TaskId, State),
    /// Its input was erased.
    Erased,
}

/// What became of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraseAnswer {
    /// There is no such task.
    Unknown,
    /// It has not ended.
    NotEnded(State),
    /// Its data are gone, since then.
    Erased(DateTime<Utc>),
}

/// The label key that `agentry bench` gives its tasks; the value is the id of the run. The databases have indexes of it.
pub const BENCH_LABEL: &str = "agentry-bench";

/// Selects tasks by a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The label's key.
    pub key: String,
    /// The label's value.
    pub value: String,
}

/// The tasks that carry one value of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledTasks {
    /// The label's value.
    pub value: String,
    /// Tasks that have ended.
    pub ended: u64,
    /// Tasks that have not.
    pub unfinished: u64,
    /// When the last of them was created or ended.
    pub last_at: DateTime<Utc>,
}

/// Result of one batch of [`Db::delete_labelled`](super::super::Db::delete_labelled).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Deletion)]
pub struct LabelledDeletion {
    /// Tasks deleted.
    pub deleted: u64,
    /// Labelled tasks that have not ended.
    #[schema(value_type = Vec<uuid::Uuid>)]
    pub unfinished: Vec<TaskId>,
}

/// A dead letter that is to be delivered again.
#[derive(Clone, Debug, PartialEq)]
pub struct Redrive {
    /// The letter.
    pub letter: i64,
    /// The id under which it goes: the same for as long as this redrive is not seen through.
    pub id: TaskId,
    /// Where it came from, and goes.
    pub queue: String,
    /// The body, whole.
    pub body: Vec<u8>,
    /// AMQP properties and headers.
    pub properties: Value,
}

/// What became of the wish to deliver a dead letter again.
#[derive(Clone, Debug, PartialEq)]
pub enum RedriveAnswer {
    /// The id is written down: publish it.
    Begun(Redrive),
    /// There is no such letter.
    Unknown,
    /// It was redriven before, under that id.
    Redriven(TaskId),
    /// Its body was erased.
    Erased,
}

/// What is past its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Prunable {
    /// How many.
    pub count: i64,
    /// The oldest one's end (for a dead letter: when it was recorded).
    pub oldest: Option<DateTime<Utc>>,
}

/// What a pruning would delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PrunePlan {
    /// `completed` tasks.
    pub completed: Prunable,
    /// `failed` tasks.
    pub failed: Prunable,
    /// `cancelled` tasks.
    pub cancelled: Prunable,
    /// Dead letters.
    pub dead: Prunable,
}

/// How large a table is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableSize {
    /// Its name.
    pub table: String,
    /// Rows: in Postgres the planner's estimate (-1: never analysed), in SQLite counted.
    pub rows: i64,
    /// Bytes on disk, its indexes included.
    pub bytes: i64,
    /// Dead rows that a vacuum has not yet freed; `None`: the database keeps none.
    pub dead: Option<i64>,
}
