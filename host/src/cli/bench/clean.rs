//! `agentry bench --clean`: no row of a bench is left.

use super::super::client::{Client, encode, refused};
use super::super::{Failed, escape, output};
use crate::api::BENCH_LABEL;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Between two looks at tasks that run and were asked to end.
const PAUSE: Duration = Duration::from_millis(200);

/// Cancels what has not ended and deletes what has, until nothing is left or nothing has moved for the client's patience.
pub async fn clean(client: &Client, run: Option<&str>, as_json: bool) -> Result<(), Failed> {
    let label = match run {
        Some(run) => format!("{BENCH_LABEL}={run}"),
        None => BENCH_LABEL.to_owned(),
    };
    let path = format!("/v1/tasks?label={}", encode(&label));
    let patience = client.patience();
    let (mut deleted, mut cancelled, mut moved) = (0, HashSet::new(), Instant::now());
    let left = loop {
        let batch = client.delete(&path).await?;
        let now = batch["deleted"].as_u64().unwrap_or_default();
        deleted += now;
        if now > 0 {
            moved = Instant::now();
        }
        output::progress(&format!("{deleted} deleted"));
        let unfinished: Vec<&str> =
            batch["unfinished"].as_array().into_iter().flatten().filter_map(|id| id.as_str()).collect();
        for id in &unfinished {
            if cancelled.insert((*id).to_owned()) {
                cancel(client, id).await?;
                moved = Instant::now();
            }
        }
        match unfinished.len() {
            0 if now == 0 => break 0,
            left if moved.elapsed() >= patience => break left,
            0 => {}
            _ if now == 0 => tokio::time::sleep(PAUSE).await,
            _ => {}
        }
    };
    output::progress("");
    match as_json {
        true => output::json(&json!({"deleted": deleted, "cancelled": cancelled.len(), "left": left}))?,
        false => output::data(&format!("{deleted} deleted, {} of them cancelled first", cancelled.len()))?,
    }
    match (left, run) {
        (0, Some(run)) if deleted == 0 => Err(Failed::task(format!(
            "no task of the run \"{}\" was found at {}; messages that are still in a queue become tasks later",
            escape::line(run),
            escape::line(client.address())
        ))),
        (0, _) => Ok(()),
        (left, _) => Err(Failed::task(format!(
            "{left} or more tasks still run after {} s without a change (--patience); repeat --clean once they have ended",
            patience.as_secs_f64()
        ))),
    }
}

/// Asks for a task's end. One that has ended meanwhile is no error.
async fn cancel(client: &Client, id: &str) -> Result<(), Failed> {
    let path = format!("/v1/tasks/{}/cancel", encode(id));
    match client.ask(Method::POST, &path, Some(String::new()), client.patience()).await? {
        Err(answer) if !matches!(answer.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND) => Err(refused(answer)),
        _ => Ok(()),
    }
}
