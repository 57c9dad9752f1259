//! Tools against real servers: a scripted child process (`server.py`, by hand and without any library of the protocol), and an
//! HTTP server over a real socket.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

#[allow(dead_code, reason = "not every manner of a proxy is tried here")]
#[path = "../llm/connect.rs"]
mod connect;
mod http;
mod http_server;
mod lifecycle;
mod lost_sessions;
mod odd_children;
mod odd_http;
mod odd_lists;
mod proxies;
mod raw_server;
mod revisions;
mod secrets;
mod stdio;

use agentry_outbound::Secret;
use agentry_outbound::tools::{Content, Output, ServerSettings, Session, ToolError, ToolGrant, Tools, Transport};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// How long any test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Far enough away.
fn later() -> Instant {
    Instant::now() + PATIENCE
}

/// The interpreter itself: what is called `python3` may be a script that needs an environment to find it.
fn python() -> String {
    static PYTHON: OnceLock<String> = OnceLock::new();
    let find = || {
        let output = std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("these tests need python3 in PATH");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    PYTHON.get_or_init(find).clone()
}

/// The scripted server in a mode.
fn scripted(mode: &str) -> ServerSettings {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/server.py");
    ServerSettings {
        transport: Transport::Stdio {
            command: python(),
            args: ["-I", "-S", script, mode].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            dir: None,
            user: None,
        },
        start: PATIENCE,
        call: PATIENCE,
        output_bytes: 64 << 10,
    }
}

/// The same with variables.
fn with_env(mut settings: ServerSettings, variables: &[(&str, &str)]) -> ServerSettings {
    if let Transport::Stdio { env, .. } = &mut settings.transport {
        env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))));
    }
    settings
}

/// The same in a folder.
fn within(mut settings: ServerSettings, folder: PathBuf) -> ServerSettings {
    if let Transport::Stdio { dir, .. } = &mut settings.transport {
        *dir = Some(folder);
    }
    settings
}

/// One server, called `it`.
fn only(settings: ServerSettings) -> Tools {
    Tools::new(BTreeMap::from([("it".to_owned(), settings)])).unwrap()
}

/// All tools of `it`, for the plugin `planner`.
fn session(tools: &Tools) -> Session {
    tools.session("planner", granted("it", &["*"]))
}

fn granted(server: &str, tools: &[&str]) -> ToolGrant {
    BTreeMap::from([(server.to_owned(), tools.iter().map(|tool| (*tool).to_owned()).collect())])
}

/// Calls a tool of `it`.
async fn call(session: &Session, tool: &str, arguments: Value) -> Result<Output, ToolError> {
    session.call("it", tool, &arguments.to_string(), later()).await
}

/// Its only text.
async fn text(session: &Session, tool: &str, arguments: Value) -> String {
    let output = call(session, tool, arguments).await.unwrap();
    match output.content.as_slice() {
        [Content::Text(text)] => text.clone(),
        other => panic!("{tool} gave {other:?}"),
    }
}

/// Its only text, which is JSON.
async fn object(session: &Session, tool: &str, arguments: Value) -> Value {
    serde_json::from_str(&text(session, tool, arguments).await).unwrap()
}

/// What the scripted server knows of its process.
async fn whoami(session: &Session) -> Value {
    object(session, "whoami", json!({})).await
}

/// A process that is watched from outside: it need be no child of ours.
struct Watched(i64);

impl Watched {
    fn new(pid: &Value) -> Watched {
        let watched = Watched(pid.as_i64().unwrap());
        assert!(!watched.is_gone(), "there is no process {pid}");
        watched
    }

    /// Waits for its end.
    async fn ended(&self) {
        eventually("the process ends", || async { self.is_gone().then_some(()) }).await;
    }

    /// Whether it ended. One that nobody has reaped yet did: an orphan's new parent may take its time.
    fn is_gone(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.0)) else { return true };
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        matches!(state, Some('Z' | 'X'))
    }
}

/// Asks again until something holds.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let asking = async {
        loop {
            pace.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}
