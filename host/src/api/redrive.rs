//! `POST /v1/dead/redrive`: dead letters are delivered again, under new ids.
//!
//! Three steps for each, in this order: [`record`], [`publish`], [`mark`]. A redrive that dies between two of them and is
//! begun again publishes the same id, which the claim recognises.

use super::body::{object, read, text};
use super::params::Params;
use super::problem::Problem;
use super::shapes::{Redriven, Redrives};
use super::share::Share;
use super::steering::Actor;
use super::tasks::LONGEST_PAGE;
use super::{ApiState, respond};
use crate::broker::{Publication, PublishError, Target};
use crate::db::{DeadFilter, Redrive, RedriveAnswer};
use crate::task::{TaskId, span};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::Utc;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

mod letter;

/// Letters of one request, unless asked otherwise.
const LETTERS: u32 = 100;
/// The fastest that can be asked for.
const FASTEST: u32 = 1_000;

/// Which dead letters are redriven, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Redrive)]
struct Request {
    /// These letters; excludes the filters.
    #[schema(max_items = 500)]
    ids: Option<Vec<i64>>,
    /// Letters with this reason.
    reason: Option<String>,
    /// Letters of this queue.
    queue: Option<String>,
    /// Letters recorded since then: a time, or a duration before now.
    since: Option<String>,
    /// Letters below this id: `next_before` of another answer.
    before: Option<i64>,
    /// Letters of one request; default 100.
    #[schema(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Publish nothing.
    #[serde(default)]
    dry_run: bool,
    /// With `ids`: also letters that were redriven before.
    #[serde(default)]
    again: bool,
    /// Letters a second at most.
    #[schema(minimum = 1, maximum = 1_000)]
    rate_per_second: Option<u32>,
}

/// Publish dead letters again, under new ids.
#[utoipa::path(post, path = "/v1/dead/redrive", tag = "dead letters", operation_id = "redrive", request_body = Request,
    responses((status = 200, description = "The outcome of each letter", body = Redrives)))]
pub(super) async fn redrive(
    State(state): State<Arc<ApiState>>,
    Extension(share): Extension<Share>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    params.only(&[])?;
    let body = read(&state, &share, &headers, body).await?;
    let request: Request = object("the request", text(&body)?)?;
    let (letters, next) = which(&state, &request).await?;
    if let (false, [first, ..]) = (request.dry_run, &letters[..]) {
        state.audit(&actor, "dead.redrive", first, Some(letters.len())).await?;
    }
    let pause = request.rate_per_second.map(|rate| Duration::from_secs(1) / rate.max(1));
    let mut told = Vec::with_capacity(letters.len());
    for id in letters {
        if request.dry_run {
            told.push(would(&state, id, request.again).await?);
            continue;
        }
        if let Some(pause) = pause.filter(|_| !told.is_empty()) {
            tokio::time::sleep(pause).await;
        }
        match one(&state, id, request.again).await {
            Ok(letter) => told.push(letter),
            // What was done until then is told all the same.
            Err(problem) => return Err(problem.with("letters", serde_json::json!(told))),
        }
    }
    Ok(respond(StatusCode::OK, &Redrives { letters: told, next_before: next }))
}

