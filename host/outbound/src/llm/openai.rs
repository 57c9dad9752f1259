//! Chat Completions, held by tests to the types that OpenAI publishes with its SDK, as OpenAI, Azure, OpenRouter, vLLM, llama.cpp and Ollama serve it.
//! They differ in what they leave out, so whatever may be missing, null or of another JSON type is read all the same, except
//! what says that the answer is whole.

use super::prompt::{Format, Offer, Past, Prompt, Turn};
use super::shape::{Asked, Class, Ending, Fault, Reading, Shape, below, count, decimal, opaque, put, text};
use super::types::{TokenUsage, ToolChoice};
use serde_json::{Map, Value, json};
use url::Url;

/// Marks what a call carries for this kind of provider.
const TAG: &str = "openai:";

/// Whose names for the longest answer differ: OpenAI's newer models refuse `max_tokens`, and Azure serves the same ones.
/// Everybody else knows `max_tokens`, and not everybody the other.
const MAX_COMPLETION_TOKENS: [&str; 4] =
    ["openai.com", "openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"];

/// See the module.
pub(super) struct OpenAi {
    max_tokens: &'static str,
}

impl OpenAi {
    /// For the API at an address.
    pub fn new(root: &Url) -> OpenAi {
        let host = root.host_str().unwrap_or_default();
        let is_of = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let newer = MAX_COMPLETION_TOKENS.iter().any(|domain| is_of(domain));
        OpenAi { max_tokens: if newer { "max_completion_tokens" } else { "max_tokens" } }
    }
}

impl Shape for OpenAi {
    fn endpoint(&self, root: &Url, _model: &str) -> Url {
        below(root, &["chat", "completions"])
    }

    fn key_header(&self, key: &str) -> (&'static str, String) {
        ("authorization", format!("Bearer {key}"))
    }

    fn body(&self, prompt: &Prompt<'_>) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), prompt.model.into());
        body.insert("messages".into(), prompt.turns.iter().map(message).collect());
        body.insert(self.max_tokens.into(), prompt.max_tokens.into());
        if !prompt.tools.is_empty() {
            body.insert("tools".into(), prompt.tools.iter().map(tool).collect());
        }
        put(&mut body, "tool_choice", prompt.choice.map(choice));
        put(&mut body, "response_format", format(&prompt.format));
        put(&mut body, "temperature", prompt.temperature.map(decimal));
        put(&mut body, "stop", (!prompt.stop.is_empty()).then(|| prompt.stop.to_vec()));
        put(&mut body, "seed", prompt.seed);
        Value::Object(body)
    }

    fn read(&self, body: &Value) -> Reading {
        let mut reading = Reading {
            model: text(body, "model").map(str::to_owned),
            id: text(body, "id").map(str::to_owned),
            usage: TokenUsage {
                input: count(&body["usage"], "prompt_tokens"),
                output: count(&body["usage"], "completion_tokens"),
            },
            ..Reading::default()
        };
        let choice = &body["choices"][0];
        // OpenRouter tells a failure of the provider behind it with the status 200, in the body or in the choice.
        if let Some(fault) = [body, choice].into_iter().find(|value| is_error(&value["error"])) {
            reading.ending = Ending::Fault(self.fault(inner_status(&fault["error"]), fault));
            return reading;
        }
        let message = &choice["message"];
        if !message.is_object() {
            reading.ending = Ending::Broken("it has no choices[0].message".into());
            return reading;
        }
        let (words, refusal) = content(message);
        reading.text = words;
        reading.calls = calls(message);
        reading.ending = match refusal {
            Some(refusal) => Ending::Refused(refusal),
            None => ending(choice, !reading.calls.is_empty()),
        };
        reading
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        // `{error: {message, type, code}}`; `{error: "…"}` (Ollama); `{object: "error", message, type, code}` (vLLM);
        // `{detail}` (servers on FastAPI).
        let error = if is_error(&body["error"]) { &body["error"] } else { body };
        let words = [error.as_str(), text(error, "message"), text(error, "detail")].into_iter().flatten().next();
        let words = words.unwrap_or_default();
        let marks = [&error["code"], &error["type"]].map(|mark| mark.as_str().unwrap_or_default());
        let mut fault = Fault::of_status(status, words);
        if let Some(class) = marks.iter().find_map(|mark| class(mark)) {
            fault.class = class;
        } else if error["misalignment"].is_object() || (status == 403 && error["metadata"]["reasons"].is_array()) {
            // OpenAI's review of what a model does, and OpenRouter's moderation.
            fault.class = Class::Refused;
        } else if status == 400 && is_too_long(words) {
            fault.class = Class::TooLong;
        }
        fault
    }
}

