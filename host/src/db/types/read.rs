//! What is read: the rows behind lists, records and histories.

use super::super::storable;
use crate::task::settle::Usage;
use crate::task::{Event, Failure, FailureKind, Fence, HostId, State, TaskId, Waiting};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeMap;

/// Which large fields are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The input.
    pub input: bool,
    /// The output.
    pub output: bool,
}

impl Fields {
    /// Everything.
    pub const ALL: Fields = Fields { input: true, output: true };
}

/// Maximum bytes of a page, as its rows are stored. Only columns that callers and guests fill are counted.
pub const PAGE_BYTES: i64 = 16 * 1_024 * 1_024;

/// Rows of a list, in its order: at most as many as asked for, and at most [`PAGE_BYTES`], but at least one if there is any.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether rows follow the last one.
    pub more: bool,
}

impl<T> Page<T> {
    /// Where the next page begins, by the last row; `None`: this is the last page.
    pub fn next<C>(&self, cursor: impl Fn(&T) -> C) -> Option<C> {
        self.rows.last().filter(|_| self.more).map(cursor)
    }
}

/// Which tasks.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this plugin.
    pub plugin: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only with this label.
    pub label: Option<(String, String)>,
    /// Only whose last failure is of this kind.
    pub kind: Option<FailureKind>,
    /// Only those that ended since; of those that have not ended: that were made since.
    pub since: Option<DateTime<Utc>>,
    /// Only retries of this task.
    pub retry_of: Option<TaskId>,
    /// Only those behind this position.
    pub before: Option<TaskCursor>,
    /// At most so many.
    pub limit: u32,
}

/// Position in a list of tasks, which is ordered by creation, newest first, and by id where times are equal. Ids alone are no order of
/// time: an idempotency key and a redrive make ids of version 5, which are higher than every id of version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskCursor {
    /// Creation time of the task at this position.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: TaskId,
}

/// First byte of a cursor. An id, which was the cursor of earlier builds, has another length.
const TASK_CURSOR: u8 = 1;

impl From<&TaskRow> for TaskCursor {
    fn from(row: &TaskRow) -> TaskCursor {
        TaskCursor { created_at: row.created_at, id: row.id }
    }
}

impl std::fmt::Display for TaskCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.created_at.timestamp_micros().to_be_bytes();
        let bytes = [&[TASK_CURSOR], &micros[..], self.id.as_bytes()].concat();
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl TaskCursor {
    /// Reads what `Display` writes. Returns `None` for any other text, such as an id.
    pub fn parse(text: &str) -> Option<TaskCursor> {
        let bytes: [u8; 25] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (micros, id) = (bytes[1..9].try_into().ok()?, bytes[9..].try_into().ok()?);
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(micros))?;
        let cursor = TaskCursor { created_at, id: TaskId::from_bytes(id) };
        // A year that the database cannot store would be a fault of the statement.
        (bytes[0] == TASK_CURSOR && storable::is_storable(created_at)).then_some(cursor)
    }
}

/// A task as read.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its id.
    pub id: TaskId,
    /// `name` or `name@requirement`.
    pub plugin: String,
    /// The last attempt's.
    pub version: Option<String>,
    /// The last attempt's.
    pub digest: Option<String>,
    /// Its logical queue.
    pub queue: String,
    /// Where it is.
    pub state: State,
    /// Why it waits; `None` unless `pending`, `scheduled` or `retrying`.
    pub waiting_for: Option<Waiting>,
    /// JSON text, byte for byte; `None` if not asked for (or the message was unusable).
    pub input: Option<String>,
    /// JSON text, byte for byte; `None` if not asked for, or none yet.
    pub output: Option<String>,
    /// The last failure; kept through `retrying`.
    pub failure: Option<Failure>,
    /// The last attempt's number; 0: none yet.
    pub attempt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// The owner, while it runs; otherwise the last.
    pub host: Option<HostId>,
    /// The producer's words.
    pub labels: BTreeMap<String, String>,
    /// 0 to 9.
    pub priority: u8,
    /// First recorded.
    pub created_at: DateTime<Utc>,
    /// Not before.
    pub run_at: Option<DateTime<Utc>>,
    /// The last claim.
    pub started_at: Option<DateTime<Utc>>,
    /// Its end.
    pub finished_at: Option<DateTime<Utc>>,
    /// Not after.
    pub deadline: Option<DateTime<Utc>>,
    /// The task that this one repeats.
    pub retry_of: Option<TaskId>,
    /// The producer's trace.
    pub traceparent: Option<String>,
    /// When its data were erased.
    pub erased_at: Option<DateTime<Utc>>,
}

/// One event of a task's history.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Event)]
pub struct EventRow {
    /// From 1, without gaps.
    pub seq: i64,
    /// Its time, by the database's clock.
    pub at: DateTime<Utc>,
    /// Its name.
    pub event: Event,
    /// The attempt, if one has begun.
    pub attempt: Option<u32>,
    /// The claim, if one has happened.
    #[schema(value_type = Option<i64>)]
    pub fence: Option<Fence>,
    /// The host, if one did it.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub host: Option<HostId>,
    /// The plugin's digest, if one ran.
    pub digest: Option<String>,
    /// Details, by event.
    pub detail: Value,
}

