//! A chat as the record of its call shows it: what the guest asked, in the words of `wit/`, and what it was answered. Nothing of
//! a provider's shape, and nothing that the host adds.

use agentry_outbound::llm::{Assistant, ChatError, ChatFailure, ChatReply, ChatRequest, Message, ResponseFormat};
use agentry_outbound::llm::{ToolCall, ToolChoice};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::bodies::Copied;

/// Writes what the guest asked.
pub(super) fn request(request: &ChatRequest, mut to: Copied) {
    write(&mut to, &Request::of(request));
}

/// Writes what the guest is answered; `code` is the stable word of an error.
pub(super) fn response(answer: &Result<ChatReply, ChatFailure>, code: &str, mut to: Copied) {
    match answer {
        Ok(ChatReply { message, wants_tools, usage, trace }) => {
            let usage = json!({"input_tokens": usage.input, "output_tokens": usage.output});
            let message = Turn { role: "assistant", ..Turn::of_assistant(message) };
            write(&mut to, &Reply { message, wants_tools: *wants_tools, model: &trace.model, usage });
        }
        Err(ChatFailure { error, .. }) => {
            let mut told = json!({"code": code, "message": error.to_string()});
            if let ChatError::Truncated { text } = error {
                told["text"] = Value::String(text.clone());
            }
            write(&mut to, &json!({ "error": told }));
        }
    }
}

fn write(to: &mut Copied, body: &impl Serialize) {
    // Neither the copy nor texts and numbers can fail.
    let _ = serde_json::to_writer(to, body);
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Offer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    response_format: Format<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
}

#[derive(Serialize)]
struct Reply<'a> {
    message: Turn<'a>,
    wants_tools: bool,
    model: &'a str,
    usage: Value,
}

#[derive(Default, Serialize)]
struct Turn<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<bool>,
}

#[derive(Serialize)]
struct Asked<'a> {
    id: &'a str,
    name: &'a str,
    arguments: Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque: Option<&'a str>,
}

#[derive(Serialize)]
struct Offer<'a> {
    name: &'a str,
    description: &'a str,
    parameters: Json<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Format<'a> {
    Text,
    Json,
    JsonSchema { name: &'a str, schema: Json<'a> },
}

/// JSON that was given as text: as it was, and as a text where it is none.
#[derive(Serialize)]
#[serde(untagged)]
pub(in crate::capability) enum Json<'a> {
    Is(&'a RawValue),
    IsNot(&'a str),
}

impl Json<'_> {
    pub(in crate::capability) fn of(text: &str) -> Json<'_> {
        serde_json::from_str(text).map_or(Json::IsNot(text), Json::Is)
    }
}

