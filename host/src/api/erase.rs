//! `DELETE /v1/tasks/{id}/data`: the task stays, what it holds of its producer and its guest goes.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::render::TaskJson;
use super::retry::not_ended;
use super::steering::Actor;
use super::tasks::{find, no_such_task};
use super::{ApiState, task_response};
use crate::db::{EraseAnswer, Fields};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// Erase the data of an ended task; the task stays.
///
/// Removes input, output, logs, texts of failures, details of events, targets and bodies of calls, and the dead letter that it came from.
#[utoipa::path(delete, path = "/v1/tasks/{id}/data", tag = "tasks", operation_id = "erase_task",
    responses((status = 200, description = "The task", body = TaskJson<'_>)))]
pub(super) async fn erase(
    State(state): State<Arc<ApiState>>,
    Extension(actor): Extension<Actor>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    state.audit(&actor, "task.erase", id, Some(1)).await?;
    match state.change(move |db| async move { db.erase(id).await }).await? {
        EraseAnswer::Unknown => Err(no_such_task(id)),
        EraseAnswer::NotEnded(now) => Err(not_ended(id, now)),
        EraseAnswer::Erased(_) => Ok(task_response(StatusCode::OK, &find(&state, id, Fields::ALL).await?)),
    }
}
