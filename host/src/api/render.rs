//! A task as JSON: the one shape that every answer has, input and output byte for byte. And a call of one, with its bodies.

use super::warnings::Warning;
use crate::db::{CallRow, Fields, TaskRow};
use crate::task::settle::BodyText;
use crate::task::{Failure, HostId, State, TaskId, Waiting};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The fields of a task in `host/docs/http.md`, in that order. `input` and `output` are left out where they were not asked for: `null` would be
/// a value.
#[derive(Serialize)]
pub(super) struct TaskJson<'a> {
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
    /// In the answer to its submission alone, and only if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
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

impl<'a> TaskJson<'a> {
    pub fn new(row: &'a TaskRow, fields: Fields) -> TaskJson<'a> {
        TaskJson {
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
            warnings: Vec::new(),
            retry_of: row.retry_of,
            traceparent: row.traceparent.as_deref(),
            erased_at: row.erased_at,
        }
    }
}

/// A call. Its bodies are left out where they were not asked for: `null` says that nothing of it is kept.
#[derive(Serialize)]
pub(super) struct CallJson<'a> {
    #[serde(flatten)]
    row: &'a CallRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<Option<BodyText<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<Option<BodyText<'a>>>,
}

impl<'a> CallJson<'a> {
    pub fn new(row: &'a CallRow, bodies: bool) -> CallJson<'a> {
        let body = |kept: &'a Option<Vec<u8>>, size: Option<i64>| {
            // The database holds no negative length.
            let size = size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            bodies.then(|| kept.as_deref().map(|kept| BodyText::new(kept, size)))
        };
        CallJson {
            row,
            request_body: body(&row.request_body, row.request_body_bytes),
            response_body: body(&row.response_body, row.response_body_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{FailureKind, WaitCode};

    fn row() -> TaskRow {
        let at: DateTime<Utc> = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        TaskRow {
            id: "01920c3e-0000-7000-8000-000000000001".parse().unwrap(),
            plugin: "word-count@^0.1".into(),
            version: Some("0.1.0".into()),
            digest: Some("sha256:ab".into()),
            queue: "default".into(),
            state: State::Retrying,
            waiting_for: Some(Waiting {
                code: WaitCode::Backoff,
                message: WaitCode::Backoff.message().into(),
                since: at,
                until: Some(at),
                detail: serde_json::Value::Null,
            }),
            input: Some(r#"{"b":1.00,"a":"é","a2":1e400}"#.into()),
            output: None,
            failure: Some(Failure::fatal(FailureKind::Trap, "unreachable")),
            attempt: 1,
            max_attempts: 3,
            host: Some("01920c3e-0000-7000-8000-000000000002".parse().unwrap()),
            labels: BTreeMap::from([("team".into(), "search".into())]),
            priority: 5,
            created_at: at,
            run_at: None,
            started_at: Some(at),
            finished_at: None,
            deadline: None,
            retry_of: None,
            traceparent: None,
            erased_at: None,
        }
    }

    #[test]
    fn a_task_has_exactly_the_fields_of_the_contract() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&TaskJson::new(&row(), Fields::ALL)).unwrap());
    }

    #[test]
    fn input_is_embedded_byte_for_byte() {
        let text = serde_json::to_string(&TaskJson::new(&row(), Fields::ALL)).unwrap();
        assert!(text.contains(r#""input":{"b":1.00,"a":"é","a2":1e400},"output":null"#), "{text}");
    }

    #[test]
    fn what_was_not_asked_for_is_absent_and_not_null() {
        let json = serde_json::to_value(TaskJson::new(&row(), Fields::default())).unwrap();
        assert!(json.get("input").is_none() && json.get("output").is_none(), "{json}");
    }
}
