//! Liveness and readiness.

use super::{ApiState, guard::Caller};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// Reason while plugins are being compiled.
pub const LOADING: &str = "plugins";

/// Whether tasks are taken in, and if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    /// Everything that is needed is there.
    pub ready: bool,
    /// What is missing; empty when ready.
    pub reasons: Vec<Reason>,
}

impl Readiness {
    /// Whether plugins are still being compiled: which there are is not known yet.
    pub(super) fn is_loading(&self) -> bool {
        self.reasons.iter().any(|reason| reason.code == LOADING)
    }
}

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reason {
    /// A stable word: `plugins`, `starting`, `database`, `broker`, `consumer`, `closing` …
    pub code: String,
    /// What it is and since when, for a person.
    pub message: String,
}

/// `GET /healthz`: this process answers. No dependency is asked.
pub(super) async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `GET /readyz`: 200 or 503; the reasons only to those who may read.
pub(super) async fn readyz(State(state): State<Arc<ApiState>>, Extension(caller): Extension<Caller>) -> Response {
    let mut readiness = state.parts.readiness.borrow().clone();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if caller == Caller::Unknown {
        readiness.reasons.clear();
        return (status, Json(json!({"ready": readiness.ready}))).into_response();
    }
    (status, Json(readiness)).into_response()
}
