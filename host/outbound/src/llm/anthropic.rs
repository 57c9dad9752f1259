//! Anthropic's Messages API, held by tests to the types that Anthropic publishes with its SDK.

use super::finish;
use super::prompt::{Format, Past, Prompt, Turn};
use super::shape::{
    Asked, Class, Ending, Fault, Reading, Shape, below, carried_by, carry, decimal, id, is_error, put, root, text,
};
use super::tokens::{Counted, first, sum};
use super::types::{ToolChoice, ToolResult};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use url::Url;

/// Marks what a call carries for this kind of provider: the thoughts before it, which have to come back with the call's result.
const TAG: &str = "anthropic:";

/// The API's version, and the one before it, which Anthropic serves on: only that one takes a temperature, from models that do.
/// A guest that asks for one is not to have it dropped. The rest of what is asked and read here is the same in both.
const VERSIONS: [&str; 2] = ["2026-10-21", "2023-06-01"];

/// See the module.
pub(super) struct Anthropic;

impl Shape for Anthropic {
    fn tag(&self) -> &'static str {
        TAG
    }

    fn example(&self) -> &'static str {
        "https://api.anthropic.com/v1"
    }

    fn endpoint(&self, url: &Url, _model: &str) -> Url {
        below(&root(url, &["messages"]), &["messages"])
    }

    fn models(&self, url: &Url) -> Url {
        let mut url = below(&root(url, &["messages"]), &["models"]);
        url.query_pairs_mut().append_pair("limit", "1000");
        url
    }

    fn list_header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some((HeaderName::from_static("anthropic-version"), HeaderValue::from_static(VERSIONS[1])))
    }

    /// The API takes it as a bearer's token as well; this header is the one that whoever speaks like it knows, too.
    fn key_header(&self, key: &str) -> (&'static str, String) {
        ("x-api-key", key.to_owned())
    }

    fn header(&self, prompt: &Prompt<'_>) -> Option<(HeaderName, HeaderValue)> {
        let version = VERSIONS[usize::from(prompt.temperature.is_some())];
        Some((HeaderName::from_static("anthropic-version"), HeaderValue::from_static(version)))
    }

    fn request_id_header(&self) -> &'static str {
        "request-id"
    }

    fn body(&self, prompt: &Prompt<'_>) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), prompt.model.into());
        body.insert("max_tokens".into(), prompt.max_tokens.into());
        body.insert("messages".into(), messages(&prompt.turns));
        let system =
            [prompt.system().join("\n\n"), prompt.format.instruction(native(&prompt.format)).unwrap_or_default()];
        let system: Vec<String> = system.into_iter().filter(|text| !text.is_empty()).collect();
        put(&mut body, "system", (!system.is_empty()).then(|| system.join("\n\n")));
        if !prompt.tools.is_empty() {
            let tools = prompt.tools.iter().map(|offer| {
                let (name, description) = (&offer.tool.name, &offer.tool.description);
                json!({"name": name, "description": description, "input_schema": with_type(&offer.parameters)})
            });
            body.insert("tools".into(), tools.collect());
        }
        put(&mut body, "tool_choice", prompt.choice.map(choice));
        if let (Format::Schema { schema, .. }, true) = (&prompt.format, native(&prompt.format)) {
            body.insert("output_config".into(), json!({"format": {"type": "json_schema", "schema": *schema.source}}));
        }
        put(&mut body, "temperature", prompt.temperature.map(decimal));
        put(&mut body, "stop_sequences", (!prompt.stop.is_empty()).then(|| prompt.stop.to_vec()));
        // It knows no seeds.
        Value::Object(body)
    }

    fn read(&self, body: &Value) -> Reading {
        let mut reading = Reading {
            model: text(body, "model").map(str::to_owned),
            id: text(body, "id").map(str::to_owned),
            counted: counted(&body["usage"]),
            ..Reading::default()
        };
        let error = &body["error"];
        if is_error(error) {
            reading.ending = Ending::Fault(self.fault(500, body));
            return reading;
        }
        let single = [body["content"].clone()];
        let blocks: &[Value] = match &body["content"] {
            Value::Array(blocks) => blocks,
            // Servers that speak like it write words alone as a text.
            Value::String(_) => &single,
            _ if body["stop_reason"].is_string() => &[],
            _ => {
                reading.ending = Ending::Broken("it has no content".into());
                return reading;
            }
        };
        let words = |block: &Value| {
            block.as_str().or_else(|| block["text"].as_str().filter(|_| is(block, "text"))).map(str::to_owned)
        };
        reading.text = blocks.iter().filter_map(words).collect();
        reading.calls = calls(blocks);
        reading.notes = notes(body, blocks);
        reading.ending = match blocks.iter().find_map(stranger) {
            Some(kind) => Ending::Broken(format!("it has a part of the type {kind:?}, which nobody asked for")),
            None => ending(body, &reading),
        };
        reading
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        let error = &body["error"];
        let words = error.as_str().or_else(|| text(error, "message")).or_else(|| text(body, "message"));
        let words = words.or_else(|| text(body, "detail")).unwrap_or_default();
        let mut fault = Fault::of_status(status, words);
        if let Some(class) = error["details"]["error_code"].as_str().and_then(class) {
            fault.class = class;
            return fault;
        }
        fault.class = match error["type"].as_str().unwrap_or_default() {
            // These two have no type of their own.
            "invalid_request_error" if words.starts_with("prompt is too long") => Class::TooLong,
            "invalid_request_error" if words.contains("credit balance is too low") => Class::Quota,
            "invalid_request_error" => Class::Invalid,
            "request_too_large" => Class::TooLong,
            "authentication_error" | "permission_error" => Class::Key,
            "billing_error" => Class::Quota,
            // Of a model, or of a path: the words say which.
            "not_found_error" => Fault::of_status(404, words).class,
            "rate_limit_error" => Class::Rate,
            "api_error" | "overloaded_error" | "timeout_error" => Class::Down,
            _ => fault.class,
        };
        fault
    }
}

