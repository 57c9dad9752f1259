//! Servers of each revision of the protocol, and of one alone.

use crate::http::at;
use crate::raw_server::{Log, RawServer, Reply, Request, http, in_json, initialized, result, usual};
use crate::*;

const HANDSHAKE: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const STATELESS: &str = "2026-07-28";

fn rpc_error(request: &Request, code: i64, message: &str, data: &Value) -> String {
    let error = json!({"code": code, "message": message, "data": data});
    json!({"jsonrpc": "2.0", "id": request.message["id"], "error": error}).to_string()
}

async fn said(server: &RawServer) -> Result<Output, ToolError> {
    let tools = only(at(server.url(), &[], None));
    let said = call(&session(&tools), "echo", json!({"text": "a", "region": "eu-1"})).await;
    tools.close().await;
    said
}

/// A server of one revision with a handshake, which it insists on after it.
async fn of(revision: &'static str, reject: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> RawServer {
    RawServer::start(move |_: &Log, request: &Request| {
        if request.message["method"] == "initialize" {
            return reject(request).unwrap_or_else(|| in_json(&result(request, initialized(&json!(revision)))));
        }
        if request.message["method"] == "server/discover" {
            return http(
                "400 Bad Request",
                &["Content-Type: application/json"],
                &rpc_error(request, -32600, "Not initialized", &Value::Null),
            );
        }
        assert_eq!(request.headers.get("mcp-protocol-version").map(String::as_str), Some(revision));
        usual(request)
    })
    .await
}

#[tokio::test]
async fn each_revision_with_a_handshake_is_spoken() {
    for revision in HANDSHAKE {
        let server = of(revision, |_| None).await;
        assert!(said(&server).await.is_ok(), "{revision}");
        assert_eq!(server.log.count("server/discover"), 0, "{revision}");
    }
}

#[tokio::test]
async fn server_that_rejects_other_revisions_than_its_own_is_asked_in_that() {
    for revision in &HANDSHAKE[..3] {
        for with_list in [true, false] {
            let server = of(revision, move |request| {
                let data = if with_list { json!({"supported": [revision], "requested": "x"}) } else { Value::Null };
                let body = rpc_error(request, -32602, "Unsupported protocol version", &data);
                let asked = &request.message["params"]["protocolVersion"];
                (asked != revision).then(|| http("400 Bad Request", &["Content-Type: application/json"], &body))
            })
            .await;
            let said = said(&server).await;
            assert!(said.is_ok(), "{revision} {with_list}: {said:?}");
        }
    }
}

/// A server of the revision without a handshake, which holds each request against it.
async fn stateless() -> RawServer {
    RawServer::start(|_: &Log, request: &Request| {
        let refuse = |status: &str, code: i64, message: &str, data: &Value| {
            http(status, &["Content-Type: application/json"], &rpc_error(request, code, message, data))
        };
        if request.method != "POST" {
            return http("405 Method Not Allowed", &[], "");
        }
        let (message, header) = (&request.message, |name: &str| request.headers.get(name).map_or("", String::as_str));
        let meta = &message["params"]["_meta"];
        if meta["io.modelcontextprotocol/protocolVersion"] != STATELESS {
            return refuse("400 Bad Request", -32022, "Unsupported protocol version", &json!({"supported": [STATELESS]}));
        }
        assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object(), "{message}");
        assert_eq!(header("mcp-protocol-version"), STATELESS);
        assert_eq!(header("mcp-method"), message["method"].as_str().unwrap());
        assert_eq!(header("mcp-session-id"), "");
        match message["method"].as_str().unwrap() {
            "server/discover" => in_json(&result(request, json!({"resultType": "complete", "supportedVersions": [STATELESS],
                "capabilities": {"tools": {}}, "ttlMs": 1000, "cacheScope": "public",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "stateless", "version": "1"}}}))),
            "tools/list" => in_json(&result(request, json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [
                {"name": "echo", "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}},
                {"name": "ask", "inputSchema": {"type": "object"}}]}))),
            "tools/call" if message["params"]["name"] == "ask" => in_json(&result(request, json!({"resultType": "input_required",
                "inputRequests": {"name": {"method": "elicitation/create", "params": {"message": "who?"}}}}))),
            "tools/call" => {
                assert_eq!((header("mcp-name"), header("mcp-param-region")), ("echo", "eu-1"));
                let text = &message["params"]["arguments"]["text"];
                let answer = result(request, json!({"resultType": "complete", "content": [{"type": "text", "text": text}]}));
                http("200 OK", &["Content-Type: text/event-stream"], &format!(": hi\n\ndata: {answer}\n\n"))
            }
            other => refuse("404 Not Found", -32601, &format!("Method not found: {other}"), &Value::Null),
        }
    })
    .await
}

