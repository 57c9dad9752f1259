//! Liveness and readiness.

use super::shapes::Health;
use super::{ApiState, guard::Caller};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// Reason while plugins are being compiled.
pub const LOADING: &str = "plugins";

/// Whether tasks are taken, and the reasons if not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether tasks are taken.
    pub ready: bool,
    /// What is missing. A reason may also stand beside `true`, where the host is ready all the same.
    pub reasons: Vec<Reason>,
}

impl Readiness {
    /// Whether plugins are still being compiled: which there are is not known yet.
    pub(super) fn is_loading(&self) -> bool {
        self.reasons.iter().any(|reason| reason.code == LOADING)
    }
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Reason {
    /// A stable word: `plugins`, `starting`, `database`, `broker`, `consumer`, `closing` …
    pub code: String,
    /// The reason for a person.
    pub message: String,
}

/// Whether the process responds. No dependency is asked.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "get_health",
    responses((status = 200, description = "The process responds", body = Health)))]
pub(super) async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// Whether tasks are taken, and the reasons if not.
///
/// A caller without a token sees `ready` only.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "get_readiness",
    responses(
        (status = 200, description = "Tasks are taken", body = Readiness),
        (status = 503, description = "Tasks are not taken now", body = Readiness),
    ))]
pub(super) async fn readyz(State(state): State<Arc<ApiState>>, Extension(caller): Extension<Caller>) -> Response {
    let mut readiness = state.parts.readiness.borrow().clone();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if caller == Caller::Unknown {
        readiness.reasons.clear();
        return (status, Json(json!({"ready": readiness.ready}))).into_response();
    }
    (status, Json(readiness)).into_response()
}
