//! Google's `generateContent` (Gemini API, v1beta), held by tests to the types that Google publishes with its SDK.

use super::finish;
use super::prompt::{Format, Id, Past, Prompt, Turn};
use super::retry;
use super::shape::{
    Asked, Class, Ending, Fault, Reading, Shape, below, decimal, id, is_error, put, root, status, text,
};
use super::tokens::{Counted, first, sum};
use super::types::{ToolChoice, ToolResult};
use serde_json::{Map, Value, json};
use std::time::Duration;
use url::Url;

/// Marks what a call carries for this kind of provider: the signature of the thoughts before it.
const TAG: &str = "gemini:";

/// See the module.
pub(super) struct Gemini;

impl Shape for Gemini {
    fn tag(&self) -> &'static str {
        TAG
    }

    /// It has ids where it gives some, and then wants each back; without them it goes by names and order.
    fn marks_made_ids(&self) -> bool {
        true
    }

    fn example(&self) -> &'static str {
        "https://generativelanguage.googleapis.com/v1beta"
    }

    fn endpoint(&self, url: &Url, model: &str) -> Url {
        let call = format!("{model}:generateContent");
        // Also where the address has the whole call in it, or the folder of the models.
        let root = root(&root(url, &["models", &call]), &["models"]);
        below(&root, &["models", &call])
    }

    fn models(&self, url: &Url) -> Url {
        let mut url = below(&root(url, &["models"]), &["models"]);
        url.query_pairs_mut().append_pair("pageSize", "1000");
        url
    }

    /// A key in the address, which the API also takes, would stand in every log on the way.
    fn key_header(&self, key: &str) -> (&'static str, String) {
        ("x-goog-api-key", key.to_owned())
    }

    fn body(&self, prompt: &Prompt<'_>) -> Value {
        let mut body = Map::new();
        body.insert("contents".into(), contents(&prompt.turns));
        let mut system: Vec<Value> = prompt.system().iter().map(|text| json!({"text": text})).collect();
        system.extend(prompt.format.instruction(native(prompt)).map(|text| json!({"text": text})));
        put(&mut body, "systemInstruction", (!system.is_empty()).then(|| json!({"parts": system})));
        if !prompt.tools.is_empty() {
            let declarations = prompt.tools.iter().map(|offer| {
                let (name, description) = (&offer.tool.name, &offer.tool.description);
                // `parameters` takes a subset of OpenAPI's schemas; this one takes JSON Schema.
                json!({"name": name, "description": description, "parametersJsonSchema": offer.parameters})
            });
            let declarations: Vec<Value> = declarations.collect();
            body.insert("tools".into(), json!([{"functionDeclarations": declarations}]));
        }
        put(&mut body, "toolConfig", prompt.choice.map(|choice| json!({"functionCallingConfig": calling(choice)})));
        body.insert("generationConfig".into(), config(prompt));
        Value::Object(body)
    }

    fn read(&self, body: &Value) -> Reading {
        let mut reading = Reading {
            model: text(body, "modelVersion").map(str::to_owned),
            id: text(body, "responseId").map(str::to_owned),
            counted: counted(&body["usageMetadata"]),
            ..Reading::default()
        };
        let error = &body["error"];
        if is_error(error) {
            reading.ending = Ending::Fault(self.fault(status(&error["code"]).unwrap_or(500), body));
            return reading;
        }
        let candidate = &body["candidates"][0];
        let parts = candidate["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Thoughts are marked texts; they are no part of the answer.
        let words = parts.iter().filter(|part| part["thought"] != true).filter_map(|part| part["text"].as_str());
        reading.text = words.collect();
        reading.calls = parts.iter().filter(|part| part["functionCall"].is_object()).map(asked).collect();
        reading.notes = notes(candidate, parts);
        let has_content = !(reading.text.trim().is_empty() && reading.calls.is_empty());
        reading.ending = match text(&body["promptFeedback"], "blockReason") {
            Some(reason) if !(has_content && reason == "BLOCK_REASON_UNSPECIFIED") => {
                let said = text(&body["promptFeedback"], "blockReasonMessage");
                let why = said.map_or_else(|| reason.to_owned(), |said| format!("{reason}: {said}"));
                Ending::Refused(format!("the prompt was blocked: {why}"))
            }
            _ if !candidate.is_object() => Ending::Broken("it has no candidates".into()),
            _ => match parts.iter().find_map(stranger) {
                Some(kind) => Ending::Broken(format!("it has a part of the kind {kind:?}, which nobody asked for")),
                None => ending(candidate),
            },
        };
        reading
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        // Some gateways put the error into an array.
        let error = if body.is_array() { &body[0]["error"] } else { &body["error"] };
        let words = error.as_str().or_else(|| text(error, "message")).unwrap_or_default();
        let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut fault = Fault::of_status(status, words);
        fault.class = match error["status"].as_str().unwrap_or_default() {
            // A wrong key is told as a wrong argument, with a reason of its own.
            _ if details.iter().any(|detail| detail["reason"] == "API_KEY_INVALID") => Class::Key,
            "INVALID_ARGUMENT" if is_too_long(words) => Class::TooLong,
            "INVALID_ARGUMENT" | "OUT_OF_RANGE" => Class::Invalid,
            // The project's billing, or its region.
            "FAILED_PRECONDITION" => Class::Quota,
            "UNAUTHENTICATED" | "PERMISSION_DENIED" => Class::Key,
            "NOT_FOUND" => Fault::of_status(404, words).class,
            "RESOURCE_EXHAUSTED" => Class::Rate,
            "ABORTED" | "INTERNAL" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "UNKNOWN" => Class::Down,
            _ => fault.class,
        };
        fault.after = details.iter().find_map(|detail| seconds(detail["retryDelay"].as_str()?));
        fault
    }
}

