//! Errors as RFC 9457 problem documents with a stable `code`.

use crate::db::DbError;
use crate::task::Rejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// Why a request has no other answer. Programs match on `code`, people read `detail`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem of that status and code.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), more: Map::new() }
    }

    /// The request's own fault, of no finer kind.
    pub(super) fn bad(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The server's own fault: the detail goes to the log, not to the client.
    pub(super) fn internal(detail: &dyn std::fmt::Display) -> Problem {
        tracing::error!(%detail, "a request failed for a defect of the host");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a defect of the host; its log says more")
    }

    /// The same with a member more, for programs.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(name.into(), value.into());
        self
    }

    /// The same, saying in which of several tasks.
    #[must_use]
    pub(super) fn at(mut self, index: usize) -> Problem {
        self.detail = format!("tasks[{index}]: {}", self.detail);
        self.with("index", index)
    }

    fn body(&self) -> Value {
        let mut body = self.more.clone();
        body.insert("type".into(), "about:blank".into());
        body.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("code".into(), self.code.into());
        body.insert("detail".into(), self.detail.clone().into());
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Defect(detail) => Problem::internal(&detail),
            other => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "db_unavailable", other.to_string()),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.code {
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "content_type" | "content_encoding" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "bad_plugin" | "bad_input" | "bad_options" => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, rejection.code, rejection.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_a_code() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_plugin", "no plugin x")
            .with("known", vec!["word-count"])
            .at(3);
        assert_eq!(
            problem.body(),
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "unknown_plugin",
                "detail": "tasks[3]: no plugin x", "known": ["word-count"], "index": 3,
            })
        );
        let response = problem.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_defect_of_the_host_is_not_told_to_the_client() {
        let problem = Problem::from(DbError::Defect("SELECT secret".into()));
        assert!(!problem.body().to_string().contains("SELECT"), "{problem:?}");
    }
}
