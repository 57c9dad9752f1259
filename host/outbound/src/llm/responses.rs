//! OpenAI's Responses API, without its state: nothing is stored there, and each request has the whole conversation.

use super::finish::{self, Finish};
use super::openai::{OpenAi, counted};
use super::prompt::{Format, Past, Prompt, Turn};
use super::shape::{
    Asked, Ending, Fault, Reading, Shape, below, carried_by, carry, decimal, id, is_error, put, root, text,
};
use super::types::ToolChoice;
use serde_json::{Map, Value, json};
use url::Url;

/// Marks what a call carries for this kind of provider: the thoughts before it, encrypted, which have to come back with it.
const TAG: &str = "responses:";

/// Content that is requested besides the answer, so that thoughts can come back without being stored there.
const THOUGHTS: &str = "reasoning.encrypted_content";

/// Beginnings of the names of OpenAI's models that have no thoughts, and reject requests that ask for them.
const THOUGHTLESS: [&str; 3] = ["gpt-3.5", "gpt-4", "chatgpt-"];

/// See the module.
pub(super) struct Responses {
    /// Its errors are those of the other API.
    errors: OpenAi,
}

impl Responses {
    /// For the API at an address.
    pub fn new(url: &Url) -> Responses {
        Responses { errors: OpenAi::new(url) }
    }
}

impl Shape for Responses {
    fn tag(&self) -> &'static str {
        TAG
    }

    fn example(&self) -> &'static str {
        "https://api.openai.com/v1"
    }

    fn endpoint(&self, url: &Url, _model: &str) -> Url {
        below(&root(url, &["responses"]), &["responses"])
    }

    fn models(&self, url: &Url) -> Url {
        below(&root(url, &["responses"]), &["models"])
    }

    fn key_header(&self, key: &str) -> (&'static str, String) {
        self.errors.key_header(key)
    }

    fn cannot(&self, prompt: &Prompt<'_>) -> Option<&'static str> {
        // A guest that asks for an end is not to have it dropped.
        (!prompt.stop.is_empty()).then_some("stop is not known to the Responses API; leave it out")
    }

    fn body(&self, prompt: &Prompt<'_>) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), prompt.model.into());
        body.insert("input".into(), prompt.turns.iter().flat_map(items).collect());
        body.insert("max_output_tokens".into(), prompt.max_tokens.into());
        body.insert("store".into(), false.into());
        if !THOUGHTLESS.iter().any(|begin| prompt.model.starts_with(begin)) {
            body.insert("include".into(), json!([THOUGHTS]));
        }
        if !prompt.tools.is_empty() {
            let tools = prompt.tools.iter().map(|offer| {
                let (name, description) = (&offer.tool.name, &offer.tool.description);
                // Strict by default, and then it rejects schemas whose objects are open.
                json!({"type": "function", "name": name, "description": description, "parameters": offer.parameters,
                    "strict": false})
            });
            body.insert("tools".into(), tools.collect());
        }
        put(&mut body, "tool_choice", prompt.choice.map(choice));
        put(&mut body, "text", format(&prompt.format).map(|format| json!({"format": format})));
        put(&mut body, "temperature", prompt.temperature.map(decimal));
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
            reading.ending = Ending::Fault(self.errors.fault(502, body));
            return reading;
        }
        let Some(output) = body["output"].as_array() else {
            reading.ending = Ending::Broken("it has no output".into());
            return reading;
        };
        let parts = output.iter().filter(|item| item["type"] == "message");
        let parts: Vec<&Value> =
            parts.flat_map(|message| message["content"].as_array().into_iter().flatten()).collect();
        reading.text =
            parts.iter().filter(|part| part["type"] == "output_text").filter_map(|p| p["text"].as_str()).collect();
        reading.calls = calls(output);
        if !body["status"].is_null() {
            reading.notes.push(format!("its status is {}", body["status"]));
        }
        if output.iter().any(|item| item["type"] == "reasoning") {
            reading.notes.push("it has reasoning".into());
        }
        let refusal = parts.iter().find_map(|part| text(part, "refusal"));
        reading.ending = match (refusal, output.iter().find_map(stranger)) {
            (Some(refusal), _) => Ending::Refused(refusal.to_owned()),
            (None, Some(kind)) => {
                Ending::Broken(format!("it has a part of the type {kind:?}, which was not asked for"))
            }
            (None, None) => ending(body),
        };
        reading
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        self.errors.fault(status, body)
    }
}

/// The items that a message becomes.
fn items(turn: &Turn<'_>) -> Vec<Value> {
    match turn {
        Turn::System(text) => vec![json!({"role": "system", "content": text})],
        Turn::User(text) => vec![json!({"role": "user", "content": text})],
        Turn::Assistant { text, calls } => {
            let thoughts = carried_by(calls);
            let words = text.map(|text| json!({"role": "assistant", "content": text}));
            // Thoughts stand right before the call that they led to.
            words.into_iter().chain(thoughts).chain(calls.iter().map(past_call)).collect()
        }
        Turn::Tool { result, id } => {
            vec![json!({"type": "function_call_output", "call_id": id.text, "output": result.content})]
        }
    }
}

fn past_call(past: &Past<'_>) -> Value {
    json!({"type": "function_call", "call_id": past.id.text, "name": past.call.name, "arguments": past.call.arguments})
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}

fn format(format: &Format<'_>) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::Json => Some(json!({"type": "json_object"})),
        Format::Schema { name, schema } => {
            Some(json!({"type": "json_schema", "name": name, "schema": *schema.source, "strict": schema.is_closed()}))
        }
    }
}

fn calls(output: &[Value]) -> Vec<Asked> {
    // Without their content they would be looked for where nothing is stored.
    let is_thought = |item: &&Value| item["type"] == "reasoning" && text(item, "encrypted_content").is_some();
    let thoughts: Vec<&Value> = output.iter().filter(is_thought).collect();
    let asked = |item: &Value| Asked {
        id: id(item, "call_id").or_else(|| id(item, "id")),
        name: item["name"].as_str().unwrap_or_default().to_owned(),
        arguments: item["arguments"].clone(),
        carried: None,
    };
    let mut calls: Vec<Asked> = output.iter().filter(|item| item["type"] == "function_call").map(asked).collect();
    carry(&mut calls, &thoughts);
    calls
}

/// The type of an item that is neither words nor thoughts nor a call: the work of tools that the provider runs itself.
fn stranger(item: &Value) -> Option<&str> {
    if item.is_null() {
        return None;
    }
    let kind = item["type"].as_str().unwrap_or_default();
    (!matches!(kind, "message" | "reasoning" | "function_call")).then_some(kind)
}

fn ending(body: &Value) -> Ending {
    let (status, why) = (&body["status"], &body["incomplete_details"]["reason"]);
    match status.as_str() {
        Some("incomplete") => match finish::of(why) {
            Finish::Refused => Ending::Refused(format!("its content filter ended the answer ({why})")),
            Finish::Cut => Ending::Cut,
            _ => Ending::Broken(format!("it is incomplete ({why})")),
        },
        // Nothing is stored, so there is nothing to ask for later.
        Some(status @ ("in_progress" | "queued")) => Ending::Broken(format!("its status is {status:?}")),
        _ => finish::ending("status", status),
    }
}