fn is_error(error: &Value) -> bool {
    error.is_object() || error.as_str().is_some_and(|words| !words.is_empty())
}

/// The status that an error inside a success would have had.
fn inner_status(error: &Value) -> u16 {
    let code = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    code.filter(|code| (400..600).contains(code)).unwrap_or(502)
}

fn class(mark: &str) -> Option<Class> {
    Some(match mark {
        // OpenAI's, and llama.cpp's.
        "context_length_exceeded" | "exceed_context_size_error" => Class::TooLong,
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => Class::Quota,
        "invalid_api_key" => Class::Key,
        "model_not_found" => Class::Model,
        "content_filter" | "content_policy_violation" => Class::Refused,
        _ => return None,
    })
}

/// Servers without a code for it (vLLM, OpenRouter) say it in these words.
fn is_too_long(words: &str) -> bool {
    words.contains("maximum context length") || words.contains("context length exceeded")
}

fn message(turn: &Turn<'_>) -> Value {
    match turn {
        Turn::System(text) => json!({"role": "system", "content": text}),
        Turn::User(text) => json!({"role": "user", "content": text}),
        Turn::Assistant { text, calls } if calls.is_empty() => json!({"role": "assistant", "content": text}),
        Turn::Assistant { text, calls } => {
            let calls: Vec<Value> = calls.iter().map(past_call).collect();
            json!({"role": "assistant", "content": text, "tool_calls": calls})
        }
        // There is no member for a failure; the words say it.
        Turn::Tool(result) => json!({"role": "tool", "tool_call_id": result.id, "content": result.content}),
    }
}

fn past_call(past: &Past<'_>) -> Value {
    let function = json!({"name": past.call.name, "arguments": past.call.arguments});
    let mut call = Map::new();
    call.insert("id".into(), past.call.id.as_str().into());
    call.insert("type".into(), "function".into());
    call.insert("function".into(), function);
    let extra = opaque(past.call, TAG).and_then(|extra| serde_json::from_str::<Value>(extra).ok());
    put(&mut call, "extra_content", extra);
    Value::Object(call)
}

fn tool(offer: &Offer<'_>) -> Value {
    let (name, description) = (&offer.tool.name, &offer.tool.description);
    json!({"type": "function",
        "function": {"name": name, "description": description, "parameters": offer.parameters}})
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn format(format: &Format<'_>) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::Json => Some(json!({"type": "json_object"})),
        Format::Schema { name, schema } => {
            let strict = schema.is_closed();
            let inner = json!({"name": name, "schema": *schema.source, "strict": strict});
            Some(json!({"type": "json_schema", "json_schema": inner}))
        }
    }
}

/// The words, and the refusal, of which there should be one.
fn content(message: &Value) -> (String, Option<String>) {
    let mut words = String::new();
    let mut refusal = text(message, "refusal").map(str::to_owned);
    match &message["content"] {
        Value::String(content) => words.push_str(content),
        Value::Array(parts) => {
            for part in parts {
                words.push_str(part["text"].as_str().unwrap_or_default());
                refusal = refusal.or_else(|| text(part, "refusal").map(str::to_owned));
            }
        }
        _ => {}
    }
    (words, refusal)
}

fn calls(message: &Value) -> Vec<Asked> {
    let asked = |call: &Value| Asked {
        id: text(call, "id").map(str::to_owned),
        name: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
        arguments: call["function"]["arguments"].clone(),
        // Google's models behind this API want it back.
        opaque: call["extra_content"].is_object().then(|| format!("{TAG}{}", call["extra_content"])),
    };
    let mut calls: Vec<Asked> = message["tool_calls"].as_array().into_iter().flatten().map(asked).collect();
    let single = &message["function_call"];
    if calls.is_empty() && single.is_object() {
        // The shape before tools; without ids.
        let name = single["name"].as_str().unwrap_or_default().to_owned();
        calls.push(Asked { name, arguments: single["arguments"].clone(), ..Asked::default() });
    }
    calls
}

fn ending(choice: &Value, has_calls: bool) -> Ending {
    match choice["finish_reason"].as_str() {
        // Words alone are half of what it said.
        Some(reason @ ("tool_calls" | "function_call")) if !has_calls => {
            Ending::Broken(format!("its finish_reason is {reason:?}, and it calls no tool"))
        }
        // The last two are those of text-generation-inference.
        Some("stop" | "tool_calls" | "function_call" | "eos_token" | "stop_sequence") => Ending::Whole,
        Some("length") => Ending::Cut,
        Some("content_filter") => Ending::Refused("its content filter ended the answer".into()),
        Some(other) => Ending::Broken(format!("its finish_reason is {other:?}, which is not known here")),
        None => Ending::Broken("it has no finish_reason, so nothing says that it is whole".into()),
    }
}
