//! The reason for a task's state.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::{ApiState, respond};
use crate::explain::{self, Places, Responding};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// Explain a task's state: causes and remedies.
///
/// Responds within 5 seconds, also for an id without a record and while the database or the broker does not respond.
#[utoipa::path(get, path = "/v1/tasks/{id}/explain", tag = "tasks", operation_id = "explain_task",
    responses((status = 200, description = "The explanation", body = explain::Explanation)))]
pub(super) async fn explain(
    State(state): State<Arc<ApiState>>,
    OfTask(id): OfTask,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    let parts = &state.parts;
    let readiness = parts.readiness.borrow().clone();
    let places = Places {
        db: Ok(parts.db.clone()),
        broker: Ok(parts.broker.clone()),
        queues: parts.queues.clone(),
        daemon: Some(Responding {
            ready: readiness.ready,
            reasons: readiness.reasons.into_iter().map(|reason| (reason.code, reason.message)).collect(),
        }),
        embedded: false,
    };
    let facts = explain::look(id, places).await;
    Ok(respond(StatusCode::OK, &explain::explain(&facts)))
}