/// A duration as protobuf writes it in JSON: `34.5s`.
fn seconds(text: &str) -> Option<Duration> {
    retry::seconds(text.strip_suffix('s')?.parse().ok()?)
}

fn is_too_long(words: &str) -> bool {
    words.contains("exceeds the maximum number of tokens")
}

/// Whether the provider itself sees to the form. Together with functions, not every model does.
fn native(prompt: &Prompt<'_>) -> bool {
    prompt.tools.is_empty()
}

fn config(prompt: &Prompt<'_>) -> Value {
    let mut config = Map::new();
    config.insert("maxOutputTokens".into(), prompt.max_tokens.into());
    if native(prompt) && !matches!(prompt.format, Format::Text) {
        config.insert("responseMimeType".into(), "application/json".into());
    }
    if let (Format::Schema { schema, .. }, true) = (&prompt.format, native(prompt)) {
        config.insert("responseJsonSchema".into(), (*schema.source).clone());
    }
    put(&mut config, "temperature", prompt.temperature.map(decimal));
    put(&mut config, "stopSequences", (!prompt.stop.is_empty()).then(|| prompt.stop.to_vec()));
    // It is a signed number of 32 bits there.
    put(&mut config, "seed", prompt.seed.map(|seed| seed & 0x7fff_ffff));
    Value::Object(config)
}

/// The turns, with the results of one turn's calls in the order of the calls: without ids it goes by names and order.
fn ordered<'t, 'a>(turns: &'t [Turn<'a>]) -> Vec<&'t Turn<'a>> {
    let mut calls: &'t [Past<'a>] = &[];
    let mut group = 0;
    let mut keyed: Vec<(usize, Option<usize>, &'t Turn<'a>)> = Vec::with_capacity(turns.len());
    for turn in turns {
        let key = match turn {
            Turn::Tool { result, .. } => calls.iter().position(|past| past.call.id == result.id),
            Turn::Assistant { calls: made, .. } => {
                calls = made;
                group += 2;
                None
            }
            Turn::System(_) | Turn::User(_) => {
                group += 2;
                None
            }
        };
        // Results that follow one another are a group of their own.
        keyed.push((group + usize::from(matches!(turn, Turn::Tool { .. })), key, turn));
    }
    keyed.sort_by_key(|(group, key, _)| (*group, *key));
    keyed.into_iter().map(|(_, _, turn)| turn).collect()
}

fn contents(turns: &[Turn<'_>]) -> Value {
    let mut contents: Vec<Value> = Vec::new();
    let mut after_result = false;
    for turn in ordered(turns) {
        let (role, parts) = match turn {
            Turn::System(_) => continue,
            Turn::User(text) => ("user", vec![json!({"text": text})]),
            Turn::Assistant { text, calls } => {
                ("model", text.iter().map(|text| json!({"text": text})).chain(calls.iter().map(past_call)).collect())
            }
            Turn::Tool { result, id } => ("user", vec![function_response(result, id)]),
        };
        let is_result = matches!(turn, Turn::Tool { .. });
        // As many responses in one content as there were calls in the one before.
        match contents.last_mut().and_then(|last| last["parts"].as_array_mut()) {
            Some(last) if is_result && after_result => last.extend(parts),
            _ => contents.push(json!({"role": role, "parts": parts})),
        }
        after_result = is_result;
    }
    contents.into()
}

fn past_call(past: &Past<'_>) -> Value {
    let mut call = Map::new();
    put(&mut call, "id", known(&past.id));
    call.insert("name".into(), past.call.name.as_str().into());
    call.insert("args".into(), Value::Object(past.arguments.clone()));
    let mut part = Map::new();
    part.insert("functionCall".into(), call.into());
    put(&mut part, "thoughtSignature", past.carried);
    Value::Object(part)
}

fn function_response(result: &ToolResult, id: &Id<'_>) -> Value {
    let mut response = Map::new();
    put(&mut response, "id", known(id));
    response.insert("name".into(), result.name.as_str().into());
    let outcome = if result.failed { "error" } else { "output" };
    response.insert("response".into(), json!({outcome: result.content}));
    json!({"functionResponse": response})
}

/// An id that the provider gave, which it wants back. Those that the host made mean nothing to it.
fn known<'a>(id: &'a Id<'_>) -> Option<&'a str> {
    (!id.is_made).then_some(&*id.text)
}

fn calling(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    }
}

