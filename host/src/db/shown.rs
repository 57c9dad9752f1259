//! A task as JSON: the one shape of the API and of replies, input and output byte for byte.

use super::{Fields, TaskRow};
use crate::task::{Failure, HostId, State, TaskId, Waiting};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The fields of a task in `host/docs/http.md`, in that order. `input` and `output` are left out where they were not asked for: `null` would be
/// a value.
#[derive(Serialize)]
pub struct ShownTask<'a> {
    id: TaskId,
    plugin: &'a str,
    version: Option<&'a str>,
    digest: Option<&'a str>,
    queue: &'a str,
    state: State,
    waiting_for: Option<&'a Waiting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Stored<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Stored<'a>>,
    failure: Option<&'a Failure>,
    attempt: u32,
    max_attempts: u32,
    host: Option<HostId>,
    labels: &'a BTreeMap<String, String>,
    created_at: DateTime<Utc>,
    run_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    retry_of: Option<TaskId>,
    traceparent: Option<&'a str>,
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
