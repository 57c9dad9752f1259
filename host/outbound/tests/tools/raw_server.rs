//! An HTTP server of bytes: each response is written as it is given, however odd.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

/// A request.
pub struct Request {
    /// `POST`, `GET`, `DELETE`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, if it is JSON.
    pub message: Value,
}

/// A response.
pub enum Reply {
    /// All of it; the connection is closed behind it.
    Whole(String),
    /// Its beginning; what is sent to [`Log::events`] follows.
    Stream(String),
}

/// Requests that a server saw.
pub struct Log {
    seen: Mutex<Vec<String>>,
    /// Events for open streams.
    pub events: broadcast::Sender<String>,
}

impl Log {
    /// How often a message of this method came, or an HTTP method other than `POST`.
    pub fn count(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == method).count()
    }
}

/// A server on a port of its own.
pub struct RawServer {
    address: std::net::SocketAddr,
    /// Requests that it saw.
    pub log: Arc<Log>,
}

impl RawServer {
    /// Starts one that answers with `handler`.
    pub async fn start(handler: impl Fn(&Log, &Request) -> Reply + Send + Sync + 'static) -> RawServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log { seen: Mutex::default(), events: broadcast::Sender::new(16) });
        let (handler, seen) = (Arc::new(handler), log.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (handler, seen) = (handler.clone(), seen.clone());
                tokio::spawn(async move {
                    let _ = answer(stream, &seen, &*handler).await; // the client may be gone
                });
            }
        });
        RawServer { address, log }
    }

    /// Its endpoint.
    pub fn url(&self) -> url::Url {
        format!("http://{}/mcp", self.address).parse().unwrap()
    }
}

async fn answer(
    stream: TcpStream,
    log: &Log,
    handler: &(dyn Fn(&Log, &Request) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let seen = message["method"].as_str().unwrap_or(&method).to_owned();
    log.seen.lock().unwrap().push(seen);
    let mut events = log.events.subscribe();
    match handler(log, &Request { method, path, headers, message }) {
        Reply::Whole(bytes) => stream.write_all(bytes.as_bytes()).await?,
        Reply::Stream(bytes) => {
            stream.write_all(bytes.as_bytes()).await?;
            stream.flush().await?;
            while let Ok(event) = events.recv().await {
                stream.write_all(event.as_bytes()).await?;
                stream.flush().await?;
            }
        }
    }
    stream.shutdown().await
}

/// A whole response; the body ends with the connection.
pub fn http(status: &str, headers: &[&str], body: &str) -> Reply {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    Reply::Whole(format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n{body}"))
}

/// A response in JSON.
pub fn in_json(body: &Value) -> Reply {
    http("200 OK", &["Content-Type: application/json"], &body.to_string())
}

/// A result.
pub fn result(request: &Request, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": request.message["id"], "result": result})
}

/// Answer of a usual server: it has a session, and the tool `echo`.
pub fn usual(request: &Request) -> Reply {
    let message = &request.message;
    match (request.method.as_str(), message["method"].as_str().unwrap_or_default()) {
        ("POST", "initialize") => {
            let result = result(request, initialized(&message["params"]["protocolVersion"]));
            http("200 OK", &["Content-Type: application/json", "Mcp-Session-Id: one"], &result.to_string())
        }
        ("POST", "tools/list") => {
            let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}, {"name": "odd", "inputSchema": {"type": "object"}}]);
            in_json(&result(request, json!({ "tools": tools })))
        }
        ("POST", "tools/call") => {
            let text = message["params"]["arguments"]["text"].as_str().unwrap_or("?");
            in_json(&result(request, json!({"content": [{"type": "text", "text": text}]})))
        }
        ("POST", _) => http("202 Accepted", &[], ""),
        _ => http("405 Method Not Allowed", &[], ""),
    }
}

/// The result of `initialize` in a revision.
pub fn initialized(revision: &Value) -> Value {
    json!({"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}})
}

/// Whether a request calls a tool.
pub fn calls(request: &Request, tool: &str) -> bool {
    request.message["method"] == "tools/call" && request.message["params"]["name"] == tool
}
