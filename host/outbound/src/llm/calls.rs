//! Tool calls as servers write them, to calls as guests read them. What can be understood without guessing is taken.

use super::answer::unparsable;
use super::prompt::Prompt;
use super::shape::Asked;
use super::types::{ChatError, ToolCall};
use super::wire::{self, Given};
use serde_json::Value;
use std::collections::BTreeSet;

/// Names that models put before a tool's: of OpenAI's and Google's own prompts, and of chat templates.
const NAMESPACES: [&str; 6] = ["functions", "function", "default_api", "tools", "tool", "api"];
/// How often JSON may stand within a JSON string.
const NESTED: usize = 3;

/// Reads the calls of one answer. `tag` names the kind of provider; `marks_made`: it must not see ids that the host made.
pub(super) fn read(
    asked: Vec<Asked>,
    prompt: &Prompt<'_>,
    (tag, marks_made): (&str, bool),
) -> Result<Vec<ToolCall>, ChatError> {
    let asked: Vec<Asked> = asked.into_iter().flat_map(|call| apart(call, prompt)).collect();
    let mut taken: BTreeSet<String> = prompt.calls().map(|call| call.id.clone()).collect();
    // Ids of later calls are theirs: none that is made for an earlier one is the same.
    let given: BTreeSet<String> = asked.iter().filter_map(|asked| asked.id.clone()).collect();
    let mut calls = Vec::with_capacity(asked.len());
    let mut n = prompt.calls().count();
    for asked in asked {
        let Some(name) = offered(&asked.name, prompt) else { return Err(stranger(&asked, prompt)) };
        let (id, given_as) = match asked.id {
            Some(id) if taken.insert(id.clone()) => (id, Given::Same),
            of_provider => {
                // One that no call of the conversation has.
                let id = loop {
                    n += 1;
                    let id = format!("call_{n}");
                    if !given.contains(&id) && taken.insert(id.clone()) {
                        break id;
                    }
                };
                let made = if marks_made { Given::Made } else { Given::Same };
                (id, of_provider.map_or(made, Given::Other))
            }
        };
        let arguments = arguments(name, asked.arguments)?;
        let opaque = wire::pack(tag, &given_as, asked.carried.as_deref());
        calls.push(ToolCall { id, name: name.to_owned(), arguments, opaque });
    }
    Ok(calls)
}

fn stranger(asked: &Asked, prompt: &Prompt<'_>) -> ChatError {
    let offered = prompt.tools.iter().map(|offer| offer.tool.name.as_str()).collect::<Vec<_>>().join(", ");
    if asked.name.trim().is_empty() {
        return unparsable(format!("it has a tool call without a name; on offer: {offered}"));
    }
    let offered = if offered.is_empty() { "none".to_owned() } else { offered };
    unparsable(format!("it asks for the tool {:?}, which was not offered; on offer: {offered}", asked.name))
}

/// The offered tool that a name means: it itself, or it behind a namespace, with a number after it, or with a token of the
/// model's own format behind it.
fn offered<'p>(name: &str, prompt: &Prompt<'p>) -> Option<&'p str> {
    let find = |name: &str| prompt.tools.iter().map(|offer| offer.tool.name.as_str()).find(|tool| *tool == name);
    if let Some(tool) = find(name) {
        return Some(tool);
    }
    // `weather<|channel|>commentary`, of servers that do not read the format of gpt-oss.
    let bare = name.split("<|").next().unwrap_or_default().trim();
    // `functions.weather:0` is how Kimi's models write an id.
    let unnumbered =
        bare.rsplit_once(':').filter(|(_, n)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
    let unnumbered = unnumbered.map_or(bare, |(name, _)| name);
    let is_mark = |c: char| matches!(c, '.' | ':' | '/');
    let without = |name: &str| {
        let (namespace, rest) = name.split_once(is_mark)?;
        NAMESPACES
            .contains(&namespace.to_ascii_lowercase().as_str())
            .then(|| rest.trim_start_matches(is_mark).to_owned())
    };
    let names = [Some(bare.to_owned()), without(bare), Some(unnumbered.to_owned()), without(unnumbered)];
    names.into_iter().flatten().find_map(|name| find(&name))
}

/// The calls within `multi_tool_use.parallel`, a tool that OpenAI's models invent for calls that are made at once.
fn apart(asked: Asked, prompt: &Prompt<'_>) -> Vec<Asked> {
    const PARALLEL: [&str; 2] = ["multi_tool_use.parallel", "multi_tool_use_parallel"];
    if !PARALLEL.contains(&asked.name.trim()) || offered(&asked.name, prompt).is_some() {
        return vec![asked];
    }
    let parsed = object(&asked.arguments).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let uses = parsed.as_ref().and_then(|parsed| parsed["tool_uses"].as_array()).filter(|uses| !uses.is_empty());
    let Some(uses) = uses else { return vec![asked] };
    let call = |(n, one): (usize, &Value)| Asked {
        id: None,
        name: one["recipient_name"].as_str().unwrap_or_default().to_owned(),
        arguments: one["parameters"].clone(),
        carried: asked.carried.clone().filter(|_| n == 0),
    };
    uses.iter().enumerate().map(call).collect()
}

