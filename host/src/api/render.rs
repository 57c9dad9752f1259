//! A task as JSON, with what its submission adds. And a call of one, with its bodies.

use super::warnings::Warning;
use crate::db::{CallRow, Fields, ShownTask, TaskRow};
use crate::task::settle::BodyText;
use serde::Serialize;

/// A task.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Task)]
pub(super) struct TaskJson<'a> {
    #[serde(flatten)]
    task: ShownTask<'a>,
    /// Warnings, in the answer to its submission alone, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl<'a> TaskJson<'a> {
    pub fn new(row: &'a TaskRow, fields: Fields) -> TaskJson<'a> {
        TaskJson { task: ShownTask::new(row, fields), warnings: Vec::new() }
    }
}

/// A call of a capability.
// Bodies are left out where they were not asked for: `null` says that nothing is kept.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Call)]
pub(super) struct CallJson<'a> {
    #[serde(flatten)]
    row: &'a CallRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BodyText<'a>>)]
    request_body: Option<Option<BodyText<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BodyText<'a>>)]
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
    use crate::task::{Failure, FailureKind, State, WaitCode, Waiting};
    use chrono::{DateTime, Utc};
    use std::collections::BTreeMap;

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
