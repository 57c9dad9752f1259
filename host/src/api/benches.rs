//! `DELETE /v1/tasks?label=agentry-bench=RUN`: deletes the tasks of `agentry bench`. No other label is accepted, so that this
//! is no general deletion.

use super::params::Params;
use super::problem::Problem;
use super::{ApiState, respond};
use crate::db::Label;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// The label key that `agentry bench` gives its tasks; the value names the run.
pub const BENCH_LABEL: &str = "agentry-bench";
/// Tasks deleted by one request, unless the client asks for fewer, and at most.
const BATCH: u32 = 500;

/// Deletes one batch of ended tasks, and lists those that have not ended.
pub(super) async fn delete(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    let params = params.only(&["label", "limit"])?;
    let limit = params.number("limit", 1..=BATCH)?.unwrap_or(BATCH);
    let takes = format!("{BENCH_LABEL}=RUN, or {BENCH_LABEL} for every run");
    let label = params.read("label", &takes, label)?;
    let label = label.ok_or_else(|| Problem::bad("bad_query", format!("label is missing; it takes {takes}")))?;
    let batch = state.db(move |db| async move { db.delete_labelled(&label, limit).await }).await?;
    Ok(respond(StatusCode::OK, &batch))
}

fn label(text: &str) -> Option<Label> {
    let (key, value) = match text.split_once('=') {
        Some((_, "")) => return None,
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    (key == BENCH_LABEL).then(|| Label { key: key.to_owned(), value })
}