/// A JSON object as text, byte for byte as it came if it came as text.
fn arguments(tool: &str, arguments: Value) -> Result<String, ChatError> {
    object(&arguments).map_err(|what| unparsable(format!("the arguments of its call of {tool:?} {what}")))
}

/// A JSON object as text, or what is wrong with it. Nothing, `null` and an empty list (PHP's empty object) are no arguments.
fn object(arguments: &Value) -> Result<String, String> {
    match arguments {
        Value::Null => Ok("{}".into()),
        Value::Object(_) => Ok(arguments.to_string()),
        Value::Array(items) if items.is_empty() => Ok("{}".into()),
        Value::String(text) => of_text(text, NESTED),
        _ => Err("are no object".into()),
    }
}

fn of_text(text: &str, nested: usize) -> Result<String, String> {
    let bare = bare(text);
    if bare.is_empty() {
        return Ok("{}".into());
    }
    match serde_json::from_str::<Value>(bare) {
        // Without what stood around it, white space apart, which JSON allows.
        Ok(Value::Object(_)) => Ok(if bare.len() == text.trim().len() { text } else { bare }.to_owned()),
        Ok(Value::Null) => Ok("{}".into()),
        Ok(Value::Array(items)) if items.is_empty() => Ok("{}".into()),
        Ok(Value::String(inner)) if nested > 0 => of_text(&inner, nested - 1),
        Ok(_) => Err("are JSON, and no object".into()),
        Err(error) => Err(format!("do not parse: {error}")),
    }
}

/// A text without what models and templates put around JSON: white space, a byte order mark, a code fence or one end of it, and
/// tokens of the model's own format behind it.
fn bare(text: &str) -> &str {
    let edge = |c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0';
    let mut text = text.trim_matches(edge);
    while let Some((before, token)) = text.rsplit_once("<|") {
        let is_token = token.strip_suffix("|>").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        if !is_token {
            break;
        }
        text = before.trim_end_matches(edge);
    }
    text = text.strip_suffix("</tool_call>").unwrap_or(text).trim_end_matches(edge);
    text = text.strip_suffix("```").unwrap_or(text).trim_end_matches(edge);
    if let Some(inner) = text.strip_prefix("```") {
        text = inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).trim_start_matches(edge);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_read_in_every_form_that_is_clear() {
        let oslo = r#"{"city":"Oslo"}"#;
        for (arguments, expected) in [
            (Value::Null, "{}"),
            (json!(""), "{}"),
            (json!(" \n"), "{}"),
            (json!("null"), "{}"),
            (json!([]), "{}"),
            (json!("[]"), "{}"),
            (json!("{}"), "{}"),
            (json!({"city": "Oslo"}), oslo),
            (json!(oslo), oslo),
            (json!(format!("{oslo}\n```")), oslo),
            (json!(format!("```json\n{oslo}\n```")), oslo),
            (json!(format!("```\n{oslo}")), oslo),
            (json!(format!("\u{feff}{oslo}")), oslo),
            (json!(format!("{oslo}<|call|>")), oslo),
            (json!(format!("{oslo}\n</tool_call><|im_end|>")), oslo),
            (json!(Value::from(oslo).to_string()), oslo),
            (json!(Value::from(Value::from(oslo).to_string()).to_string()), oslo),
            (json!("\"\""), "{}"),
            (json!("{\"a\": \"<|x|>\"}"), "{\"a\": \"<|x|>\"}"),
            (json!("{\"a\": \"```\"}"), "{\"a\": \"```\"}"),
            (json!(" {\"a\" : 1}\n"), " {\"a\" : 1}\n"),
        ] {
            assert_eq!(object(&arguments).as_deref(), Ok(expected), "{arguments}");
        }
    }

    #[test]
    fn what_is_not_clear_is_not_taken() {
        for (arguments, why) in [
            (json!("{\"city\": \"Os"), "do not parse"),
            (json!("city=Oslo"), "do not parse"),
            (json!("{'city': 'Oslo'}"), "do not parse"),
            (json!("{}{\"city\": \"Oslo\"}"), "do not parse"),
            (json!("[1]"), "no object"),
            (json!([{"city": "Oslo"}]), "no object"),
            (json!(7), "no object"),
            (json!(true), "no object"),
            (json!("\"Oslo\""), "do not parse"),
        ] {
            assert!(object(&arguments).unwrap_err().contains(why), "{arguments}");
        }
    }
}