#[tokio::test]
async fn revision_without_a_handshake_is_spoken_over_http() {
    let server = stateless().await;
    let tools = only(at(server.url(), &[], None));
    let session = session(&tools);
    for text in ["a", "b"] {
        let said = call(&session, "echo", json!({"text": text, "region": "eu-1"})).await.unwrap();
        assert_eq!(said.content, [Content::Text(text.into())]);
    }
    let more = call(&session, "ask", json!({})).await.unwrap_err();
    assert!(matches!(&more, ToolError::Failed { reason, .. } if reason.contains("input_required")), "{more:?}");
    assert_eq!(
        (server.log.count("notifications/initialized"), server.log.count("GET"), tools.health()[0].restarts),
        (0, 0, 0)
    );
    tools.close().await;
    assert_eq!(server.log.count("DELETE"), 0);
}

#[tokio::test]
async fn server_of_both_kinds_is_spoken_to_with_a_handshake() {
    let server = RawServer::start(|_: &Log, request: &Request| usual(request)).await;
    assert!(said(&server).await.is_ok());
    assert_eq!((server.log.count("initialize"), server.log.count("server/discover")), (1, 0));
}

#[tokio::test]
async fn later_revision_is_an_error_at_once_with_the_remedy() {
    let later = "2031-01-01";
    let rejecting = RawServer::start(move |_: &Log, request: &Request| {
        let body = rpc_error(request, -32022, "Unsupported protocol version", &json!({"supported": [later]}));
        http("400 Bad Request", &["Content-Type: application/json"], &body)
    })
    .await;
    let answering =
        RawServer::start(move |_: &Log, request: &Request| in_json(&result(request, initialized(&json!(later))))).await;
    for server in [rejecting, answering] {
        let error = said(&server).await.unwrap_err().to_string();
        assert!(error.contains(later) && error.contains(STATELESS) && error.contains("update"), "{error}");
    }
}

#[tokio::test]
async fn revision_without_a_handshake_is_spoken_over_standard_streams() {
    for mode in ["stateless", "stateless_slow"] {
        let tools = only(odd_children::odd(mode));
        let session = session(&tools);
        assert_eq!(text(&session, "echo", json!({"text": "a"})).await, "a", "{mode}");
        assert_eq!(text(&session, "echo", json!({"text": "b"})).await, "b", "{mode}");
        let methods = object(&session, "methods", json!({})).await;
        let begun = json!(["initialize", "server/discover", "tools/list"]);
        assert_eq!(methods.as_array().unwrap()[..3], begun.as_array().unwrap()[..], "{mode}");
        tools.close().await;
    }
}

#[tokio::test]
async fn rejection_of_another_kind_is_an_error_at_once() {
    for (mode, words) in [("rejects", "-32000 no licence"), ("rejects_silently", "-32601 no such method")] {
        let tools = only(odd_children::odd(mode));
        let error = session(&tools).list(later()).await.unwrap_err().to_string();
        assert!(error.contains("it refused initialize: ") && error.contains(words), "{mode}: {error}");
    }
}
