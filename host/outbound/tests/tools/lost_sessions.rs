//! Servers that do not know a session any more: it is begun anew, and no call is made twice.

use crate::odd_http::{echoes, odd, settings};
use crate::raw_server::{Log, RawServer, Request, http, usual};
use crate::*;

#[tokio::test]
async fn lost_session_is_begun_anew_and_the_call_made_once() {
    let rpc = |code: i64, message: &str| {
        json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}}).to_string()
    };
    for (status, body) in [
        ("404 Not Found", rpc(-32001, "Session not found")),
        ("404 Not Found", String::new()),
        ("400 Bad Request", rpc(-32000, "Bad Request: No valid session ID provided")),
        ("400 Bad Request", rpc(-32000, "Bad Request: Server not initialized")),
        ("400 Bad Request", "Invalid session".to_owned()),
        ("410 Gone", "session expired".to_owned()),
        ("404 Not Found", "{\"jsonrpc\":\"2.0\",\"id\":2}".to_owned()),
        ("400 Bad Request", json!({"jsonrpc": "2.0", "id": 2, "error": {"code": -32600, "message": "Invalid Request: Session not found"}}).to_string()),
        ("200 OK", json!({"jsonrpc": "2.0", "id": "", "error": {"code": -32001, "message": "Session not found"}}).to_string()),
    ] {
        let lost = body.clone();
        let server = RawServer::start(move |log: &Log, request: &Request| {
            let is_first = log.count("initialize") < 2;
            if is_first && request.message["params"]["arguments"]["text"] == "lost" {
                return http(status, &["Content-Type: application/json"], &lost);
            }
            usual(request)
        })
        .await;
        let tools = only(settings(&server));
        let session = session(&tools);
        echoes(&session).await;
        assert_eq!(text(&session, "echo", json!({"text": "lost"})).await, "lost", "{status} {body}");
        assert_eq!((server.log.count("initialize"), server.log.count("tools/call")), (2, 3), "{status} {body}");
        assert_eq!(tools.health()[0].trouble, None);
    }
}

#[tokio::test]
async fn call_that_was_read_is_never_made_again() {
    for (status, own, code, message, sessions) in [
        ("409 Conflict", true, -32000, "Session 17 is already booked", 1),
        ("500 Internal Server Error", false, -32603, "This Session's transaction has been rolled back", 1),
        ("404 Not Found", true, -32001, "Session not found", 2),
        // Without words it is not clear what was read; the next call has a new session.
        ("200 OK", false, -32600, "Invalid Request", 2),
    ] {
        let server = odd(move |request| {
            let id = if own { request.message["id"].clone() } else { Value::Null };
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
            http(status, &["Content-Type: application/json"], &error.to_string())
        })
        .await;
        let tools = only(settings(&server));
        let session = session(&tools);
        let error = call(&session, "odd", json!({})).await.unwrap_err();
        assert!(error.to_string().contains(message), "{status}: {error}");
        assert_eq!((server.log.count("initialize"), server.log.count("tools/call")), (1, 1), "{status} {message}");
        echoes(&session).await;
        assert_eq!(
            (server.log.count("initialize"), server.log.count("tools/call")),
            (sessions, 2),
            "{status} {message}"
        );
        assert_eq!(tools.health()[0].trouble, None);
    }
}

#[tokio::test]
async fn session_that_is_lost_again_is_an_error() {
    let server = odd(|_| http("404 Not Found", &[], "")).await;
    let tools = only(settings(&server));
    let error = call(&session(&tools), "odd", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("lost its session"), "{error}");
}