/// One log line.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LogLine)]
pub struct LogRow {
    /// Grows over all attempts of the task.
    pub seq: i64,
    /// Time at which the guest wrote it, by the host's clock.
    pub at: DateTime<Utc>,
    /// The attempt.
    pub attempt: u32,
    /// `log`, `stdout` or `stderr`.
    pub stream: String,
    /// Its level.
    pub level: String,
    /// The logger's name.
    pub logger: String,
    /// The line.
    pub message: String,
    /// Cut at a limit.
    pub cut: bool,
}

/// One ended attempt.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptRow {
    /// The attempt's number.
    pub attempt: u32,
    /// Its claim.
    #[schema(value_type = i64)]
    pub fence: Fence,
    /// Where it ran.
    #[schema(value_type = uuid::Uuid)]
    pub host: HostId,
    /// That host's build.
    pub build: Option<String>,
    /// The plugin's version.
    pub version: Option<String>,
    /// The plugin's digest.
    pub digest: Option<String>,
    /// The claim.
    pub started_at: DateTime<Utc>,
    /// The settlement, or the take-over.
    pub finished_at: DateTime<Utc>,
    /// How it ended: the event's name, or `host_lost`.
    pub ended: String,
    /// The reason, if it failed.
    pub failure: Option<Failure>,
    /// What it used; `null` if its host was lost.
    pub usage: Option<Usage>,
    /// Duration of its recorded calls together, in microseconds (calls at the same time count each); `null` if there are none.
    pub called_us: Option<i64>,
}

/// One call of a capability.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CallRecord)]
pub struct CallRow {
    /// The claim under which it was made.
    #[schema(value_type = i64)]
    pub fence: Fence,
    /// From 1 within the claim.
    pub seq: i64,
    /// Time at which it began, by the host's clock.
    pub at: DateTime<Utc>,
    /// The attempt.
    pub attempt: u32,
    /// `http`, `llm`, `tools`, `keyvalue`, `memory`, `config`, `folders`.
    pub capability: String,
    /// The operation of the capability.
    pub operation: String,
    /// Its target; `erased` once the task is.
    pub target: String,
    /// Duration in microseconds.
    pub duration_us: i64,
    /// Bytes that went out.
    pub request_bytes: i64,
    /// Bytes that came in.
    pub response_bytes: i64,
    /// `ok`, or a stable word for the error.
    pub result: String,
    /// Details, by capability.
    pub detail: Value,
    /// Bytes of the body that the guest sent; `null` if nothing of it is kept.
    pub request_body_bytes: Option<i64>,
    /// Bytes of the body that the guest received; `null` if nothing of it is kept.
    pub response_body_bytes: Option<i64>,
    /// What is kept of the one, if it was asked for: its beginning, or all of it.
    #[serde(skip)]
    pub request_body: Option<Vec<u8>>,
    /// The same of the other.
    #[serde(skip)]
    pub response_body: Option<Vec<u8>>,
}

/// Where a reader of calls is: behind this one. Written `FENCE.SEQ`; the default is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCursor {
    /// The claim.
    pub fence: Fence,
    /// The call within it.
    pub seq: i64,
}

impl From<&CallRow> for CallCursor {
    fn from(row: &CallRow) -> CallCursor {
        CallCursor { fence: row.fence, seq: row.seq }
    }
}

impl std::fmt::Display for CallCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.fence, self.seq)
    }
}

impl CallCursor {
    /// Reads `FENCE.SEQ`.
    pub fn parse(text: &str) -> Option<CallCursor> {
        let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0);
        let (fence, seq) = text.split_once('.')?;
        Some(CallCursor { fence: number(fence)?, seq: number(seq)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_of_tasks_reads_what_it_writes_and_nothing_else() {
        for id in [TaskId::nil(), TaskId::max(), TaskId::now_v7()] {
            for created_at in ["0001-01-01T00:00:00Z", "2030-01-02T03:04:05.678901Z", "9999-12-31T23:59:59.999999Z"] {
                let cursor = TaskCursor { created_at: created_at.parse().unwrap(), id };
                let text = cursor.to_string();
                assert_eq!(TaskCursor::parse(&text), Some(cursor));
                assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
                assert_eq!(TaskCursor::parse(&text[1..]), None);
            }
        }
        let id = TaskId::now_v7();
        let far = BASE64_URL_SAFE_NO_PAD.encode([&[TASK_CURSOR], &i64::MAX.to_be_bytes()[..], id.as_bytes()].concat());
        for text in [&id.to_string(), &id.simple().to_string(), "", "x", &far, &"A".repeat(34)] {
            assert_eq!(TaskCursor::parse(text), None, "{text}");
        }
    }
}
