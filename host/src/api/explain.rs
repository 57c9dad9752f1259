//! The reason for a task's state.

use super::params::{OfTask, Params};
use super::problem::Problem;
use super::{ApiState, respond};
use crate::explain::{self, Places, Responding};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// `GET /v1/tasks/{id}/explain`: 200 also if there is no such task or the database does not answer, since that is what is
/// asked.
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
