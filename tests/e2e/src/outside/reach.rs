//! The guest `reach`: what it is asked, what the operator grants it, and what it found.

use serde_json::{Value, json};

use super::{Server, mcp};
use crate::daemon::Setup;
use crate::site::Site;
use crate::task::Task;
use crate::{plugin, variables};

/// A task that takes these steps, each `{"CAPABILITY": …}`; `tests/guests/reach` lists them.
pub fn reach(steps: impl IntoIterator<Item = Value>) -> Task {
    Task::new("reach", steps.into_iter().collect())
}

/// A request for a URL.
pub fn get(url: impl Into<String>) -> Value {
    json!({"http": {"url": url.into()}})
}

/// A question to the model `default`.
pub fn chat(prompt: &str) -> Value {
    json!({"chat": {"model": "default", "prompt": prompt}})
}

/// A call of a tool of the server `mock`.
pub fn call(tool: &str, arguments: Value) -> Value {
    json!({"call": {"server": "mock", "tool": tool, "arguments": arguments}})
}

/// The same step, but if it fails the task fails with it.
pub fn must(step: Value) -> Value {
    json!({"must": step})
}

/// What came of each step of a task that completed.
#[track_caller]
pub fn results(task: &Value) -> Vec<Value> {
    assert_eq!(task["state"], "completed", "{task}");
    task["output"].as_array().unwrap_or_else(|| panic!("no results in {task}")).clone()
}

/// What a step gave.
#[track_caller]
pub fn ok(result: &Value) -> &Value {
    result.get("ok").unwrap_or_else(|| panic!("it failed: {result}"))
}

/// The kind of a step's error.
#[track_caller]
pub fn kind(result: &Value) -> &str {
    result["error"]["kind"].as_str().unwrap_or_else(|| panic!("it did not fail: {result}"))
}

/// Nobody listens there, and nobody is asked to.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A daemon with the guest `reach` and `word-count`. Of each capability that the guest imports something is granted, since it
/// would not load otherwise: a page that is nowhere, a model that nobody serves, the tool server, the bucket `cache`, the memory
/// `notes`, the key `region`.
pub fn setup(site: &Site) -> Setup {
    setup_named(site, "data")
}

/// One of several.
pub fn setup_named(site: &Site, name: &str) -> Setup {
    let plugins = site.folder().join("plugins");
    if !plugins.exists() {
        plugin::install("reach", &plugins);
        plugin::install("word-count", &plugins);
    }
    let setup = site
        .setup_named(name)
        .plugins([plugins])
        .set("llm.providers.lab.kind", "openai")
        .set("llm.providers.lab.url", format!("{NOWHERE}/v1"))
        .set("llm.providers.lab.key", "none-at-all")
        .set("llm.providers.lab.retries", 0)
        .set("llm.models.default.provider", "lab")
        .set("llm.models.default.model", "model-1")
        .set("llm.models.default.max_output_tokens", 100)
        .set("tools.mock.command", mcp::command(site.folder()));
    let setup = grant(setup, "http", json!(["GET https://nowhere.invalid"]));
    let setup = grant(setup, "llm", json!(["default"]));
    let setup = grant(setup, "tools.mock", json!(["*"]));
    let setup = grant(setup, "keyvalue", json!(["cache"]));
    let setup = grant(setup, "memory", json!(["notes"]));
    grant(setup, "config", json!(["region"]))
}

/// The same with another policy for the guest's capability.
pub fn grant(setup: Setup, capability: &str, policy: Value) -> Setup {
    setup.set(&format!("plugins.reach.capabilities.{capability}"), policy)
}

/// The same with the model's server.
pub fn with_llm(setup: Setup, llm: &Server) -> Setup {
    setup.set("llm.providers.lab.url", llm.url("/v1"))
}

/// The folder of the built guest.
pub fn folder() -> std::path::PathBuf {
    variables::guests().join("reach")
}
