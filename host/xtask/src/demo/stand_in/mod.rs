//! What the demo's agents reach: a language model that plays its part, a tool server, and the documents as pages. A real HTTP
//! server on a port of its own, so that the daemon's own clients are shown, and nothing has to be installed or paid for.

mod library;
mod model;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tiny_http::{Header, Request, Response};

use self::library::Library;
pub use self::model::question;

/// How long the model thinks. Real ones take longer; it is enough for agents to be under way when the daemon is killed.
const THINKS: Duration = Duration::from_millis(300);
/// Threads that answer, each one request at a time.
const THREADS: usize = 8;
/// A request's most bytes. A conversation holds pages of 8 KiB.
const LARGEST: u64 = 1 << 20;

/// The server. Dropped: gone.
pub struct StandIn {
    server: Arc<tiny_http::Server>,
    port: u16,
}

/// An answer: status, content type, body.
struct Answer(u16, &'static str, String);

impl Answer {
    fn json(value: &Value) -> Self {
        Self(200, "application/json", value.to_string())
    }

    fn text(status: u16, text: impl Into<String>) -> Self {
        Self(status, "text/plain; charset=utf-8", text.into())
    }
}

impl StandIn {
    /// Serves these documents, by name.
    pub fn start(documents: Vec<(String, String)>) -> anyhow::Result<Self> {
        // The error is a box that is neither `Sync` nor an `anyhow::Error`.
        let server = tiny_http::Server::http("127.0.0.1:0").map_err(|error| anyhow!("{error}"));
        let server = Arc::new(server.context("failed to listen on 127.0.0.1")?);
        let port = server.server_addr().to_ip().context("failed to read the server's address")?.port();
        let library = Arc::new(Library::new(format!("http://127.0.0.1:{port}/pages"), documents));
        for _ in 0..THREADS {
            let (server, library) = (server.clone(), library.clone());
            // Ends when the server is unblocked, or with the process.
            std::thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    serve(request, &library);
                }
            });
        }
        Ok(Self { server, port })
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for _ in 0..THREADS {
            self.server.unblock();
        }
    }
}

fn serve(mut request: Request, library: &Library) {
    let mut body = String::new();
    let read = request.as_reader().take(LARGEST).read_to_string(&mut body);
    let Answer(status, kind, text) = match read {
        Ok(_) => answer(&request.method().to_string(), request.url(), &body, library),
        Err(_) => Answer::text(400, "the body cannot be read"),
    };
    let response = Response::from_string(text).with_status_code(status);
    let response = match Header::from_bytes("content-type", kind) {
        Ok(header) => response.with_header(header),
        Err(()) => response, // a constant that is a header
    };
    let _ = request.respond(response); // the daemon may have been killed
}

fn answer(method: &str, path: &str, body: &str, library: &Library) -> Answer {
    let asked: Value = serde_json::from_str(body).unwrap_or_default();
    match (method, path) {
        ("POST", "/v1/chat/completions") => {
            std::thread::sleep(THINKS);
            Answer::json(&model::completion(&asked))
        }
        ("POST", "/mcp") => match library.speak(&asked) {
            Some(reply) => Answer::json(&reply),
            None => Answer::text(202, ""), // a notification: heard, and nothing to say
        },
        ("GET", path) => match path.strip_prefix("/pages/").and_then(|name| library.page(name)) {
            Some(page) => Answer::text(200, page),
            // Nothing is pushed: 405 to a GET of /mcp, as the protocol has it for a server without a stream of its own.
            None if path == "/mcp" => Answer::text(405, "POST"),
            None => Answer::text(404, "there is no such page"),
        },
        _ => Answer::text(405, "no"),
    }
}