/// What a code says of the cause that the type does not.
fn class(code: &str) -> Option<Class> {
    Some(match code {
        // Told as too many requests, and no pause helps.
        "contract_spend_limit_reached" | "enforced_spend_limit_reached" => Class::Quota,
        "linked_organization_spend_limit_reached" | "linked_organization_billing_unavailable" => Class::Quota,
        // Told as invalid requests, and it is the operator's account.
        "organization_on_hold" | "cmek_key_disabled" | "cmek_key_network_blocked" => Class::Quota,
        "organization_type_not_supported" | "parent_organization_required" => Class::Key,
        "claude_code_key_creator_not_member" | "claude_code_version_too_old" => Class::Key,
        _ => return None,
    })
}

/// Whether the provider itself sees to the form: it does for schemas whose objects are closed, and refuses others.
fn native(format: &Format<'_>) -> bool {
    matches!(format, Format::Schema { schema, .. } if schema.is_closed())
}

/// The provider wants a type to be said.
fn with_type(parameters: &Value) -> Value {
    let mut parameters = parameters.clone();
    parameters["type"] = "object".into();
    parameters
}

fn messages(turns: &[Turn<'_>]) -> Value {
    let mut messages: Vec<Value> = Vec::new();
    let mut after_result = false;
    for turn in turns {
        let (role, blocks) = match turn {
            Turn::System(_) => continue,
            Turn::User(text) => ("user", vec![json!({"type": "text", "text": text})]),
            Turn::Assistant { text, calls } => ("assistant", said(*text, calls)),
            Turn::Tool { result, id } => ("user", vec![tool_result(result, &id.text)]),
        };
        let is_result = matches!(turn, Turn::Tool { .. });
        // All results of one turn's calls have to stand in the one message after it.
        match messages.last_mut().and_then(|last| last["content"].as_array_mut()) {
            Some(last) if is_result && after_result => last.extend(blocks),
            _ => messages.push(json!({"role": role, "content": blocks})),
        }
        after_result = is_result;
    }
    messages.into()
}

fn said(words: Option<&str>, calls: &[Past<'_>]) -> Vec<Value> {
    let thoughts = carried_by(calls);
    let words = words.map(|words| json!({"type": "text", "text": words}));
    let calls = calls.iter().map(|past| {
        let (id, name) = (&past.id.text, &past.call.name);
        json!({"type": "tool_use", "id": id, "name": name, "input": past.arguments})
    });
    thoughts.chain(words).chain(calls).collect()
}

fn tool_result(result: &ToolResult, id: &str) -> Value {
    let mut block = json!({"type": "tool_result", "tool_use_id": id, "content": result.content});
    if result.failed {
        block["is_error"] = true.into();
    }
    block
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    }
}

/// Whether a block is of a type. One that does not say is of text, if it has any.
fn is(block: &Value, kind: &str) -> bool {
    block["type"].as_str().unwrap_or("text") == kind
}

fn calls(blocks: &[Value]) -> Vec<Asked> {
    let thoughts: Vec<&Value> =
        blocks.iter().filter(|block| is(block, "thinking") || is(block, "redacted_thinking")).collect();
    let asked = |block: &Value| Asked {
        id: id(block, "id"),
        name: block["name"].as_str().unwrap_or_default().to_owned(),
        arguments: block["input"].clone(),
        carried: None,
    };
    let mut calls: Vec<Asked> = blocks.iter().filter(|block| is(block, "tool_use")).map(asked).collect();
    carry(&mut calls, &thoughts);
    calls
}

/// The type of a block that is neither words nor thoughts nor a call: the work of tools that the provider runs itself, which nobody
/// asked for. Without it the answer is not whole, and a guest cannot be given it. Nothing is no block.
fn stranger(block: &Value) -> Option<&str> {
    if block.is_null() || block.is_string() {
        return None;
    }
    let kind = block["type"].as_str().unwrap_or(if block["text"].is_string() { "text" } else { "" });
    (!matches!(kind, "text" | "thinking" | "redacted_thinking" | "tool_use")).then_some(kind)
}

/// Notes for the error about an answer without content.
fn notes(body: &Value, blocks: &[Value]) -> Vec<String> {
    let mut notes = Vec::new();
    if !body["stop_reason"].is_null() {
        notes.push(format!("its stop_reason is {}", body["stop_reason"]));
    }
    if blocks.iter().any(|block| is(block, "thinking") || is(block, "redacted_thinking")) {
        notes.push("it has thoughts alone".into());
    }
    notes
}

fn ending(body: &Value, reading: &Reading) -> Ending {
    let reason = &body["stop_reason"];
    if reason == "refusal" {
        let details = &body["stop_details"];
        let why = text(details, "explanation").or_else(|| text(details, "category"));
        return Ending::Refused(why.unwrap_or("the model refused").to_owned());
    }
    // Only tools that the provider runs itself pause, and none is asked for: the answer would not be whole.
    if reason == "pause_turn" {
        return Ending::Broken("it was paused before its end (pause_turn)".into());
    }
    finish::ending_of("stop_reason", reason, reading)
}

/// Tokens. `input_tokens` leaves out what came from the cache and what went into it, which was read all the same.
fn counted(usage: &Value) -> Counted {
    let cached = first(usage, &["cache_read_input_tokens"]);
    let cache_written = first(usage, &["cache_creation_input_tokens"]);
    let input = first(usage, &["input_tokens"]);
    let thoughts = ["output_tokens_details/thinking_tokens", "output_tokens_details/reasoning_tokens"];
    Counted {
        input: sum(&[input, cached, cache_written]),
        output: first(usage, &["output_tokens"]),
        total: None,
        cached,
        cache_written,
        reasoning: first(usage, &thoughts),
    }
}
