//! The recorded tasks of a run, read once after the end.

use super::super::Failed;
use super::super::client::{Client, encode, rows};
use crate::api::BENCH_LABEL;
use chrono::{DateTime, Utc};
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
}

/// Every row of a run.
pub async fn read(client: &Client, run: &str) -> Result<BTreeMap<Uuid, Row>, Failed> {
    let label = encode(&format!("{BENCH_LABEL}={run}"));
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/tasks?limit=500&label={label}{cursor}")).await?;
        for task in rows(&page, "tasks") {
            let Some(id) = task["id"].as_str().and_then(|id| id.parse().ok()) else { continue };
            let time = |name: &str| task[name].as_str().and_then(|text| text.parse().ok());
            let state = task["state"].as_str().unwrap_or_default().to_owned();
            all.insert(id, Row { state, started_at: time("started_at"), finished_at: time("finished_at") });
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(all),
        }
    }
}
