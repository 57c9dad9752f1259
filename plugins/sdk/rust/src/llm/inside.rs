//! To the types of `agentry:llm` and back.

use super::{Assistant, Error, Message, Reply, Request, ResponseFormat, Tool, ToolCall, ToolChoice, ToolResult, Usage};
use crate::glue::bindings::agentry::llm::chat as wit;
use std::time::Duration;

pub(super) fn chat(request: &Request) -> Result<Reply, Error> {
    wit::chat(&lower(request)).map(lift).map_err(error)
}

fn lower(request: &Request) -> wit::Request {
    wit::Request {
        model: request.model.clone(),
        messages: request.messages.iter().map(message).collect(),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => wit::ToolChoice::Auto,
            ToolChoice::None => wit::ToolChoice::None,
            ToolChoice::Required => wit::ToolChoice::Required,
            ToolChoice::Named(name) => wit::ToolChoice::Named(name.clone()),
        }),
        response_format: request.response_format.as_ref().map(|format| match format {
            ResponseFormat::Text => wit::ResponseFormat::Text,
            ResponseFormat::Json => wit::ResponseFormat::Json,
            ResponseFormat::JsonSchema { name, schema } => {
                wit::ResponseFormat::JsonSchema(wit::JsonSchema { name: name.clone(), schema: schema.clone() })
            }
        }),
        temperature: request.temperature,
        max_tokens: request.max_tokens,
        stop: request.stop.clone(),
        seed: request.seed,
    }
}

fn message(message: &Message) -> wit::Message {
    match message {
        Message::System(text) => wit::Message::System(text.clone()),
        Message::User(text) => wit::Message::User(text.clone()),
        Message::Assistant(Assistant { text, tool_calls }) => wit::Message::Assistant(wit::Assistant {
            text: text.clone(),
            tool_calls: tool_calls
                .iter()
                .map(|ToolCall { id, name, arguments, opaque }| wit::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: arguments.clone(),
                    opaque: opaque.clone(),
                })
                .collect(),
        }),
        Message::Tool(ToolResult { id, name, content, failed }) => wit::Message::Tool(wit::ToolResult {
            id: id.clone(),
            name: name.clone(),
            content: content.clone(),
            failed: *failed,
        }),
    }
}

fn tool(Tool { name, description, parameters }: &Tool) -> wit::Tool {
    wit::Tool { name: name.clone(), description: description.clone(), parameters: parameters.clone() }
}

fn lift(reply: wit::Reply) -> Reply {
    let wit::Reply { message: wit::Assistant { text, tool_calls }, wants_tools, model, usage } = reply;
    let tool_calls = tool_calls
        .into_iter()
        .map(|wit::ToolCall { id, name, arguments, opaque }| ToolCall { id, name, arguments, opaque })
        .collect();
    Reply { message: Assistant { text, tool_calls }, wants_tools, model, usage: self::usage(usage) }
}

fn usage(wit::Usage { input_tokens, output_tokens }: wit::Usage) -> Usage {
    Usage { input_tokens, output_tokens }
}

fn error(error: wit::Error) -> Error {
    match error {
        wit::Error::Denied(message) => Error::Denied(message),
        wit::Error::InvalidRequest(message) => Error::InvalidRequest(message),
        wit::Error::TooLong(message) => Error::TooLong(message),
        wit::Error::RateLimited(wit::RateLimited { message, retry_after_ms }) => {
            Error::RateLimited { message, after: retry_after_ms.map(|ms| Duration::from_millis(ms.into())) }
        }
        wit::Error::Unavailable(message) => Error::Unavailable(message),
        wit::Error::TimedOut(message) => Error::TimedOut(message),
        wit::Error::Truncated(wit::Partial { text, usage }) => Error::Truncated { text, usage: self::usage(usage) },
        wit::Error::Blocked(message) => Error::Blocked(message),
        wit::Error::Unparsable(message) => Error::Unparsable(message),
        wit::Error::BudgetExceeded(message) => Error::BudgetExceeded(message),
    }
}
