//! From what a provider says to an answer, or to why it is none. An answer that is not whole is never an answer.

use super::prompt::{Format, Prompt};
use super::shape::{Asked, Class, Ending, Fault, Reading};
use super::types::{Assistant, ChatError, ToolCall};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is told of a provider's words, in characters: a reason is read, not studied.
const TOLD: usize = 500;

/// Where an error is, for whoever can mend it.
pub(super) struct Place<'a> {
    /// The operator's name for the provider.
    pub provider: &'a str,
    /// The operator's name for the model.
    pub alias: &'a str,
    /// The provider's name for the model.
    pub model: &'a str,
}

/// What the model said, or why that is no answer. Its form is not checked yet: see [`check_form`].
pub(super) fn of(reading: Reading, prompt: &Prompt<'_>, place: &Place<'_>) -> Result<Assistant, ChatError> {
    match reading.ending {
        Ending::Fault(fault) => return Err(error(&fault, fault.after, place)),
        Ending::Refused(reason) => return Err(ChatError::Blocked { reason: told(&reason) }),
        Ending::Cut => return Err(ChatError::Truncated { text: reading.text }),
        Ending::Broken(reason) => return Err(unparsable(reason)),
        Ending::Whole => {}
    }
    let tool_calls = calls(reading.calls, prompt)?;
    if reading.text.trim().is_empty() && tool_calls.is_empty() {
        return Err(unparsable("it has neither text nor tool calls"));
    }
    Ok(Assistant { text: Some(reading.text).filter(|text| !text.is_empty()), tool_calls })
}

fn calls(asked: Vec<Asked>, prompt: &Prompt<'_>) -> Result<Vec<ToolCall>, ChatError> {
    let mut taken: BTreeSet<String> = prompt.calls().map(|call| call.id.clone()).collect();
    taken.extend(asked.iter().filter_map(|asked| asked.id.clone()));
    let mut calls = Vec::with_capacity(asked.len());
    let mut n = prompt.calls().count();
    for asked in asked {
        if !prompt.tools.iter().any(|offer| offer.tool.name == asked.name) {
            return Err(unparsable(format!("it asks for the tool {:?}, which was not offered", asked.name)));
        }
        let id = asked.id.unwrap_or_else(|| {
            // One that no call of the conversation has.
            loop {
                n += 1;
                let id = format!("call_{n}");
                if taken.insert(id.clone()) {
                    break id;
                }
            }
        });
        let arguments = arguments(&asked.name, asked.arguments)?;
        calls.push(ToolCall { id, name: asked.name, arguments, opaque: asked.opaque });
    }
    Ok(calls)
}

/// A JSON object as text, byte for byte as it came if it came as text.
fn arguments(tool: &str, arguments: Value) -> Result<String, ChatError> {
    let broken = |what: String| Err(unparsable(format!("the arguments of its call of {tool:?} {what}")));
    match arguments {
        Value::Object(_) => Ok(arguments.to_string()),
        // Some servers write no arguments so.
        Value::String(text) if text.trim().is_empty() => Ok("{}".into()),
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(_)) => Ok(text),
            Ok(_) => broken("are JSON, and no object".into()),
            Err(error) => broken(format!("do not parse: {error}")),
        },
        Value::Null => broken("are missing".into()),
        _ => broken("are no object".into()),
    }
}

/// Whether an answer has the form that was asked for. One that asks for tools is not complete, and not checked.
pub(super) fn check_form(said: &Assistant, format: &Format<'_>) -> Result<(), ChatError> {
    if matches!(format, Format::Text) || !said.tool_calls.is_empty() {
        return Ok(());
    }
    let text = said.text.as_deref().unwrap_or_default();
    let value: Value = serde_json::from_str(text)
        .map_err(|error| unparsable(format!("it has to be JSON and does not parse: {error}")))?;
    match format {
        Format::Schema { name, schema } => {
            schema.check(&value).map_err(|why| unparsable(told(&format!("it does not fit the schema {name:?}: {why}"))))
        }
        Format::Json | Format::Text => Ok(()),
    }
}

/// An error of the provider's, in the words of this crate.
pub(super) fn error(fault: &Fault, after: Option<Duration>, place: &Place<'_>) -> ChatError {
    let Place { provider, alias, model } = place;
    let words = told(&fault.words);
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    match fault.class {
        Class::Invalid => ChatError::InvalidRequest { reason: format!("the provider refuses it{said}") },
        Class::TooLong => ChatError::TooLong { reason: format!("the provider refuses it{said}") },
        Class::Refused => ChatError::Blocked { reason: format!("the request{said}") },
        // Their words for this often have a part of the key.
        Class::Key => ChatError::Unavailable {
            reason: format!("it refused the operator's key, or what the key may do; see llm.providers.{provider}.key"),
        },
        Class::Quota => ChatError::Unavailable {
            reason: format!("the operator's account with llm.providers.{provider} is used up or not set up{said}"),
        },
        Class::Model => ChatError::Unavailable {
            reason: format!("it has no model {model:?} at this address; see llm.models.{alias}.model{said}"),
        },
        Class::Rate => {
            let reason = if words.is_empty() { "too many requests".to_owned() } else { words };
            ChatError::RateLimited { reason, after }
        }
        Class::Down => ChatError::Unavailable {
            reason: if words.is_empty() { "it failed".to_owned() } else { format!("it failed{said}") },
        },
    }
}

pub(super) fn unparsable(reason: impl Into<String>) -> ChatError {
    ChatError::Unparsable { reason: reason.into() }
}

/// A provider's words, cut.
pub(super) fn told(words: &str) -> String {
    let words = words.trim();
    match words.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}
