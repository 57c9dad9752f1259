//! The daemon's HTTP API, as far as the demo needs it.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use uuid::Uuid;

/// A client of one daemon.
pub struct Api {
    base: String,
    agent: ureq::Agent,
}

impl Api {
    /// A client of the daemon at this URL.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .proxy(None);
        Self { base: base.to_owned(), agent: config.build().into() }
    }

    /// `POST path` with JSON.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.agent.post(format!("{}{path}", self.base)).send_json(body);
        read(path, answer)
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.agent.get(format!("{}{path}", self.base)).call();
        read(path, answer)
    }

    /// Every task, without input.
    pub fn tasks(&self, with_output: bool) -> anyhow::Result<Vec<Value>> {
        let fields = if with_output { "&fields=output" } else { "" };
        let mut tasks = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/tasks?limit=500{fields}{cursor}"))?;
            tasks.extend(page["tasks"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(tasks),
            }
        }
    }

    /// A task's `events`, `logs` or `attempts`.
    pub fn list(&self, id: Uuid, what: &str) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.get(&format!("/v1/tasks/{id}/{what}"))?;
        match answer[what].take() {
            Value::Array(list) => Ok(list),
            _ => bail!("failed to find {what} in {answer}"),
        }
    }
}

fn read(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Value> {
    let mut answer = answer.with_context(|| format!("failed to ask the daemon for {path}"))?;
    let status = answer.status();
    // The list of all outputs is larger than what is read by default.
    let text = answer.body_mut().with_config().limit(256 << 20).read_to_string();
    let text = text.with_context(|| format!("failed to read the answer to {path}"))?;
    if !status.is_success() {
        bail!("failed to ask the daemon for {path}: {status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("failed to read the answer to {path}: {text}"))
}
