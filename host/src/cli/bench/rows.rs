//! The recorded tasks of a run, read once after the end.

use super::super::Failed;
use super::super::client::{Client, encode, rows};
use crate::api::BENCH_LABEL;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the database recorded of one task.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its state.
    pub state: String,
    /// When its last attempt was claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended; `None`: it has not.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it has not completed, where the daemon reports a reason.
    pub reason: Option<Reason>,
}

/// A failure, or what a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The failure's kind, or the code of what it waits for.
    pub kind: String,
    /// The guest's own code, if it gave one.
    pub code: Option<String>,
    /// One sentence.
    pub message: String,
}

/// Every row of a run.
pub async fn read(client: &Client, run: &str) -> Result<BTreeMap<Uuid, Row>, Failed> {
    let label = encode(&format!("{BENCH_LABEL}={run}"));
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = client.page(&format!("/v1/tasks?limit=500&label={label}{cursor}"), "tasks").await?;
        for task in rows(&page, "tasks") {
            let Some(id) = task["id"].as_str().and_then(|id| id.parse().ok()) else { continue };
            all.insert(id, row(task));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(all),
        }
    }
}

fn row(task: &Value) -> Row {
    let time = |name: &str| task[name].as_str().and_then(|text| text.parse().ok());
    let state = task["state"].as_str().unwrap_or_default().to_owned();
    let reason = match state.as_str() {
        "completed" => None,
        // A task that is retried has a failure too, and waits for another reason.
        "failed" | "cancelled" => reason(&task["failure"], "kind"),
        _ => reason(&task["waiting_for"], "code").or_else(|| reason(&task["failure"], "kind")),
    };
    Row { state, started_at: time("started_at"), finished_at: time("finished_at"), reason }
}

fn reason(of: &Value, kind: &str) -> Option<Reason> {
    let code = match &of["detail"]["code"] {
        Value::Null => None,
        Value::String(code) => Some(code.clone()),
        other => Some(other.to_string()),
    };
    let message = of["message"].as_str().unwrap_or_default().to_owned();
    of[kind].as_str().map(|kind| Reason { kind: kind.to_owned(), code, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_why_its_task_did_not_complete() {
        let failure = json!({"kind": "permanent", "message": "no", "retryable": false, "detail": {"code": "E1"}});
        let waiting = json!({"code": "plugin_broken", "message": "it does not load", "detail": null});
        let of = |state: &str| {
            let task = json!({"state": state, "failure": failure, "waiting_for": waiting});
            row(&task).reason.map(|reason| (reason.kind, reason.code))
        };
        assert_eq!(of("completed"), None);
        assert_eq!(of("failed"), Some(("permanent".to_owned(), Some("E1".to_owned()))));
        assert_eq!(of("pending"), Some(("plugin_broken".to_owned(), None)));
    }
}
