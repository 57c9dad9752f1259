//! Chat Completions, held by tests to the types that OpenAI publishes with its SDK, as OpenAI, Azure, OpenRouter, vLLM, llama.cpp and Ollama serve it.
//! They differ in what they leave out, so whatever may be missing, null or of another JSON type is read all the same.

use super::finish;
use super::prompt::{Format, Offer, Past, Prompt, Turn};
use super::shape::{
    Asked, Class, Ending, Fault, Reading, Shape, below, decimal, id, is_error, put, root, status, text,
};
use super::tokens::{Counted, first};
use super::types::ToolChoice;
use serde_json::{Map, Value, json};
use url::Url;

/// The path below the root.
const ENDPOINT: [&str; 2] = ["chat", "completions"];

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
    fn tag(&self) -> &'static str {
        TAG
    }

    fn example(&self) -> &'static str {
        "https://api.openai.com/v1 or http://127.0.0.1:8080/v1"
    }

    fn endpoint(&self, url: &Url, _model: &str) -> Url {
        below(&root(url, &ENDPOINT), &ENDPOINT)
    }

    fn models(&self, url: &Url) -> Url {
        below(&root(url, &ENDPOINT), &["models"])
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
            counted: counted(&body["usage"]),
            ..Reading::default()
        };
        let choice = &body["choices"][0];
        // OpenRouter tells a failure of the provider behind it with the status 200, in the body or in the choice.
        if let Some(fault) = [body, choice].into_iter().find(|value| is_error(&value["error"])) {
            reading.ending = Ending::Fault(self.fault(inner_status(&fault["error"]), fault));
            return reading;
        }
        let message = &choice["message"];
        // `text` is that of the completions before chats.
        if !message.is_object() && !choice["text"].is_string() {
            reading.ending = match words(body) {
                // vLLM, MiniMax, Baidu, Zhipu and Cloudflare, each in its own way.
                Some(_) => Ending::Fault(self.fault(inner_status(body), body)),
                None => Ending::Broken(format!("it has no choices[0].message; {}", members(body))),
            };
            return reading;
        }
        let (words, refusal) = content(if message.is_object() { message } else { choice });
        reading.text = words;
        reading.calls = calls(message);
        reading.notes = notes(choice);
        reading.ending = match refusal {
            Some(refusal) => Ending::Refused(refusal),
            None => finish::ending_of("finish_reason", &choice["finish_reason"], &reading),
        };
        reading
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        let error = if is_error(&body["error"]) { &body["error"] } else { body };
        let words = words(body).unwrap_or_default();
        let marks = [&error["code"], &error["type"]].map(|mark| mark.as_str().unwrap_or_default());
        let mut fault = Fault::of_status(status, words);
        if let Some(class) = marks.iter().find_map(|mark| class(mark)) {
            fault.class = class;
        } else if is_of_router(words) {
            fault.class = Class::Address;
        } else if error["misalignment"].is_object() || (status == 403 && error["metadata"]["reasons"].is_array()) {
            // OpenAI's review of what a model does, and OpenRouter's moderation.
            fault.class = Class::Refused;
        } else if status == 400 && is_too_long(words) {
            fault.class = Class::TooLong;
        }
        fault
    }
}

/// The words of an error: `{error: {message, type, code}}`; `{error: "…"}` (Ollama); `{object: "error", message}` (vLLM);
/// `{detail}` (servers on FastAPI); `{errors: [{message}]}` (Cloudflare); `{error_msg}` (Baidu); `{msg}` (Zhipu);
/// `{base_resp: {status_msg}}` (MiniMax).
fn words(body: &Value) -> Option<&str> {
    let error = if is_error(&body["error"]) { &body["error"] } else { body };
    let names = ["message", "detail", "error_msg", "error_message", "msg"];
    let words = error.as_str().or_else(|| names.iter().find_map(|name| text(error, name)));
    let within = [&error["error"], &body["errors"][0], &body["detail"][0], &body["detail"]];
    let inner = within.into_iter().find_map(|value| ["message", "msg"].iter().find_map(|name| text(value, name)));
    let beside = names.iter().find_map(|name| text(body, name));
    let words = words.or(inner).or(beside).or_else(|| text(&body["base_resp"], "status_msg"));
    words.filter(|words| !words.trim().is_empty())
}

/// The members of a body in which the expected one is missing.
fn members(body: &Value) -> String {
    let shown = |(name, value): (&String, &Value)| match value {
        Value::Null => format!("{name}: null"),
        Value::Array(items) if items.is_empty() => format!("{name}: []"),
        _ => name.clone(),
    };
    match body.as_object() {
        Some(members) if members.is_empty() => "it is {}".into(),
        Some(members) => format!("it has {}", members.iter().map(shown).collect::<Vec<_>>().join(", ")),
        None => "it is not an object".into(),
    }
}

/// The status that an error inside a success would have had.
fn inner_status(error: &Value) -> u16 {
    ["code", "status", "status_code"].iter().find_map(|name| status(&error[name])).unwrap_or(502)
}

