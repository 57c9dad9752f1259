//! Requests that failed.

use crate::proxy;
use crate::tools::intake;
use crate::tools::words::causes;
use http::StatusCode;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use serde_json::{Map, Value};

/// Why a request has no answer. A guest may read it: it has no address and no credential.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(in crate::tools) struct Fault {
    words: String,
    /// The session ends with it.
    pub(in crate::tools) ends_session: bool,
    /// The answer is longer than allowed.
    pub(in crate::tools) is_too_large: bool,
    /// The server may speak the transport of revision 2024-11-05.
    pub(super) may_be_old: bool,
}

/// What rmcp is told of a request that failed.
pub(in crate::tools) type Failure = StreamableHttpError<Fault>;

/// Stands behind the reason where a request may have been carried out.
pub(super) const UNKNOWN: &str = "whether it did what it was asked is not known";

impl Fault {
    fn new(words: String) -> Fault {
        Fault { words, ends_session: false, is_too_large: false, may_be_old: false }
    }

    /// The request failed, and the session may go on.
    pub(super) fn once(words: impl Into<String>) -> Failure {
        Failure::Client(Fault::new(words.into()))
    }

    /// The session fails with it.
    pub(super) fn fatal(words: impl Into<String>) -> Failure {
        Failure::Client(Fault { ends_session: true, ..Fault::new(words.into()) })
    }

    /// The server took the request, and has no answer to it on this connection.
    pub(super) fn unanswered(words: &str) -> Failure {
        Failure::Client(Fault { may_be_old: true, ..Fault::new(format!("{words}; {UNKNOWN}")) })
    }

    /// The answer has more than so many bytes.
    pub(super) fn too_large(most: usize) -> Failure {
        Failure::Client(Fault { is_too_large: true, ..Fault::new(format!("its answer has more than {most} bytes")) })
    }

    /// Nothing came back.
    pub(super) fn no_answer(error: &reqwest::Error, is_proxied: bool) -> Failure {
        match () {
            () if is_proxied && proxy::failure(error).is_some() => {
                Fault::fatal("its proxy does not connect to it; see tools.NAME.proxy")
            }
            () if error.is_timeout() => Fault::fatal("it took too long to be reached"),
            () if is_proxied && error.is_connect() => {
                Fault::fatal("it cannot be reached through its proxy; see tools.NAME.proxy")
            }
            () if error.is_connect() => Fault::fatal("it cannot be reached"),
            () => Fault::fatal(format!("it broke the connection; {UNKNOWN}")),
        }
    }
}

/// What a guest may read of a transport's error.
pub(in crate::tools) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Client(fault)) => fault.to_string(),
        Some(Failure::SessionExpired) => "it lost its session, and the next one as well".to_owned(),
        Some(Failure::SessionRecoveryTimeout) => format!("it lost its session, and began no other in time; {UNKNOWN}"),
        Some(Failure::UnexpectedServerResponse(words)) => format!("its answer is none of the protocol: {words}"),
        _ => causes(error),
    }
}

/// Whether a status may come from a server of another revision or transport.
pub(super) fn may_be_older(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
}

/// The error of a request that the server rejected by its HTTP status.
pub(super) fn refusal(status: StatusCode, words: &str) -> Failure {
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    let told = format!("it answered HTTP {status}{said}");
    match status {
        StatusCode::UNAUTHORIZED => Fault::fatal("it wants other credentials (HTTP 401)"),
        StatusCode::FORBIDDEN => Fault::once("its credentials do not allow this (HTTP 403)"),
        _ if status.is_server_error() => Fault::once(format!("{told}; {UNKNOWN}")),
        _ => Fault::once(told),
    }
}

/// Whether a rejection says that the server does not know the session. It did not carry the request out then.
pub(super) fn lost_session(status: StatusCode, words: &str, had_session: bool) -> bool {
    let words = words.to_lowercase();
    let is_new = ["not initialized", "uninitialized", "session id"].iter().any(|part| words.contains(part));
    match status.as_u16() {
        404 if had_session => true,
        400 | 404 | 409 | 410 | 412 | 422 => is_new || had_session && words.contains("session"),
        _ => false,
    }
}

/// Whether an error is that of a server that did not read the request for want of its session: it has no id, and says so.
pub(super) fn is_unread(members: &Map<String, Value>) -> bool {
    let has_id = members.get("id").and_then(Value::as_str).is_some_and(|id| !id.is_empty())
        || members.get("id").is_some_and(Value::is_number);
    let Some(error) = members.get("error").filter(|_| intake::is_error(members) && !has_id) else { return false };
    error["code"] == -32600 || error["message"].as_str().unwrap_or_default().to_lowercase().contains("session")
}