fn asked(part: &Value) -> Asked {
    let call = &part["functionCall"];
    Asked {
        id: id(call, "id"),
        name: call["name"].as_str().unwrap_or_default().to_owned(),
        // A function without parameters is called without arguments.
        arguments: if call["args"].is_null() { call["arguments"].clone() } else { call["args"].clone() },
        carried: text(part, "thoughtSignature").map(str::to_owned),
    }
}

/// The kind of a part that is neither words nor a call, nor says something about those: a picture, code, the work of tools that
/// the provider runs itself. Without it the answer is not whole, and a guest cannot be given it.
fn stranger(part: &Value) -> Option<&str> {
    if part["functionCall"]["willContinue"] == true {
        return Some("functionCall, begun and not ended");
    }
    if part["text"].is_string() || part["functionCall"].is_object() {
        return None;
    }
    let about = |name: &str| {
        matches!(name, "thought" | "thoughtSignature") || name.ends_with("Metadata") || name.starts_with("media")
    };
    let mut members = part.as_object()?.iter().filter(|(_, member)| !member.is_null());
    members.find_map(|(name, _)| (!about(name)).then_some(name.as_str()))
}

/// Notes for the error about an answer without content.
fn notes(candidate: &Value, parts: &[Value]) -> Vec<String> {
    let mut notes = Vec::new();
    if !candidate["finishReason"].is_null() {
        notes.push(format!("its finishReason is {}", candidate["finishReason"]));
    }
    if parts.iter().any(|part| part["thought"] == true) {
        notes.push("it has thoughts alone".into());
    }
    notes
}

/// Tokens. Those from the cache are within the prompt's; thoughts are not within the candidates'.
fn counted(usage: &Value) -> Counted {
    let output = sum(&[first(usage, &["candidatesTokenCount"]), first(usage, &["thoughtsTokenCount"])]);
    let input = sum(&[first(usage, &["promptTokenCount"]), first(usage, &["toolUsePromptTokenCount"])]);
    let counted = Counted {
        input,
        output,
        total: None,
        cached: first(usage, &["cachedContentTokenCount"]),
        cache_written: None,
        reasoning: first(usage, &["thoughtsTokenCount"]),
    };
    counted.within(first(usage, &["totalTokenCount"]))
}

fn ending(candidate: &Value) -> Ending {
    let said = text(candidate, "finishMessage");
    let with = |reason: &str| said.map_or_else(|| reason.to_owned(), |said| format!("{reason}: {said}"));
    let broken = |what: &str, reason: &str| Ending::Broken(format!("{what} ({})", with(reason)));
    match candidate["finishReason"].as_str() {
        Some("STOP") => Ending::Whole,
        // The second one could be asked for more, which nobody does: it is as long as one request may be.
        Some("MAX_TOKENS" | "CONTINUATION") => Ending::Cut,
        Some(
            reason @ ("SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "ESCALATION"
            | "MODEL_ARMOR"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"),
        ) => Ending::Refused(with(reason)),
        // The operator's account is limited or disabled for what it was used for.
        Some(reason @ "PUP_LIMITED_DISABLED") => {
            Ending::Fault(Fault { class: Class::Quota, words: with(reason), after: None })
        }
        Some(reason @ ("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS")) => {
            broken("it ended in a call of a tool that is none", reason)
        }
        Some(reason @ ("MISSING_THOUGHT_SIGNATURE" | "MALFORMED_RESPONSE" | "IMAGE_OTHER" | "NO_IMAGE")) => {
            broken("the model failed at it", reason)
        }
        Some(reason @ ("OTHER" | "FINISH_REASON_UNSPECIFIED")) => broken("it ended without a reason", reason),
        // The words of other servers, behind a gateway that speaks like it.
        _ => finish::ending("finishReason", &candidate["finishReason"]),
    }
}
