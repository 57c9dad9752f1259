//! A task as JSON: the one shape of the API and of replies, input and output byte for byte.

use super::{Fields, TaskRow};
use crate::task::{Failure, HostId, State, TaskId, Waiting};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A task.
// In the order of `host/docs/http.md`. `input` and `output` are left out where they were not asked for: `null` would be a value.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TaskRecord)]
pub struct ShownTask<'a> {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: TaskId,
    /// The plugin as submitted, with its requirement.
    plugin: &'a str,
    /// Version of the component that ran the last attempt.
    version: Option<&'a str>,
    /// Digest of the component that ran the last attempt.
    digest: Option<&'a str>,
    /// Its logical queue.
    queue: &'a str,
    /// Its state.
    state: State,
    /// What it waits for; `null` while it runs and once it has ended.
    waiting_for: Option<&'a Waiting>,
    /// The input, byte for byte as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    input: Option<Stored<'a>>,
    /// The output, byte for byte as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    output: Option<Stored<'a>>,
    /// The last failure; kept while the task is retried.
    failure: Option<&'a Failure>,
    /// Number of the last attempt; 0: none yet.
    attempt: u32,
    /// Attempts that there may be.
    max_attempts: u32,
    /// The host that runs it, or ran it last.
    #[schema(value_type = Option<uuid::Uuid>)]
    host: Option<HostId>,
    /// Its labels.
    labels: &'a BTreeMap<String, String>,
    /// Time at which it was recorded.
    created_at: DateTime<Utc>,
    /// It runs not before this time.
    run_at: Option<DateTime<Utc>>,
    /// Time of the last claim.
    started_at: Option<DateTime<Utc>>,
    /// Time of its end.
    finished_at: Option<DateTime<Utc>>,
    /// It begins not after this time.
    deadline: Option<DateTime<Utc>>,
    /// The task that this one repeats.
    #[schema(value_type = Option<uuid::Uuid>)]
    retry_of: Option<TaskId>,
    /// W3C trace context of the producer.
    traceparent: Option<&'a str>,
    /// Time at which its data were erased.
    erased_at: Option<DateTime<Utc>>,
}

/// Stored JSON text, embedded as it is.
struct Stored<'a>(Option<&'a str>);

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What was stored had been parsed; of an unusable message nothing is.
        let raw: Option<&RawValue> = self.0.and_then(|text| serde_json::from_str(text).ok());
        raw.serialize(serializer)
    }
}

impl<'a> ShownTask<'a> {
    /// A task with these of its large fields.
    pub fn new(row: &'a TaskRow, fields: Fields) -> ShownTask<'a> {
        ShownTask {
            id: row.id,
            plugin: &row.plugin,
            version: row.version.as_deref(),
            digest: row.digest.as_deref(),
            queue: &row.queue,
            state: row.state,
            waiting_for: row.waiting_for.as_ref(),
            input: fields.input.then_some(Stored(row.input.as_deref())),
            output: fields.output.then_some(Stored(row.output.as_deref())),
            failure: row.failure.as_ref(),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            host: row.host,
            labels: &row.labels,
            created_at: row.created_at,
            run_at: row.run_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            deadline: row.deadline,
            retry_of: row.retry_of,
            traceparent: row.traceparent.as_deref(),
            erased_at: row.erased_at,
        }
    }
}
