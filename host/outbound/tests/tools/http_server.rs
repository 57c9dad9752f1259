//! A server of the protocol over streamable HTTP, by hand: it answers in JSON or as events, forgets sessions, and misbehaves on
//! request.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// A server on a port of its own.
pub struct HttpServer {
    /// Where it listens.
    pub address: std::net::SocketAddr,
    /// Requests that it saw.
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// What it saw, and what it remembers.
pub struct Seen {
    mode: &'static str,
    /// Methods of messages, in order; `GET` and `DELETE` for those.
    methods: Mutex<Vec<String>>,
    sessions: Mutex<BTreeSet<String>>,
    grown: Mutex<bool>,
    events: broadcast::Sender<String>,
    cancelled: tokio::sync::watch::Sender<Vec<Value>>,
}

impl Seen {
    /// How often a method came.
    pub fn count(&self, method: &str) -> usize {
        self.methods.lock().unwrap().iter().filter(|seen| *seen == method).count()
    }

    /// Waits until a call is cancelled; its id.
    pub async fn cancelled(&self) -> Value {
        let mut cancelled = self.cancelled.subscribe();
        let seen = tokio::time::timeout(crate::PATIENCE, cancelled.wait_for(|ids| !ids.is_empty())).await;
        seen.expect("nothing was cancelled").unwrap()[0].clone()
    }
}

impl HttpServer {
    /// Starts one; the mode is how it behaves from the start.
    pub async fn start(mode: &'static str) -> HttpServer {
        HttpServer::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), mode)
    }

    /// Starts one on a listener.
    pub fn on<L: axum::serve::Listener<Addr = std::net::SocketAddr>>(listener: L, mode: &'static str) -> HttpServer {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            mode,
            methods: Mutex::default(),
            sessions: Mutex::default(),
            grown: Mutex::default(),
            events: broadcast::Sender::new(16),
            cancelled: tokio::sync::watch::Sender::default(),
        });
        let app = Router::new().route("/mcp", post(message).get(stream).delete(forget)).with_state(seen.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        HttpServer { address, seen, task }
    }

    /// Its endpoint.
    pub fn url(&self) -> url::Url {
        format!("http://{}/mcp", self.address).parse().unwrap()
    }

    /// Goes away, with its listener.
    pub async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn words(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {}; ", value.to_str().unwrap())).collect()
}

fn answer(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn text(id: &Value, text: &str) -> Value {
    answer(id, json!({"content": [{"type": "text", "text": text}]}))
}

fn events(parts: Vec<String>) -> Response {
    let parts = futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
    ([("content-type", "text/event-stream")], Body::from_stream(parts)).into_response()
}

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// One message.
async fn message(State(seen): State<Arc<Seen>>, uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let method = message["method"].as_str().unwrap_or("(answer)").to_owned();
    seen.methods.lock().unwrap().push(method.clone());
    let id = &message["id"];
    match seen.mode {
        "html" => return ([("content-type", "text/html")], "<p>Welcome</p>").into_response(),
        "unauthorized" => {
            let challenge = format!("Bearer realm=\"{} {uri}\"", words(&headers));
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
        }
        "silent" => std::future::pending().await,
        _ => {}
    }
    if method == "initialize" {
        let mut sessions = seen.sessions.lock().unwrap();
        let session = format!("session-{}", seen.count("initialize"));
        sessions.insert(session.clone());
        let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": true}},
            "serverInfo": {"name": "scripted", "version": "1"}});
        return ([("mcp-session-id", session)], axum::Json(answer(id, result))).into_response();
    }
    let session = headers.get("mcp-session-id").and_then(|session| session.to_str().ok());
    if !session.is_some_and(|session| seen.sessions.lock().unwrap().contains(session)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match method.as_str() {
        "notifications/cancelled" => {
            seen.cancelled.send_modify(|ids| ids.push(message["params"]["requestId"].clone()));
            StatusCode::ACCEPTED.into_response()
        }
        "tools/list" => {
            let mut names = vec![
                "big",
                "big_event",
                "bad",
                "busy",
                "count",
                "cut",
                "echo",
                "expire",
                "grow",
                "hang",
                "headers",
                "stream",
            ];
            names.extend(seen.grown.lock().unwrap().then_some("grown"));
            let tools: Vec<_> =
                names.iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect();
            axum::Json(answer(id, json!({"tools": tools}))).into_response()
        }
        "tools/call" => call(&seen, &uri, &headers, &message).await,
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

async fn call(seen: &Seen, uri: &axum::http::Uri, headers: &HeaderMap, message: &Value) -> Response {
    let (id, params) = (&message["id"], &message["params"]);
    let name = params["name"].as_str().unwrap();
    seen.methods.lock().unwrap().push(name.to_owned());
    match name {
        "stream" => {
            let news = json!({"jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": words(headers)}});
            events(vec![": a comment\n\n".to_owned(), event(&news), event(&text(id, &words(headers)))])
        }
        "headers" => axum::Json(text(id, &format!("{uri} {}", words(headers)))).into_response(),
        "hang" => std::future::pending().await,
        "expire" => {
            seen.sessions.lock().unwrap().clear();
            axum::Json(text(id, "forgotten")).into_response()
        }
        "busy" => (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response(),
        "bad" => (StatusCode::BAD_REQUEST, format!("what is {uri} {}?", words(headers))).into_response(),
        "big" => axum::Json(text(id, &"x".repeat(20 << 20))).into_response(),
        "big_event" => events(vec![event(&text(id, &"x".repeat(20 << 20)))]),
        "cut" => events(vec![": and no more\n\n".to_owned()]),
        "grow" => {
            *seen.grown.lock().unwrap() = true;
            let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            seen.events.send(event(&news)).unwrap();
            axum::Json(text(id, "grown")).into_response()
        }
        "count" => {
            axum::Json(text(id, &seen.count(params["arguments"]["of"].as_str().unwrap()).to_string())).into_response()
        }
        _ => axum::Json(text(id, params["arguments"]["text"].as_str().unwrap_or("?"))).into_response(),
    }
}

/// The stream of what the server says unasked.
async fn stream(State(seen): State<Arc<Seen>>) -> Response {
    seen.methods.lock().unwrap().push("GET".to_owned());
    let news = futures_util::stream::unfold(seen.events.subscribe(), |mut events| async {
        events.recv().await.ok().map(|event| (Ok::<_, std::io::Error>(event), events))
    });
    let first = futures_util::stream::once(async { Ok(": hello\n\n".to_owned()) });
    ([("content-type", "text/event-stream")], Body::from_stream(first.chain(news))).into_response()
}

async fn forget(State(seen): State<Arc<Seen>>, headers: HeaderMap) -> StatusCode {
    seen.methods.lock().unwrap().push("DELETE".to_owned());
    let session = headers["mcp-session-id"].to_str().unwrap();
    seen.sessions.lock().unwrap().remove(session);
    StatusCode::NO_CONTENT
}