/// The letters that are meant, and where the next request goes on.
async fn which(state: &ApiState, request: &Request) -> Result<(Vec<i64>, Option<i64>), Problem> {
    let out_of = |name: &str, value: u32, most: u32| {
        Problem::bad("bad_request", format!("{name} is {value}; it takes a number from 1 to {most}"))
    };
    let limit = request.limit.unwrap_or(LETTERS);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(out_of("limit", limit, LONGEST_PAGE));
    }
    if let Some(rate) = request.rate_per_second.filter(|rate| !(1..=FASTEST).contains(rate)) {
        return Err(out_of("rate_per_second", rate, FASTEST));
    }
    let filtered = request.reason.is_some() || request.queue.is_some() || request.since.is_some();
    if let Some(ids) = &request.ids {
        if filtered || request.before.is_some() {
            let detail = "ids and filters (reason, queue, since, before) exclude each other";
            return Err(Problem::bad("bad_request", detail));
        }
        if ids.len() > LONGEST_PAGE as usize {
            let detail = format!("ids has {} entries; allowed are {LONGEST_PAGE}", ids.len());
            return Err(Problem::bad("bad_request", detail));
        }
        return Ok((ids.clone(), None));
    }
    if request.again {
        let detail = "again delivers once more what was redriven before; name the letters: ids";
        return Err(Problem::bad("bad_request", detail));
    }
    let since = match &request.since {
        None => None,
        Some(text) => Some(
            span::since(text, Utc::now())
                .map_err(|why| Problem::bad("bad_request", format!("since is {text:?}: {why}")))?,
        ),
    };
    let filter = DeadFilter {
        task: None,
        reason: request.reason.clone(),
        queue: request.queue.clone(),
        since,
        waiting: true,
        before: request.before,
        limit,
    };
    let page = state.db(move |db| async move { db.dead_letters(&filter).await }).await?;
    Ok((page.rows.iter().map(|row| row.id).collect(), page.next(|row| row.id)))
}

/// What would become of a letter.
async fn would(state: &ApiState, id: i64, again: bool) -> Result<Redriven, Problem> {
    let filter = DeadFilter { before: Some(id.saturating_add(1)), limit: 1, ..DeadFilter::default() };
    let rows = state.db(move |db| async move { db.dead_letters(&filter).await }).await?.rows;
    let told = |task_id, outcome, detail| Redriven { id, task_id, outcome, detail };
    Ok(match rows.into_iter().find(|row| row.id == id) {
        None => told(None, "unknown", None),
        Some(row) if row.erased_at.is_some() => told(None, "erased", None),
        Some(row) if row.redriven_at.is_some() && !again => {
            told(row.redriven_as, "skipped", Some("redriven before".into()))
        }
        Some(_) => told(None, "would_redrive", None),
    })
}

async fn one(state: &ApiState, id: i64, again: bool) -> Result<Redriven, Problem> {
    let told = |task_id, outcome, detail| Redriven { id, task_id, outcome, detail };
    let redrive = match record(state, id, again).await? {
        RedriveAnswer::Begun(redrive) => redrive,
        RedriveAnswer::Unknown => return Ok(told(None, "unknown", None)),
        RedriveAnswer::Erased => return Ok(told(None, "erased", None)),
        RedriveAnswer::Redriven(task) => return Ok(told(Some(task), "skipped", Some("redriven before".into()))),
    };
    let task = redrive.id;
    match publish(state, redrive).await? {
        Ok(()) => {
            mark(state, id, task).await?;
            tracing::info!(letter = id, %task, "dead letter redriven");
            Ok(told(Some(task), "redriven", None))
        }
        Err(error) => Ok(told(Some(task), "failed", Some(error.to_string()))),
    }
}

/// The new id is written down.
async fn record(state: &ApiState, letter: i64, again: bool) -> Result<RedriveAnswer, Problem> {
    state.change(move |db| async move { db.begin_redrive(letter, again).await }).await
}

/// The broker has confirmed it, or says why not.
async fn publish(state: &ApiState, redrive: Redrive) -> Result<Result<(), PublishError>, Problem> {
    let publication = Publication { target: Target::Tasks(redrive.queue.clone()), message: letter::message(&redrive) };
    let broker = state.parts.broker.clone();
    // On a task of its own: a client that hangs up must not leave a publication half done.
    let answers = tokio::spawn(async move { broker.publish(vec![publication]).await }).await;
    let answer = answers.map_err(|e| Problem::internal(&e))?.pop();
    answer.ok_or_else(|| Problem::internal(&"a publication was not answered"))
}

/// The letter is done with.
async fn mark(state: &ApiState, letter: i64, task: TaskId) -> Result<(), Problem> {
    state.change(move |db| async move { db.end_redrive(letter, task).await }).await
}
