//! What the tests share: settings that lead to a scripted server, and a conversation.

use super::server::{Play, Server};
use agentry_outbound::Secret;
use agentry_outbound::llm::*;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long anything may take that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A key that is to be seen by the server and by nobody else.
pub const CANARY: &str = "sk-canary-0123456789abcdef";

/// A provider at an address, patient, that never asks again.
pub fn provider(kind: ProviderKind, address: SocketAddr) -> ProviderSettings {
    ProviderSettings {
        kind,
        url: format!("http://{address}/v1").parse().unwrap(),
        key: Some(Secret::new(CANARY)),
        headers: Default::default(),
        proxy: None,
        ca_file: None,
        connect: PATIENCE,
        first_byte: PATIENCE,
        idle: PATIENCE,
        total: PATIENCE,
        retries: 0,
        concurrency: 8,
    }
}

/// One model, `default`, at one provider, `lab`.
pub fn llm(provider: ProviderSettings) -> Llm {
    let model = ModelSettings { provider: "lab".into(), model: "model-1".into(), max_output_tokens: 100 };
    Llm::new(LlmSettings {
        providers: [("lab".to_owned(), provider)].into(),
        models: [("default".to_owned(), model)].into(),
    })
    .unwrap()
}

/// Asks a server that plays something.
pub async fn ask(kind: ProviderKind, play: Play, request: &ChatRequest) -> Result<ChatReply, ChatFailure> {
    let server = Server::new([play]).await;
    llm(provider(kind, server.address)).chat(request, soon()).await
}

/// What a server is asked.
pub async fn asked(kind: ProviderKind, request: &ChatRequest) -> super::server::Recorded {
    let server = Server::new([]).await;
    // The script is empty: what is asked counts here.
    llm(provider(kind, server.address)).chat(request, soon()).await.unwrap_err();
    server.only()
}

/// An end that nothing comes near to.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// One question.
pub fn question() -> ChatRequest {
    ChatRequest {
        model: "default".into(),
        messages: vec![Message::User("What is the weather in Oslo?".into())],
        ..ChatRequest::default()
    }
}

/// The question, with two tools on offer.
pub fn with_tools() -> ChatRequest {
    ChatRequest { tools: vec![tool("weather"), tool("clock")], ..question() }
}

/// A tool with one parameter.
pub fn tool(name: &str) -> Tool {
    Tool { name: name.into(), description: format!("Tells the {name}."), parameters: parameters().to_string() }
}

/// What each tool takes.
pub fn parameters() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// A call of the past.
pub fn call(id: &str, name: &str, opaque: Option<&str>) -> ToolCall {
    let arguments = r#"{"city":"Oslo"}"#.to_owned();
    ToolCall { id: id.into(), name: name.into(), arguments, opaque: opaque.map(str::to_owned) }
}

/// A schema whose objects are closed.
pub fn closed_schema() -> Value {
    json!({"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
        "additionalProperties": false})
}

/// A conversation that has everything.
pub fn conversation() -> ChatRequest {
    let said = Assistant {
        text: Some("I look.".into()),
        tool_calls: vec![call("c1", "weather", None), call("c2", "clock", None)],
    };
    let result = |id: &str, name: &str, content: &str, failed| {
        Message::Tool(ToolResult { id: id.into(), name: name.into(), content: content.into(), failed })
    };
    ChatRequest {
        messages: vec![
            Message::System("Be brief.".into()),
            Message::User("Weather and time in Oslo?".into()),
            Message::Assistant(said),
            result("c1", "weather", "rain", false),
            result("c2", "clock", "no clock there", true),
            Message::System("Be polite.".into()),
            Message::User("Well?".into()),
        ],
        tool_choice: Some(ToolChoice::Named("weather".into())),
        temperature: Some(0.7),
        max_tokens: Some(64),
        stop: vec!["END".into()],
        seed: Some(7),
        ..with_tools()
    }
}

/// The error of a chat that went wrong.
pub fn error(outcome: Result<ChatReply, ChatFailure>) -> ChatError {
    outcome.unwrap_err().error
}
