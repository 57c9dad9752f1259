//! Sizes of schemas.

use serde_json::Value;

/// How many values a schema has, at all depths.
pub(super) fn parts(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(parts).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(parts).sum::<usize>(),
        _ => 1,
    }
}

/// The bytes of the pointers to all values of a schema whose own pointer has `at` bytes.
pub(super) fn places(value: &Value, at: usize) -> usize {
    match value {
        Value::Object(members) => members.iter().fold(at, |sum, (name, member)| {
            let escaped = name.bytes().filter(|byte| matches!(byte, b'~' | b'/')).count();
            sum.saturating_add(places(member, at + 1 + name.len() + escaped))
        }),
        Value::Array(items) => items.iter().fold(at, |sum, item| sum.saturating_add(places(item, at + 6))),
        _ => at,
    }
}

/// The bytes of all texts and names of a schema.
pub(super) fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(members) => members.iter().map(|(name, member)| name.len() + bytes(member)).sum(),
        _ => 0,
    }
}
