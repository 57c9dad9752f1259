//! Text from outside, made storable: Postgres takes no NUL in text, and refuses the whole row.

use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;
use std::borrow::Cow;

/// The text with NUL characters replaced.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// The text, storable and at most `bytes` long, cut at a character.
pub(super) fn cut(input: &str, bytes: usize) -> Cow<'_, str> {
    let end = (0..=bytes.min(input.len())).rev().find(|at| input.is_char_boundary(*at)).unwrap_or(0);
    text(&input[..end])
}

/// JSON text in which no string holds a NUL, not even an escaped one: `value::jsonb` must work for a SQL reader.
pub(super) fn json(value: &Value) -> String {
    let plain = value.to_string();
    if plain.contains("\\u0000") { without_nul(value.clone()).to_string() } else { plain }
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(s) => Value::String(text(&s).into_owned()),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (text(&k).into_owned(), without_nul(v))).collect(),
        other => other,
    }
}

/// Whether both databases can hold this time, and sort it.
pub(super) fn is_storable(at: DateTime<Utc>) -> bool {
    (1..=9999).contains(&at.year())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nul_is_replaced_wherever_it_stands() {
        assert_eq!(text("a\0b"), "a\u{FFFD}b");
        let value = json!({"a\0": ["\0", {"b": "c\0"}], "d": "\\u0000"});
        let stored = super::json(&value);
        assert_eq!(
            serde_json::from_str::<Value>(&stored).unwrap(),
            json!({"a\u{FFFD}": ["\u{FFFD}", {"b": "c\u{FFFD}"}], "d": "\\u0000"})
        );
    }

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
