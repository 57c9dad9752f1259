//! The result of a call, read as a guest is given it. The call was made: what is odd in its result is passed on as it is.

use super::intake::kind;
use super::{Content, Output};
use serde_json::{Map, Value};

/// A result that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) output: Output,
    /// The structured content, to be checked.
    pub(super) structured: Option<Value>,
}

/// Reads a result.
///
/// # Errors
/// It is none, or not the last one of the call; reads on after "the call was made, but".
pub(super) fn read(result: Value) -> Result<Read, String> {
    let Value::Object(mut result) = result else {
        return Err(format!("its result is {}, expected an object", kind(&result)));
    };
    if let Some(more) = result.get("resultType").and_then(Value::as_str).filter(|kind| *kind != "complete") {
        return Err(format!(
            "its result is of the type {more:?}: it asks for more than the tool's arguments, which this host does not offer"
        ));
    }
    if result.contains_key("task") && !result.contains_key("content") {
        return Err("it began a task, whose result this host does not ask for later".to_owned());
    }
    let failed = match result.get("isError") {
        Some(Value::Bool(failed)) => *failed,
        Some(Value::String(word)) => word == "true",
        _ => false,
    };
    let content = match result.remove("content") {
        None | Some(Value::Null) => older(&mut result).into_iter().collect(),
        Some(Value::Array(blocks)) => blocks.into_iter().map(block).collect(),
        Some(one) => vec![block(one)],
    };
    let structured = result.remove("structuredContent").filter(|structured| !structured.is_null());
    let output = Output { content, structured: structured.as_ref().map(Value::to_string), failed };
    Ok(Read { output, structured })
}

/// The whole result of revision 2024-10-07.
fn older(result: &mut Map<String, Value>) -> Option<Content> {
    result.remove("toolResult").filter(|result| !result.is_null()).map(block)
}

/// A block, of whatever type. Of a text, its annotations and metadata are no part of what a guest is given.
fn block(block: Value) -> Content {
    match block {
        Value::String(text) => Content::Text(text),
        Value::Object(mut members) if members.get("type").is_some_and(|kind| kind == "text") => {
            match members.remove("text") {
                Some(Value::String(text)) => Content::Text(text),
                Some(other) if !other.is_null() => Content::Text(other.to_string()),
                _ => Content::Text(String::new()),
            }
        }
        other => Content::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn content(result: Value) -> Vec<Content> {
        read(result).unwrap().output.content
    }

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    #[test]
    fn blocks_of_every_type_are_passed_on_beside_a_text() {
        for odd in [
            json!({"type": "video", "data": "aGk="}),
            json!({"type": "resource", "resource": {"uri": "file:///a", "text": "a"}}),
            json!({"type": "resource_link", "uri": "file:///a", "name": "a"}),
            json!({"type": "audio", "data": "aGk="}),
            json!({"type": "image"}),
            json!({"no": "type"}),
            json!(7),
        ] {
            let found = content(json!({"content": [{"type": "text", "text": "see"}, odd]}));
            assert_eq!(found, [text("see"), Content::Other(odd.to_string())]);
        }
    }

    #[test]
    fn content_of_another_form_is_understood() {
        for (result, expected) in [
            (json!({}), vec![]),
            (json!({"content": null, "isError": null}), vec![]),
            (json!({"content": "words"}), vec![text("words")]),
            (json!({"content": ["words"]}), vec![text("words")]),
            (json!({"content": {"type": "text", "text": "words", "annotations": 7}}), vec![text("words")]),
            (json!({"content": [{"type": "text", "text": 7}]}), vec![text("7")]),
            (json!({"content": [{"type": "text"}]}), vec![text("")]),
            (json!({"toolResult": "words"}), vec![text("words")]),
        ] {
            assert_eq!(content(result.clone()), expected, "{result}");
        }
        let structured = read(json!({"structuredContent": {"a": 1}})).unwrap();
        assert_eq!((structured.output.structured.as_deref(), structured.output.failed), (Some("{\"a\":1}"), false));
        assert_eq!(read(json!({"structuredContent": null})).unwrap().structured, None);
        assert!(read(json!({"isError": "true"})).unwrap().output.failed);
    }

    #[test]
    fn result_that_is_none_is_an_error_after_the_call() {
        for (result, words) in [
            (json!("text"), "a string"),
            (json!(null), "null"),
            (json!({"resultType": "input_required", "inputRequests": {}}), "input_required"),
            (json!({"task": {"taskId": "1"}}), "a task"),
        ] {
            assert!(read(result).unwrap_err().contains(words));
        }
    }
}
