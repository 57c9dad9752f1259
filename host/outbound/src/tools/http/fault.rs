//! Requests that failed.

use crate::proxy;
use crate::tools::link::key;
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

/// The error of a request, as rmcp takes it.
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
            () if error.is_timeout() && error.is_connect() => Fault::fatal("it took too long to be reached"),
            () if is_proxied && error.is_connect() => {
                Fault::fatal("it cannot be reached through its proxy; see tools.NAME.proxy")
            }
            () if error.is_connect() => Fault::fatal("it cannot be reached"),
            () if error.is_timeout() => Fault::fatal(format!("it did not answer in time; {UNKNOWN}")),
            () => Fault::fatal(format!("it broke the connection; {UNKNOWN}")),
        }
    }
}

/// Text of a transport's error that a guest may read.
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

/// Effect of an error on the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The session goes on.
    None,
    /// The server does not know the session, and did not carry the request out for want of it: it is sent again in a new one.
    Unread,
    /// The server may not know the session. It read the request, so that is not sent again; the next one begins a new session.
    Unsure,
}

/// Words for a session that a server does not know, in lower case. A word alone is none: calendars and databases have sessions.
const LOST: [&str; 21] = [
    "could not find session",
    "expired session",
    "invalid session",
    "missing session",
    "no session found",
    "no such session",
    "no valid session",
    "session does not exist",
    "session expired",
    "session has been closed",
    "session has been terminated",
    "session has expired",
    "session id",
    "session is closed",
    "session is invalid",
    "session is not found",
    "session not found",
    "session terminated",
    "session was not found",
    "session-id",
    "unknown session",
];
/// The same of a server that waits for `initialize`.
const NEW: [&str; 2] = ["not initialized", "uninitialized"];
/// Codes of errors that are about the request alone: unknown method, invalid parameters, no such resource.
const OF_REQUEST: [i64; 3] = [-32601, -32602, -32002];
/// JSON-RPC: what came is no request.
const INVALID_REQUEST: i64 = -32600;

/// Whether an error says that the server does not know the session. `members` are those of an error of JSON-RPC, `own` the id of the
/// request: a server that repeats it read the request.
pub(super) fn loss(status: StatusCode, members: Option<&Map<String, Value>>, words: &str, own: &Value) -> Loss {
    let words = words.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let id = members.and_then(|members| members.get("id")).and_then(key).filter(|id| !id.is_empty());
    let code =
        members.and_then(|members| members.get("error")).and_then(|error| error.get("code")).and_then(Value::as_i64);
    let is_read = id.is_some() && id == key(own);
    let is_rejected = matches!(status.as_u16(), 400 | 404 | 409 | 410 | 412 | 422);
    match () {
        () if is_read && status == StatusCode::NOT_FOUND && !code.is_some_and(|code| OF_REQUEST.contains(&code)) => {
            Loss::Unsure
        }
        () if is_read && is_rejected && (says(&LOST) || says(&NEW)) => Loss::Unsure,
        () if is_read => Loss::None,
        // Its id is a word of the server's own.
        () if id.is_some() && !is_rejected => Loss::None,
        // A server that failed may have begun.
        () if status.is_server_error() => match says(&LOST) || code == Some(INVALID_REQUEST) {
            true => Loss::Unsure,
            false => Loss::None,
        },
        () if status == StatusCode::NOT_FOUND || says(&LOST) || is_rejected && says(&NEW) => Loss::Unread,
        () if id.is_none() && code == Some(INVALID_REQUEST) => match status.is_success() {
            true => Loss::Unsure,
            false => Loss::Unread,
        },
        () => Loss::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn of(status: u16, error: Value) -> Loss {
        let words = error["error"]["message"].as_str().unwrap_or_default().to_owned();
        loss(StatusCode::from_u16(status).unwrap(), error.as_object(), &words, &json!(7))
    }

    fn rpc(id: Value, code: i64, message: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
    }

    #[test]
    fn request_that_was_read_is_never_sent_again() {
        for (status, code, message, expected) in [
            (409, -32000, "Session 17 is already booked", Loss::None),
            (409, -32000, "duplicate session id 17", Loss::Unsure),
            (404, -32000, "no such booking", Loss::Unsure),
            (404, -32601, "unknown method", Loss::None),
            (404, -32001, "Session not found", Loss::Unsure),
            (400, -32600, "Invalid Request: Session not found", Loss::Unsure),
            (400, -32600, "Invalid Request", Loss::None),
            (200, -32600, "Session not found", Loss::None),
            (500, -32603, "session expired", Loss::None),
        ] {
            assert_eq!(of(status, rpc(json!(7), code, message)), expected, "{status} {code} {message}");
            assert_eq!(of(status, rpc(json!("7"), code, message)), expected, "{status} {code} {message}");
        }
    }

    #[test]
    fn session_is_lost_where_the_server_says_so() {
        for (status, code, message, expected) in [
            (409, -32000, "Session 17 is already booked", Loss::None),
            (500, -32603, "This Session's transaction has been rolled back", Loss::None),
            (500, -32603, "session expired", Loss::Unsure),
            (500, -32600, "Invalid Request", Loss::Unsure),
            (200, -32000, "no luck", Loss::None),
            (200, -32600, "Invalid Request", Loss::Unsure),
            (400, -32600, "Invalid Request", Loss::Unread),
            (200, -32001, "Session not found", Loss::Unread),
            (400, -32000, "Bad Request: Server not initialized", Loss::Unread),
            (400, -32000, "Bad Request: No valid session ID provided", Loss::Unread),
            (404, -32000, "", Loss::Unread),
        ] {
            assert_eq!(of(status, rpc(Value::Null, code, message)), expected, "{status} {code} {message}");
        }
        let refused = |status: StatusCode, words: &str| loss(status, None, words, &json!(7));
        assert_eq!(refused(StatusCode::NOT_FOUND, ""), Loss::Unread);
        assert_eq!(refused(StatusCode::GONE, "session expired"), Loss::Unread);
        assert_eq!(refused(StatusCode::BAD_REQUEST, "Invalid session"), Loss::Unread);
        assert_eq!(refused(StatusCode::CONFLICT, "the session begins at nine"), Loss::None);
    }

    #[tokio::test]
    async fn time_out_after_the_request_was_sent_leaves_open_what_was_done() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::tls::client_of(false, None).unwrap())
            .no_proxy();
        let client = client.timeout(Duration::from_millis(200)).build().unwrap();
        let (_held, error) = tokio::join!(listener.accept(), client.post(url).body("{}").send());
        let error = error.unwrap_err();
        assert!(error.is_timeout() && !error.is_connect());
        assert!(Fault::no_answer(&error, false).to_string().contains(UNKNOWN));
    }
}
