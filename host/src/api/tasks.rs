//! Reading tasks, waiting for their end, calling them off.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::render::{CallJson, TaskJson};
use super::shapes::{AttemptList, CallPage, EventPage, LogPage, TaskPage};
use super::share::Share;
use super::steering::Actor;
use super::{ApiState, follow, respond, task_response};
use crate::db::{CallCursor, CancelAnswer, Fields, TaskCursor, TaskFilter, TaskRow};
use crate::task::{FailureKind, PluginRef, State as TaskState, TaskId};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
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

/// Read one task.
///
/// A task that came over AMQP has no row while it waits in its queue and until it has run for `worker.claim_after_ms`.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "get_task",
    responses((status = 200, description = "The task", body = TaskJson<'_>)))]
pub(super) async fn show(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    Ok(task_response(StatusCode::OK, &find(&state, id, Fields::ALL).await?))
}

/// Wait for a task's end.
///
/// Responds when the task has ended, when the time is up, or when the daemon shuts down: see `state`.
#[utoipa::path(get, path = "/v1/tasks/{id}/wait", tag = "tasks", operation_id = "wait_for_task",
    params(("timeout" = Option<String>, Query, example = "5", description =
        "Seconds, 0 to 300, or a duration such as `1m`; default 30.")),
    responses((status = 200, description = "The task, as it is then", body = TaskJson<'_>)))]
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

/// List tasks, newest first.
///
/// `state`, `plugin`, `queue` and `kind` take several values, separated by commas; at most 16 combinations of them.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", operation_id = "list_tasks",
    params(
        ("state" = Option<Vec<TaskState>>, Query, style = Form, explode = false, description = "Tasks in one of these states."),
        ("plugin" = Option<Vec<String>>, Query, style = Form, explode = false, description =
            "Tasks of the plugins of these names."),
        ("queue" = Option<Vec<String>>, Query, style = Form, explode = false, description = "Tasks of these queues."),
        ("label" = Option<String>, Query, description = "Tasks with this label, `KEY=VALUE`."),
        ("kind" = Option<Vec<FailureKind>>, Query, style = Form, explode = false, description =
            "Tasks whose last failure is of one of these kinds."),
        ("since" = Option<String>, Query, example = "1h", description =
            "Tasks that ended since then; of those that have not ended, the ones created since then. A time, or a duration before now."),
        ("retry_of" = Option<uuid::Uuid>, Query, description = "Retries of this task."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Page size; default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of another page."),
        ("fields" = Option<String>, Query, example = "input,output", description =
            "Adds `input`, `output` or both, separated by a comma."),
    ),
    responses((status = 200, description = "A page", body = TaskPage<'_>)))]
pub(super) async fn list(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    let (any, fields) = filters(params)?;
    let mut page = state.db(move |db| async move { db.tasks(&any, fields).await }).await?;
    page.rows = page.rows.into_iter().map(|row| state.shown(row)).collect();
    let next_cursor = page.next(|row| TaskCursor::from(row).to_string());
    let tasks = page.rows.iter().map(|row| TaskJson::new(row, fields)).collect();
    Ok(respond(StatusCode::OK, &TaskPage { tasks, next_cursor }))
}

/// Filters of one request at most, where parameters are lists: one for each combination of their entries.
const FILTERS: usize = 16;

/// One filter for each combination of the entries of lists, and which large fields are asked for.
fn filters(params: Params) -> Result<(Vec<TaskFilter>, Fields), Problem> {
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
    let same = TaskFilter {
        label: params.read("label", "KEY=VALUE", |text| {
            text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        })?,
        since: params.since("since")?,
        retry_of: params.read("retry_of", "the id of a task", |text| text.parse().ok())?,
        before: params.read("cursor", CURSOR, TaskCursor::parse)?,
        limit: params.number("limit", 1..=LONGEST_PAGE)?.unwrap_or(PAGE),
        ..TaskFilter::default()
    };
    let of_state = params.list("state", &format!("one of {states}"), TaskState::parse)?;
    let of_plugin = params.list("plugin", "the name of a plugin", |t| PluginRef::is_name(t).then(|| t.to_owned()))?;
    let of_queue = params.list("queue", "the name of a queue", |text| Some(text.to_owned()))?;
    let of_kind = params.list("kind", &format!("one of {kinds}"), FailureKind::parse)?;
    let combinations = [of_state.len(), of_plugin.len(), of_queue.len(), of_kind.len()].iter().product::<usize>();
    if combinations > FILTERS {
        let detail = format!(
            "state, plugin, queue and kind make {combinations} combinations; allowed are {FILTERS}: send several requests"
        );
        return Err(Problem::bad("bad_query", detail));
    }
    let mut any = Vec::with_capacity(combinations);
    for state in of_state {
        for plugin in &of_plugin {
            for queue in &of_queue {
                any.extend(of_kind.iter().map(|kind| {
                    let (plugin, queue, kind) = (plugin.clone(), queue.clone(), *kind);
                    TaskFilter { state, plugin, queue, kind, ..same.clone() }
                }));
            }
        }
    }
    Ok((any, fields.unwrap_or_default()))
}

/// A task's history, oldest first.
///
/// With `Accept: text/event-stream` the task is followed as server-sent events until it has ended.
#[utoipa::path(get, path = "/v1/tasks/{id}/events", tag = "tasks", operation_id = "list_events",
    params(
        ("after" = Option<i64>, Query, minimum = 0, description = "Only events with a higher `seq`."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same as `after`, sent by a reader that resumes."),
    ),
    responses(
        (status = 200, description = "The history, or a stream of it",
            content((EventPage = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "Streams only: the task has ended, and nothing follows"),
    ))]
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
    let next_after = page.next(|row| row.seq);
    Ok(respond(StatusCode::OK, &EventPage { events: page.rows, next_after }))
}

/// The lines that a task's guests logged, oldest first.
///
/// With `Accept: text/event-stream` the task is followed as server-sent events until it has ended.
#[utoipa::path(get, path = "/v1/tasks/{id}/logs", tag = "tasks", operation_id = "list_logs",
    params(
        ("after" = Option<i64>, Query, minimum = 0, description = "Only lines with a higher `seq`."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same as `after`, sent by a reader that resumes."),
    ),
    responses(
        (status = 200, description = "The log, or a stream of it",
            content((LogPage = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "Streams only: the task has ended, and nothing follows"),
    ))]
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
    let next_after = page.next(|row| row.seq);
    Ok(respond(StatusCode::OK, &LogPage { logs: page.rows, next_after }))
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

/// A task's ended attempts, with what each used.
#[utoipa::path(get, path = "/v1/tasks/{id}/attempts", tag = "tasks", operation_id = "list_attempts",
    responses((status = 200, description = "The attempts", body = AttemptList)))]
pub(super) async fn attempts(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    find(&state, id, Fields::default()).await?;
    let attempts = state.db(move |db| async move { db.attempts(id).await }).await?;
    Ok(respond(StatusCode::OK, &AttemptList { attempts }))
}

/// The calls of capabilities of a task's ended attempts.
#[utoipa::path(get, path = "/v1/tasks/{id}/calls", tag = "tasks", operation_id = "list_calls",
    params(
        ("after" = Option<String>, Query, pattern = r"^[0-9]{1,18}\.[0-9]{1,18}$", description = "`next_after` of another part: `FENCE.SEQ`."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description =
            "Calls of an answer; default 1,000. With bodies at most 50."),
        ("bodies" = Option<bool>, Query, description = "Whether to return bodies, where they were recorded."),
    ),
    responses((status = 200, description = "The calls", body = CallPage<'_>)))]
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
    let calls = page.rows.iter().map(|row| CallJson::new(row, bodies)).collect();
    Ok(respond(StatusCode::OK, &CallPage { calls, next_after }))
}

/// Cancel a task.
///
/// A task that waits is cancelled at once. A running guest is stopped within a second, unless its end comes first.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks", operation_id = "cancel_task",
    responses((status = 202, description = "The task", body = TaskJson<'_>)))]
pub(super) async fn cancel(
    State(state): State<Arc<ApiState>>,
    Extension(actor): Extension<Actor>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    state.audit(&actor, "task.cancel", id, Some(1)).await?;
    match state.change(move |db| async move { db.cancel(id).await }).await? {
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

    async fn read(query: &str) -> Result<(Vec<TaskFilter>, Fields), Problem> {
        let request = axum::http::Request::get(format!("/v1/tasks?{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        filters(Params::from_request_parts(&mut parts, &()).await?)
    }

    #[tokio::test]
    async fn a_filter_is_read_as_it_is_written() {
        let (any, fields) =
            read("state=failed&plugin=word-count&label=team%3Dsearch&limit=500&fields=output").await.unwrap();
        let [filter] = &any[..] else { panic!("{any:?}") };
        assert_eq!(filter.state, Some(TaskState::Failed));
        assert_eq!(filter.label, Some(("team".into(), "search".into())));
        assert_eq!(filter.limit, 500);
        assert_eq!(fields, Fields { input: false, output: true });
    }

    #[tokio::test]
    async fn lists_are_every_combination_of_their_entries() {
        let (any, _) = read("state=failed,cancelled,failed&queue=a%2Cb&plugin=word-count").await.unwrap();
        let found: Vec<_> = any.iter().map(|one| (one.state, one.queue.as_deref(), one.plugin.as_deref())).collect();
        let of = |state, queue| (Some(state), Some(queue), Some("word-count"));
        use TaskState::{Cancelled, Failed};
        assert_eq!(found, [of(Failed, "a"), of(Failed, "b"), of(Cancelled, "a"), of(Cancelled, "b")]);
        let many = read("state=failed,cancelled,completed&queue=a,b,c,d,e,f").await.unwrap_err();
        assert!(format!("{many:?}").contains("make 18 combinations; allowed are 16"), "{many:?}");
        assert!(read("state=failed,").await.is_err());
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
