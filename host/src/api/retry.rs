//! `POST /v1/tasks/{id}/retry`: a new task that asks what an ended one was asked.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::render::TaskJson;
use super::steering::Actor;
use super::submit::{Hosts, admit, idempotency_key};
use super::tasks::{find, no_such_task};
use super::{ApiState, task_response};
use crate::db::{AskedTask, Fields, NewTask, RetryAnswer};
use crate::task::{Options, State as TaskState, TaskId, TaskMessage};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Create a new task with the input of an ended one.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", tag = "tasks", operation_id = "retry_task",
    params(
        ("once" = Option<bool>, Query, description = "`true`: a task that was retried before is not retried again."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description =
            "A repeat with the same key responds with the same new task."),
    ),
    responses(
        (status = 201, description = "The new task", body = TaskJson<'_>, headers(("Location" = String, description = "Its path"))),
        (status = 200, description = "The new task, which an earlier request created", body = TaskJson<'_>,
            headers(("Location" = String, description = "Its path"))),
    ))]
pub(super) async fn retry(
    State(state): State<Arc<ApiState>>,
    Extension(actor): Extension<Actor>,
    OfTask(id): OfTask,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    let once = params.only(&["once"])?.read("once", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    let new = idempotency_key(&headers)?.unwrap_or_else(TaskId::now_v7);
    let asked = state.db(move |db| async move { db.asked(id).await }).await?.ok_or_else(|| no_such_task(id))?;
    let task = again(&state, id, new, asked).await?;
    state.audit(&actor, "task.retry", id, Some(1)).await?;
    let status = match state.change(move |db| async move { db.retry(&task, once).await }).await? {
        RetryAnswer::Created => StatusCode::CREATED,
        RetryAnswer::Exists => StatusCode::OK,
        RetryAnswer::Unknown => return Err(no_such_task(id)),
        RetryAnswer::NotEnded(state) => return Err(not_ended(id, state)),
        RetryAnswer::Erased => return Err(erased(id)),
        RetryAnswer::Retried(by, state) => {
            let detail = format!("the task {id} has been retried as {by}, which is {state}");
            let (code, detail) = match state.is_terminal() {
                true => ("already_retried", detail),
                false => ("retry_under_way", format!("{detail}; wait for its end, or cancel it")),
            };
            return Err(refuse(code, detail).with("retry", by.to_string()).with("state", state.as_str()));
        }
        RetryAnswer::Conflict => {
            let detail = "this Idempotency-Key was used for something else; take another";
            return Err(refuse("conflict", detail).with("id", new.to_string()));
        }
    };
    state.parts.outbox.notify_one();
    let mut response = task_response(status, &find(&state, new, Fields::ALL).await?);
    // A UUID is visible ASCII.
    if let Ok(location) = format!("/v1/tasks/{new}").parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The same message under another id, if some live host can run it.
async fn again(state: &ApiState, of: TaskId, new: TaskId, asked: AskedTask) -> Result<NewTask, Problem> {
    if !asked.state.is_terminal() {
        return Err(not_ended(of, asked.state));
    }
    let Some(old) = asked.message else {
        return Err(match asked.erased_at {
            Some(_) => erased(of),
            None => {
                let detail = format!("the message of the task {of} was unusable, so there is no input to retry with");
                refuse("no_input", format!("{detail}; see its dead letter: agentry dead list"))
            }
        });
    };
    let options = ahead(old.options, Utc::now());
    let limits = &state.parts.message_limits;
    let mut message = TaskMessage::assemble(Some(new), &old.plugin.to_string(), &old.input, options, limits)?;
    message.reply_to = old.reply_to;
    message.correlation_id = old.correlation_id;
    message.traceparent = old.traceparent;
    let task = admit(state, &mut Hosts::default(), message, Some(asked.queue)).await?;
    Ok(NewTask { retry_of: Some(of), ..task })
}

/// The options without times that have passed: what was late once would be late at once.
fn ahead(options: Options, now: DateTime<Utc>) -> Options {
    Options {
        run_at: options.run_at.filter(|at| *at > now),
        deadline: options.deadline.filter(|at| *at > now),
        ..options
    }
}

pub(super) fn not_ended(id: TaskId, state: TaskState) -> Problem {
    refuse("not_ended", format!("the task {id} has not ended: it is {state}")).with("state", state.as_str())
}

fn erased(id: TaskId) -> Problem {
    refuse("erased", format!("the input of the task {id} was erased"))
}

fn refuse(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_have_passed_are_left_out() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().ok();
        let options = Options {
            run_at: at("2026-01-01T00:00:00Z"),
            deadline: at("2026-01-03T00:00:00Z"),
            priority: Some(7),
            ..Options::default()
        };
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(ahead(options.clone(), now), Options { run_at: None, ..options });
    }
}