impl<'a> Request<'a> {
    fn of(request: &'a ChatRequest) -> Request<'a> {
        let offers = request.tools.iter().map(|tool| Offer {
            name: &tool.name,
            description: &tool.description,
            parameters: Json::of(&tool.parameters),
        });
        Request {
            model: &request.model,
            messages: request.messages.iter().map(Turn::of).collect(),
            tools: offers.collect(),
            tool_choice: request.tool_choice.as_ref().map(|choice| match choice {
                ToolChoice::Auto => json!("auto"),
                ToolChoice::None => json!("none"),
                ToolChoice::Required => json!("required"),
                ToolChoice::Named(name) => json!({ "named": name }),
            }),
            response_format: match &request.response_format {
                ResponseFormat::Text => Format::Text,
                ResponseFormat::Json => Format::Json,
                ResponseFormat::JsonSchema { name, schema } => Format::JsonSchema { name, schema: Json::of(schema) },
            },
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            stop: &request.stop,
            seed: request.seed,
        }
    }
}

impl<'a> Turn<'a> {
    fn of(message: &'a Message) -> Turn<'a> {
        match message {
            Message::System(text) => Turn { role: "system", content: Some(text), ..Turn::default() },
            Message::User(text) => Turn { role: "user", content: Some(text), ..Turn::default() },
            Message::Assistant(said) => Turn { role: "assistant", ..Turn::of_assistant(said) },
            Message::Tool(result) => Turn {
                role: "tool",
                id: Some(&result.id),
                name: Some(&result.name),
                content: Some(&result.content),
                failed: result.failed.then_some(true),
                ..Turn::default()
            },
        }
    }

    fn of_assistant(said: &'a Assistant) -> Turn<'a> {
        let asked = |ToolCall { id, name, arguments, opaque }: &'a ToolCall| Asked {
            id,
            name,
            arguments: Json::of(arguments),
            opaque: opaque.as_deref(),
        };
        let tool_calls = said.tool_calls.iter().map(asked).collect();
        Turn { role: "assistant", content: said.text.as_deref(), tool_calls, ..Turn::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{Bodies, Copies};
    use agentry_outbound::llm::{ChatTrace, TokenUsage, Tool, ToolResult};

    fn written(write: impl FnOnce(Copied)) -> Value {
        let all = Bodies { llm: true, body_bytes: 9_999, run_bytes: 9_999, ..Bodies::default() };
        let copied = Copies::new(all).of("llm").unwrap();
        write(copied.clone());
        serde_json::from_slice(&copied.take().unwrap().bytes).unwrap()
    }

    fn call(arguments: &str) -> ToolCall {
        ToolCall { id: "1".into(), name: "add".into(), arguments: arguments.into(), opaque: None }
    }

    #[test]
    fn a_request_is_shown_as_the_guest_made_it() {
        let result = ToolResult { id: "1".into(), name: "add".into(), content: "3".into(), failed: true };
        let asked = ChatRequest {
            model: "default".into(),
            messages: vec![
                Message::System("Be short.".into()),
                Message::User("1 + 2?".into()),
                Message::Assistant(Assistant { text: None, tool_calls: vec![call("{\"a\": 1}"), call("{")] }),
                Message::Tool(result),
            ],
            tools: vec![Tool { name: "add".into(), description: "Adds.".into(), parameters: "{}".into() }],
            tool_choice: Some(ToolChoice::Named("add".into())),
            response_format: ResponseFormat::JsonSchema { name: "n".into(), schema: "true".into() },
            temperature: Some(0.5),
            max_tokens: Some(7),
            stop: vec!["END".into()],
            seed: None,
        };
        let expected = json!({
            "model": "default",
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "1 + 2?"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "name": "add", "arguments": {"a": 1}},
                    {"id": "1", "name": "add", "arguments": "{"},
                ]},
                {"role": "tool", "id": "1", "name": "add", "content": "3", "failed": true},
            ],
            "tools": [{"name": "add", "description": "Adds.", "parameters": {}}],
            "tool_choice": {"named": "add"},
            "response_format": {"json_schema": {"name": "n", "schema": true}},
            "temperature": 0.5, "max_tokens": 7, "stop": ["END"],
        });
        assert_eq!(written(|to| request(&asked, to)), expected);
    }

    #[test]
    fn an_answer_is_shown_with_its_calls_and_a_failure_with_its_words() {
        let message = Assistant { text: Some("Wait.".into()), tool_calls: vec![call("{}")] };
        let trace = ChatTrace { model: "m-1".into(), ..ChatTrace::default() };
        let usage = TokenUsage { input: 3, output: 2 };
        let reply = Ok(ChatReply { message, wants_tools: true, usage, trace });
        let expected = json!({
            "message": {
                "role": "assistant", "content": "Wait.", "tool_calls": [{"id": "1", "name": "add", "arguments": {}}],
            },
            "wants_tools": true, "model": "m-1", "usage": {"input_tokens": 3, "output_tokens": 2},
        });
        assert_eq!(written(|to| response(&reply, "ok", to)), expected);
        let cut = Err(ChatFailure::new(ChatError::Truncated { text: "It is".into() }));
        let expected =
            json!({"error": {"code": "truncated", "message": "the answer was cut by length", "text": "It is"}});
        assert_eq!(written(|to| response(&cut, "truncated", to)), expected);
    }
}
