//! Reading tasks, waiting for their end, calling them off.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::render::{CallJson, TaskJson};
use super::share::Share;
use super::steering::Actor;
use super::{ApiState, follow, respond, task_response};
use crate::db::{CallCursor, CancelAnswer, Fields, TaskCursor, TaskFilter, TaskRow};
use crate::task::{FailureKind, PluginRef, State as TaskState, TaskId};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Rows of a page, unless asked otherwise, and at most.
pub(super) const PAGE: u32 = 50;
pub(super) const LONGEST_PAGE: u32 = 500;
/// Lines or events of an answer at most; the next begin after `next_after`.
const LINES: u32 = 1_000;
/// Calls of an answer with their bodies at most: each may have twice `calls.body_kib`.
const WITH_BODIES: u32 = 50;

/// The values of `cursor`. Those of earlier builds were ids, in whose order tasks are not listed any more.
const CURSOR: &str = "the next_cursor of another page (of an earlier build: begin again without cursor)";

pub(super) fn no_such_task(id: TaskId) -> Problem {
    Problem::not_found(format!("there is no task {id}"))
}

pub(super) async fn find(state: &ApiState, id: TaskId, fields: Fields) -> Result<TaskRow, Problem> {
    let row = state.db(move |db| async move { db.task(id, fields).await }).await?;
    row.map(|row| state.shown(row)).ok_or_else(|| no_such_task(id))
}

/// `GET /v1/tasks/{id}`
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    Ok(task_response(StatusCode::OK, &find(&state, id, Fields::ALL).await?))
}

/// `GET /v1/tasks/{id}/wait?timeout=30`
pub(super) async fn wait(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    let seconds = params.only(&["timeout"])?.seconds("timeout", 300.0)?.unwrap_or(30.0);
    let until = tokio::time::sleep(Duration::from_secs_f64(seconds));
    let mut waiter = state.waiters.register(id);
    let row = find(&state, id, Fields::ALL).await?;
    if row.state.is_terminal() {
        return Ok(task_response(StatusCode::OK, &row));
    }
    tokio::select! {
        () = waiter.ended() => {}
        () = until => {}
        () = state.closing.cancelled() => {}
    }
    Ok(task_response(StatusCode::OK, &find(&state, id, Fields::ALL).await?))
}

/// `GET /v1/tasks`
pub(super) async fn list(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    let (filter, fields) = filter(params)?;
    let mut page = state.db(move |db| async move { db.tasks(&filter, fields).await }).await?;
    page.rows = page.rows.into_iter().map(|row| state.shown(row)).collect();
    let next_cursor = page.next(|row| TaskCursor::from(row).to_string());
    let tasks: Vec<TaskJson<'_>> = page.rows.iter().map(|row| TaskJson::new(row, fields)).collect();
    #[derive(serde::Serialize)]
    struct Page<'a> {
        tasks: Vec<TaskJson<'a>>,
        next_cursor: Option<String>,
    }
    Ok(respond(StatusCode::OK, &Page { tasks, next_cursor }))
}

fn filter(params: Params) -> Result<(TaskFilter, Fields), Problem> {
    let params = params
        .only(&["state", "plugin", "queue", "label", "kind", "since", "retry_of", "limit", "cursor", "fields"])?;
    let kinds = FailureKind::ALL.map(FailureKind::as_str).join(", ");
    let states = TaskState::ALL.map(TaskState::as_str).join(", ");
    let fields = params.read("fields", "input, output or both, separated by a comma", |text| {
        text.split(',').try_fold(Fields::default(), |fields, part| match part.trim() {
            "input" => Some(Fields { input: true, ..fields }),
            "output" => Some(Fields { output: true, ..fields }),
            _ => None,
        })
    })?;
    let filter = TaskFilter {
        state: params.read("state", &format!("one of {states}"), TaskState::parse)?,
        plugin: params
            .read("plugin", "the name of a plugin", |text| PluginRef::is_name(text).then(|| text.to_owned()))?,
        queue: params.text("queue").map(str::to_owned),
        label: params.read("label", "KEY=VALUE", |text| {
            text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        })?,
        kind: params.read("kind", &format!("one of {kinds}"), FailureKind::parse)?,
        since: params.since("since")?,
        retry_of: params.read("retry_of", "the id of a task", |text| text.parse().ok())?,
        before: params.read("cursor", CURSOR, TaskCursor::parse)?,
        limit: params.number("limit", 1..=LONGEST_PAGE)?.unwrap_or(PAGE),
    };
    Ok((filter, fields.unwrap_or_default()))
}

/// `GET /v1/tasks/{id}/events`
pub(super) async fn events(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    Extension(share): Extension<Share>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let after = after(&params.only(&["after"])?, &headers)?;
    find(&state, id, Fields::default()).await?;
    if follow::asked(&headers) {
        return follow::start(state, &share, id, after, follow::Kind::Events).await;
    }
    let page = state.db(move |db| async move { db.events(id, after, LINES).await }).await?;
    Ok(respond(StatusCode::OK, &json!({"events": page.rows, "next_after": page.next(|row| row.seq)})))
}

