//! Servers written by other people, which know nothing of Agentry: language models of three vendors' shapes that play what they
//! are given and fail on demand (aimock, from npm; llmock, from PyPI), and servers of tools (the Model Context Protocol's own
//! reference server, from npm; a clock, from PyPI). `cargo xtask test` installs them, as `tests/e2e/peers` pins them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::http::Http;
use crate::patience::eventually;
use crate::private::{command, free_port, spawn};
use crate::variables;

/// A server that runs, on a port of its own. Dropped: killed.
pub struct Peer {
    process: Child,
    port: u16,
}

impl Peer {
    /// aimock with these fixtures: what it answers is chosen by what it is asked.
    pub async fn aimock(folder: &Path, fixtures: &Value) -> Self {
        let file = folder.join("fixtures.json");
        std::fs::write(&file, json!({"fixtures": fixtures}).to_string()).expect("the fixtures are written");
        let mut command = in_node("@copilotkit/aimock/dist/cli.js");
        let port = free_port();
        command
            .arg("--port")
            .arg(port.to_string())
            .arg("--fixtures")
            .arg(file)
            .args(["--strict", "--validate-on-load"]);
        Self::start(command, port, &folder.join("aimock.log"), "/health").await
    }

    /// llmock: it answers what [`Peer::plays`] tells it, one after the other.
    pub async fn llmock(folder: &Path) -> Self {
        let mut command = in_python("llmock");
        let port = free_port();
        command.args(["serve", "--port"]).arg(port.to_string());
        Self::start(command, port, &folder.join("llmock.log"), "/health").await
    }

    /// The reference server of tools, over streamable HTTP at `/mcp`.
    pub async fn everything(folder: &Path) -> Self {
        let mut command = in_node(EVERYTHING);
        let port = free_port();
        command.arg("streamableHttp").env("PORT", port.to_string());
        Self::start(command, port, &folder.join("everything.log"), "/").await
    }

    /// Python's own server of files.
    pub async fn files(folder: &Path, log: &Path) -> Self {
        let mut command = in_python("python");
        let port = free_port();
        command.args(["-m", "http.server", "--bind", "127.0.0.1"]).arg(port.to_string()).current_dir(folder);
        Self::start(command, port, log, "/").await
    }

    async fn start(command: Command, port: u16, log: &Path, asked: &str) -> Self {
        let mut peer = Self { process: spawn(command, log), port };
        eventually(&format!("{} answers", log.display()), async || {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = peer.process.try_wait().expect("a child can be waited for") {
                panic!("it ended ({status}):\n{}", said());
            }
            peer.http().try_get(asked).await.map(drop).map_err(|error| format!("{error}: {}", said()))
        })
        .await;
        peer
    }

    /// The address of something on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its address and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of it.
    pub fn http(&self) -> Http {
        Http::new(&self.url(""))
    }

    /// What llmock does with the next requests for this model.
    pub async fn plays(&self, model: &str, behaviors: impl IntoIterator<Item = Value>) {
        let for_model = |mut behavior: Value| {
            behavior["match"] = json!({"model": model});
            behavior
        };
        let behaviors: Vec<_> = behaviors.into_iter().map(for_model).collect();
        self.http().post("/_llmock/scenario", &json!({"behaviors": behaviors})).await.expect(201);
    }

    /// What llmock was asked, oldest first, with the bodies.
    pub async fn asked(&self) -> Vec<Value> {
        self.http().get("/_llmock/requests").await.expect(200)["requests"].as_array().expect("a list").clone()
    }

    /// llmock's own judgement of its client.
    pub async fn verdict(&self) -> Value {
        self.http().get("/_llmock/verdict").await.expect(200)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

const EVERYTHING: &str = "@modelcontextprotocol/server-everything/dist/index.js";

/// The command of the reference server of tools over standard input and output. Nothing is taken from the environment.
pub fn everything_command() -> Vec<String> {
    [node(), variables::peers().join("node_modules").join(EVERYTHING)]
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .chain(["stdio".to_owned()])
        .collect()
}

/// The command of the clock, likewise.
pub fn clock_command() -> Vec<String> {
    vec![variables::peers().join("python/bin/mcp-server-time").to_string_lossy().into_owned()]
}

fn in_node(script: &str) -> Command {
    let mut command = command(&node(), None);
    command.arg(variables::peers().join("node_modules").join(script));
    command
}

fn in_python(program: &str) -> Command {
    command(&variables::peers().join("python/bin").join(program), None)
}

/// Where node is.
fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("node")).filter(|file| file.is_file());
    found.next().expect("node is installed")
}