fn class(mark: &str) -> Option<Class> {
    Some(match mark {
        // OpenAI's, and llama.cpp's.
        "context_length_exceeded" | "exceed_context_size_error" => Class::TooLong,
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => Class::Quota,
        "invalid_api_key" => Class::Key,
        "model_not_found" => Class::Model,
        "rate_limit_exceeded" | "rate_limit_error" => Class::Rate,
        "content_filter" | "content_policy_violation" => Class::Refused,
        _ => return None,
    })
}

/// Whether a server's router says that nothing is served at a path; LM Studio does so with the status 200.
fn is_of_router(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["unexpected endpoint", "invalid url (", "unknown request url", "cannot post /", "no route "]
        .iter()
        .any(|begin| words.starts_with(begin))
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
        Turn::Tool { result, id } => json!({"role": "tool", "tool_call_id": id.text, "content": result.content}),
    }
}

fn past_call(past: &Past<'_>) -> Value {
    let function = json!({"name": past.call.name, "arguments": past.call.arguments});
    let mut call = Map::new();
    call.insert("id".into(), past.id.text.as_ref().into());
    call.insert("type".into(), "function".into());
    call.insert("function".into(), function);
    let extra = past.carried.and_then(|extra| serde_json::from_str::<Value>(extra).ok());
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
    let mut part = |part: &Value| {
        // Thoughts (`thinking`, `reasoning`) are parts with a type of their own.
        let is_text = part["type"].as_str().is_none_or(|kind| matches!(kind, "text" | "output_text"));
        let text_of = part.as_str().or_else(|| part["text"].as_str().filter(|_| is_text));
        words.push_str(text_of.unwrap_or_default());
        if refusal.is_none() {
            refusal = text(part, "refusal").map(str::to_owned);
        }
    };
    match &message["content"] {
        Value::Array(parts) => parts.iter().for_each(part),
        Value::Null => part(&message["text"]),
        other => part(other),
    }
    (words, refusal)
}

/// A call in whatever form: the function within it or around it.
fn call(call: &Value) -> Asked {
    let function = if call["function"].is_object() { &call["function"] } else { call };
    let arguments = ["arguments", "parameters", "input", "args"].iter().map(|name| &function[name]);
    let name = text(function, "name").or_else(|| text(call, "name")).or_else(|| text(call, "function"));
    Asked {
        id: id(call, "id").or_else(|| id(call, "call_id")).or_else(|| id(call, "tool_call_id")),
        name: name.unwrap_or_default().to_owned(),
        arguments: arguments.into_iter().find(|value| !value.is_null()).cloned().unwrap_or_default(),
        // Google's models behind this API want it back.
        carried: call["extra_content"].is_object().then(|| call["extra_content"].to_string()),
    }
}

fn calls(message: &Value) -> Vec<Asked> {
    let is_one =
        |call: &&Value| call.as_object().is_some_and(|members| members.values().any(|member| !member.is_null()));
    let one = |value: &Value| -> Vec<Asked> { Some(value).filter(is_one).map(call).into_iter().collect() };
    let calls = match &message["tool_calls"] {
        Value::Array(calls) => calls.iter().filter(is_one).map(call).collect(),
        single => one(single),
    };
    // The shape before tools; without ids. Servers that write both write the same call twice, and some write an empty one.
    match calls.is_empty() && text(&message["function_call"], "name").is_some() {
        true => one(&message["function_call"]),
        false => calls,
    }
}

/// Notes for the error about an answer without content.
fn notes(choice: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if !choice["finish_reason"].is_null() {
        notes.push(format!("its finish_reason is {}", choice["finish_reason"]));
    }
    let thoughts = ["reasoning_content", "reasoning", "reasoning_details", "thinking"];
    if let Some(name) = thoughts.iter().find(|name| !is_nothing(&choice["message"][name])) {
        notes.push(format!(
            "it has {name} alone; raise llm.models.NAME.max_output_tokens if its thoughts take them all"
        ));
    }
    notes
}

fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_str().is_some_and(|text| text.trim().is_empty())
        || value.as_array().is_some_and(Vec::is_empty)
}

/// Tokens. Servers that think may count thoughts in the total alone, and servers behind gateways write Anthropic's names.
pub(super) fn counted(usage: &Value) -> Counted {
    let reasoning =
        ["completion_tokens_details/reasoning_tokens", "output_tokens_details/reasoning_tokens", "reasoning_tokens"];
    let cached = [
        "prompt_tokens_details/cached_tokens",
        "input_tokens_details/cached_tokens",
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "cache_read_input_tokens",
    ];
    let written = ["prompt_tokens_details/cache_write_tokens", "cache_creation_input_tokens", "cache_write_tokens"];
    let counted = Counted {
        input: first(usage, &["prompt_tokens", "input_tokens"]),
        output: first(usage, &["completion_tokens", "output_tokens"]),
        total: None,
        cached: first(usage, &cached),
        cache_written: first(usage, &written),
        reasoning: first(usage, &reasoning),
    };
    let mut counted = counted.within(first(usage, &["total_tokens"]));
    // Thoughts are a part of the answer; where they are more than it, they are not counted in it.
    if let (Some(output), Some(reasoning)) = (counted.output, counted.reasoning)
        && reasoning > output
    {
        counted.output = Some(output.saturating_add(reasoning));
    }
    counted
}