/// `GET /v1/tasks/{id}/logs`
pub(super) async fn logs(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    Extension(share): Extension<Share>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let after = after(&params.only(&["after"])?, &headers)?;
    find(&state, id, Fields::default()).await?;
    if follow::asked(&headers) {
        return follow::start(state, &share, id, after, follow::Kind::Logs).await;
    }
    let page = state.db(move |db| async move { db.logs(id, after, LINES).await }).await?;
    Ok(respond(StatusCode::OK, &json!({"logs": page.rows, "next_after": page.next(|row| row.seq)})))
}

/// Where to begin: `?after=`, or what a reader of events sends when it comes back.
fn after(params: &Params, headers: &HeaderMap) -> Result<i64, Problem> {
    if let Some(after) = params.number("after", 0..=i64::MAX)? {
        return Ok(after);
    }
    let Some(id) = headers.get("last-event-id") else { return Ok(0) };
    let id = id.to_str().ok().and_then(|text| text.parse().ok()).filter(|id: &i64| *id >= 0);
    id.ok_or_else(|| Problem::bad("bad_query", "Last-Event-ID is not the id of an event that was sent"))
}

/// `GET /v1/tasks/{id}/attempts`
pub(super) async fn attempts(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    find(&state, id, Fields::default()).await?;
    let rows = state.db(move |db| async move { db.attempts(id).await }).await?;
    Ok(respond(StatusCode::OK, &json!({"attempts": rows})))
}

/// `GET /v1/tasks/{id}/calls?after=FENCE.SEQ&limit=&bodies=true`: what its ended attempts called, and with what.
pub(super) async fn calls(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    let params = params.only(&["after", "limit", "bodies"])?;
    let after = params.read("after", "the next_after of another page", CallCursor::parse)?.unwrap_or_default();
    let bodies = params.read("bodies", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    let most = if bodies { WITH_BODIES } else { LINES };
    let limit = params.number("limit", 1..=LINES)?.unwrap_or(most).min(most);
    find(&state, id, Fields::default()).await?;
    let page = state.db(move |db| async move { db.calls(id, after, limit, bodies).await }).await?;
    let next_after = page.next(|row| CallCursor::from(row).to_string());
    #[derive(serde::Serialize)]
    struct Page<'a> {
        calls: Vec<CallJson<'a>>,
        next_after: Option<String>,
    }
    let calls = page.rows.iter().map(|row| CallJson::new(row, bodies)).collect();
    Ok(respond(StatusCode::OK, &Page { calls, next_after }))
}

/// `POST /v1/tasks/{id}/cancel`
pub(super) async fn cancel(
    State(state): State<Arc<ApiState>>,
    Extension(actor): Extension<Actor>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    state.audit(&actor, "task.cancel", id, Some(1)).await?;
    match state.db(move |db| async move { db.cancel(id).await }).await? {
        CancelAnswer::Unknown => return Err(no_such_task(id)),
        CancelAnswer::Terminal(state) => {
            let detail = format!("the task {id} has ended ({state}) and never changes again");
            return Err(Problem::new(StatusCode::CONFLICT, "already_ended", detail).with("state", state.as_str()));
        }
        CancelAnswer::Cancelled => {}
        // Another host hears of it with its next renewal.
        CancelAnswer::Requested(_) => (state.stop)(id),
    }
    Ok(task_response(StatusCode::ACCEPTED, &find(&state, id, Fields::ALL).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::FromRequestParts;

    async fn read(query: &str) -> Result<(TaskFilter, Fields), Problem> {
        let request = axum::http::Request::get(format!("/v1/tasks?{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        filter(Params::from_request_parts(&mut parts, &()).await?)
    }

    #[tokio::test]
    async fn a_filter_is_read_as_it_is_written() {
        let (filter, fields) =
            read("state=failed&plugin=word-count&label=team%3Dsearch&limit=500&fields=output").await.unwrap();
        assert_eq!(filter.state, Some(TaskState::Failed));
        assert_eq!(filter.label, Some(("team".into(), "search".into())));
        assert_eq!(filter.limit, 500);
        assert_eq!(fields, Fields { input: false, output: true });
    }

    #[tokio::test]
    async fn a_filter_that_cannot_be_is_refused_by_name() {
        for (query, part) in [
            ("state=done", "state is \\\"done\\\"; it takes one of scheduled, pending"),
            ("limit=501", "limit is \\\"501\\\"; it takes a number from 1 to 500"),
            ("limit=0", "it takes a number from 1 to 500"),
            ("label=team", "it takes KEY=VALUE"),
            ("fields=logs", "it takes input, output or both"),
            ("cursor=x", "it takes the next_cursor of another page"),
            ("cursor=0192d0a0-aaaa-7000-8000-00000000000a", "of an earlier build: begin again without cursor"),
            ("kind=crash", "it takes one of plugin_error, trap"),
            ("since=yesterday", "or a duration such as 1h"),
            ("retry_of=x", "it takes the id of a task"),
            ("plugin=No", "it takes the name of a plugin"),
        ] {
            let told = format!("{:?}", read(query).await.unwrap_err());
            assert!(told.contains(part), "{query}: {told}");
        }
    }
}
