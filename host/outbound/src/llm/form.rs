//! The form that an answer was asked for in. A model that was asked for JSON alone may put its thoughts before it, or a code fence
//! around it.

use super::answer::{told, unparsable};
use super::prompt::Format;
use super::types::{Assistant, ChatError};
use serde_json::Value;

/// Marks around thoughts, as chat templates write them.
const THOUGHTS: [(&str, &str); 5] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
];

/// Whether an answer has the form that was asked for; what stands around JSON is taken off. An answer that asks for tools is not
/// complete, and not checked.
pub(super) fn check(said: &mut Assistant, format: &Format<'_>) -> Result<(), ChatError> {
    if matches!(format, Format::Text) || !said.tool_calls.is_empty() {
        return Ok(());
    }
    let text = said.text.as_deref().unwrap_or_default();
    let (json, value) =
        json(text).map_err(|error| unparsable(format!("it has to be JSON and does not parse: {error}")))?;
    if let Format::Schema { name, schema } = format {
        let fits = schema.check(&value);
        fits.map_err(|why| unparsable(told(&format!("it does not fit the schema {name:?}: {why}"))))?;
    }
    if json.len() != text.len() {
        said.text = Some(json.to_owned());
    }
    Ok(())
}

/// The JSON in a text, and its value. The text as it is comes first: what it has within strings is its own.
fn json(text: &str) -> Result<(&str, Value), serde_json::Error> {
    let first = match serde_json::from_str(text) {
        Ok(value) => return Ok((text, value)),
        Err(error) => error,
    };
    let edge = |c: char| c.is_whitespace() || c == '\u{feff}';
    let trimmed = text.trim_matches(edge);
    let answer = without_thoughts(trimmed).trim_matches(edge);
    for candidate in [Some(trimmed), Some(answer), fenced(trimmed), fenced(answer)].into_iter().flatten() {
        if let Ok(value) = serde_json::from_str(candidate) {
            return Ok((candidate, value));
        }
    }
    Err(first)
}

/// The text behind thoughts at the beginning. A template may have written their first mark itself.
fn without_thoughts(text: &str) -> &str {
    for (begin, end) in THOUGHTS {
        let inner = text.strip_prefix(begin).unwrap_or(text);
        if let Some((_, rest)) = inner.split_once(end) {
            return rest;
        }
    }
    text
}

/// The content of a code fence that is all of the text, or that begins or ends it.
fn fenced(text: &str) -> Option<&str> {
    let mark = if text.starts_with('~') || text.ends_with('~') { '~' } else { '`' };
    let length = |rest: &str| rest.len() - rest.trim_start_matches(mark).len();
    let opened = length(text);
    let closed = text.len() - text.trim_end_matches(mark).len();
    if opened < 3 && closed < 3 {
        return None;
    }
    let inner = if closed >= 3 { text.trim_end_matches(mark) } else { text };
    if opened < 3 {
        return Some(inner.trim_end());
    }
    // What is said of the language, up to the end of the line or to the JSON.
    let inner = inner.trim_start_matches(mark).trim_start_matches([' ', '\t']);
    Some(inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_one_fence_and_behind_thoughts() {
        for text in [
            "{\"a\":1}",
            "```json\n{\"a\":1}\n```",
            "```JSON\n{\"a\":1}\n```",
            "```\n{\"a\":1}\n```",
            "\n ```json\r\n{\"a\":1}\r\n``` \n",
            "~~~json\n{\"a\":1}\n~~~",
            "````json\n{\"a\":1}\n````",
            "```json {\"a\":1} ```",
            "```json\n{\"a\":1}",
            "{\"a\":1}\n```",
            "<think>{\"b\":2} is wrong</think>{\"a\":1}",
            "<think>\nhm\n</think>\n\n```json\n{\"a\":1}\n```",
            "so it is.\n</think>\n{\"a\":1}",
            "<think></think>{\"a\":1}",
            "[THINK]hm[/THINK]{\"a\":1}",
            "\u{feff}{\"a\":1}",
        ] {
            assert_eq!(json(text).unwrap().0.trim(), "{\"a\":1}", "{text}");
        }
    }

    #[test]
    fn what_is_not_json_alone_is_not_taken() {
        for text in [
            "",
            "Here it is:\n```json\n{\"a\":1}\n```",
            "```json\n{\"a\":1}\n```\nand\n```json\n{\"b\":1}\n```",
            "```json\n```json\n{\"a\":1}\n```\n```",
            "<think>{\"a\":1}",
            "{\"a\":1",
            "```",
        ] {
            assert!(json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_as_it_is_stays_as_it_is() {
        for text in ["{\"a\": \"```\"}", "\"</think>1\"", "  {} "] {
            assert_eq!(json(text).unwrap().0, text);
        }
    }
}
