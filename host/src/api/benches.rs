//! Runs of `agentry bench`: `GET /v1/benches` lists them, and `DELETE /v1/tasks?label=agentry-bench=RUN` deletes the tasks of
//! one. No other label and no other value is accepted, so that this is no general deletion.

use super::params::Params;
use super::problem::Problem;
use super::shapes::{BenchList, BenchRun};
use super::steering::Actor;
use super::{ApiState, respond};
use crate::db::{Label, LabelledDeletion, LabelledTasks};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use uuid::{Uuid, Variant, Version};

pub use crate::db::BENCH_LABEL;
/// Tasks deleted by one request, unless the client asks for fewer, and at most.
const BATCH: u32 = 500;
/// Runs listed at most. Values that are not ids of runs count too. Every task with the label is counted, and no other is read; a list that does
/// not end in its time is unavailable.
const RUNS: u32 = 10_000;

/// A new id of a run.
pub fn new_run() -> String {
    // Ids grow with time, so the last digits tell two runs apart.
    Uuid::now_v7().simple().to_string()
}

/// Whether a text has the form of [`new_run`]. A task that carries the label with another value is not of a bench.
pub fn is_run(text: &str) -> bool {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let time_ordered = |id: Uuid| id.get_version() == Some(Version::SortRand) && id.get_variant() == Variant::RFC4122;
    digits && Uuid::try_parse(text).is_ok_and(time_ordered)
}

/// The runs of `agentry bench` whose tasks are recorded, the last active first.
#[utoipa::path(get, path = "/v1/benches", tag = "bench", operation_id = "list_benches",
    responses((status = 200, description = "The runs", body = BenchList)))]
pub(super) async fn list(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    let read =
        |db: Arc<dyn crate::db::Db>| async move { Ok((db.labelled(BENCH_LABEL, RUNS).await?, db.ping().await?)) };
    let (found, now) = state.db(read).await?;
    let run = |run: LabelledTasks| {
        let LabelledTasks { value, ended, unfinished, last_at } = run;
        // By the clock of the database, which wrote the times.
        let idle = (now - last_at).num_milliseconds().max(0) as f64 / 1e3;
        BenchRun { run: value, ended, unfinished, last_at, idle_seconds: idle }
    };
    let runs = found.into_iter().filter(|found| is_run(&found.value)).map(run).collect();
    Ok(respond(StatusCode::OK, &BenchList { runs }))
}

/// Delete one batch of ended tasks of a run of `agentry bench`, and list those that have not ended.
#[utoipa::path(delete, path = "/v1/tasks", tag = "bench", operation_id = "delete_bench_tasks",
    params(
        ("label" = String, Query, pattern = "^agentry-bench=[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$", description =
            "`agentry-bench=RUN`; no other label is accepted."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Tasks deleted at most; default 500."),
    ),
    responses((status = 200, description = "The deletion", body = LabelledDeletion)))]
pub(super) async fn delete(
    State(state): State<Arc<ApiState>>,
    Extension(actor): Extension<Actor>,
    params: Params,
) -> Result<Response, Problem> {
    let params = params.only(&["label", "limit"])?;
    let limit = params.number("limit", 1..=BATCH)?.unwrap_or(BATCH);
    let takes = format!("{BENCH_LABEL}=RUN with the id of a run of `agentry bench`; GET /v1/benches lists them");
    let label = params.read("label", &takes, label)?;
    let label = label.ok_or_else(|| Problem::bad("bad_query", format!("label is missing; it takes {takes}")))?;
    state.audit(&actor, "bench.delete", &label.value, None).await?;
    let batch = state.change(move |db| async move { db.delete_labelled(&label, limit).await }).await?;
    Ok(respond(StatusCode::OK, &batch))
}

fn label(text: &str) -> Option<Label> {
    let (key, run) = text.split_once('=')?;
    (key == BENCH_LABEL && is_run(run)).then(|| Label { key: key.to_owned(), value: run.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_a_bench_makes_name_a_run() {
        assert!(is_run(&new_run()));
        let other = Uuid::new_v4().simple().to_string();
        let hyphenated = Uuid::now_v7().to_string();
        for text in [
            "",
            "hello",
            "0",
            "run",
            &"a".repeat(32),
            &"0".repeat(32),
            "0195D0A0AAAA7000800000000000000A",
            &other,
            &hyphenated,
        ] {
            assert!(!is_run(text), "{text}");
        }
    }
}
