//! Against servers written by other people: language models of three vendors' shapes, servers of tools, JavaScript's `fetch`.

mod by_hand;
mod faults;
mod javascript;
mod openapi;
mod python;
mod react;
mod summary;
mod tools;

use e2e::{Daemon, Setup, Site, Task, plugin};
use serde_json::{Value, json};

/// A daemon with these plugins alone, so that it starts soon.
fn with_plugins(site: &Site, names: &[&str]) -> Setup {
    let folder = site.folder().join("plugins");
    for name in names {
        plugin::install(name, &folder);
    }
    site.setup().plugins([folder])
}

/// The same with a model, which is called the same by its provider.
fn with_model(setup: Setup, name: &str, kind: &str, url: &str) -> Setup {
    setup
        .set(&format!("llm.providers.{name}.kind"), kind)
        .set(&format!("llm.providers.{name}.url"), url)
        .set(&format!("llm.providers.{name}.key"), "a-key-that-opens-nothing")
        .set(&format!("llm.models.{name}.provider"), name)
        .set(&format!("llm.models.{name}.model"), name)
}

/// The operator's half of what react-agent asks for.
fn granted_to_react(setup: Setup, models: &[&str]) -> Setup {
    setup
        .set("plugins.react-agent.capabilities.http", ["GET http://127.0.0.1:*"].as_slice())
        .set("plugins.react-agent.capabilities.llm", models)
        .set("plugins.react-agent.capabilities.memory", ["notes"].as_slice())
        .set("plugins.react-agent.capabilities.tools.search", ["*"].as_slice())
}

/// Publishes one task, as plain JSON over AMQP, and waits for its end.
async fn publish(site: &Site, daemon: &Daemon, asked: &Task) -> Value {
    site.publish(std::slice::from_ref(asked)).await;
    daemon.http().ended(asked.id).await
}

/// A reply that llmock gives: words, and calls of tools.
fn reply(text: &str, calls: &[(&str, Value)]) -> Value {
    let calls: Vec<_> = calls.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments})).collect();
    json!({"type": "reply", "text": text, "tool_calls": calls})
}
