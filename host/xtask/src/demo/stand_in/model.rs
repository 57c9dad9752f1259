//! A model that knows one kind of question, and answers it from what its tools gave: it looks for a document, reads how it
//! begins, works out how long it is, and says so. What it is told wrongly it says wrongly: nothing is known beforehand.

use serde_json::{Value, json};

/// The question that it knows.
pub fn question(word: &str) -> String {
    format!(
        "Which document of this project has the word \"{word}\" most often, and how long does it take to read it aloud?"
    )
}

/// What it does next.
#[derive(Debug, PartialEq)]
enum Turn {
    /// Thinks, and calls a tool.
    Act(&'static str, &'static str, Value),
    /// Answers.
    Answer(String),
}

/// The answer to a request for a chat completion, in OpenAI's shape.
pub(super) fn completion(request: &Value) -> Value {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let (message, reason) = match turn(messages) {
        Turn::Act(thought, tool, arguments) => {
            let function = json!({"name": tool, "arguments": arguments.to_string()});
            let call = json!({"id": format!("call_{}", messages.len()), "type": "function", "function": function});
            (json!({"role": "assistant", "content": thought, "tool_calls": [call]}), "tool_calls")
        }
        Turn::Answer(text) => (json!({"role": "assistant", "content": text}), "stop"),
    };
    let said = message.to_string().len();
    // As a rule of thumb, four bytes are a token.
    let (read, said) = (request["messages"].to_string().len() / 4, said / 4);
    json!({
        "id": "stand-in", "object": "chat.completion", "created": 0, "model": "stand-in",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said},
    })
}

fn turn(messages: &[Value]) -> Turn {
    let of = |role: &str| messages.iter().filter(|message| message["role"] == role).map(said).collect::<Vec<_>>();
    let asked = of("user").into_iter().next().unwrap_or_default();
    let Some(word) = asked.split('"').nth(1) else {
        return Turn::Answer("I know one kind of question only.".into());
    };
    let seen = of("tool");
    let found: Value = seen.first().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    match seen.as_slice() {
        [] => Turn::Act("First I look for the document.", "search__find", json!({"word": word})),
        [why] if !found.is_object() => Turn::Answer(format!("I do not know: {why}")),
        [_] => Turn::Act("I look at how it begins.", "http_fetch", json!({"url": found["url"]})),
        [_, _] => {
            let expression = format!("{} / 150", found["words"]);
            Turn::Act("At 150 words a minute that makes:", "calculator", json!({"expression": expression}))
        }
        [_, page, minutes, ..] => {
            let heading = page.lines().find_map(|line| line.trim().strip_prefix("# ")).unwrap_or("(no heading)");
            let minutes = minutes.parse::<f64>().map_or_else(|_| minutes.clone(), |minutes| format!("{minutes:.0}"));
            let document = found["document"].as_str().unwrap_or_default();
            Turn::Answer(format!(
                "{document} (\"{}\"): {} times \"{word}\", and about {minutes} minutes to read aloud.",
                heading.trim(),
                found["times"],
            ))
        }
    }
}

/// A message's text, which is one text or several parts.
fn said(message: &Value) -> String {
    match &message["content"] {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        content => content.as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(text: &str) -> Value {
        json!({"role": "tool", "tool_call_id": "1", "content": text})
    }

    #[test]
    fn every_turn_follows_from_what_the_tools_gave() {
        let mut messages =
            vec![json!({"role": "system", "content": "s"}), json!({"role": "user", "content": question("lease")})];
        assert!(matches!(turn(&messages), Turn::Act(_, "search__find", arguments) if arguments["word"] == "lease"));
        messages.push(tool(r#"{"document": "a.md", "url": "http://x/a.md", "times": 9, "words": 300}"#));
        assert!(
            matches!(turn(&messages), Turn::Act(_, "http_fetch", arguments) if arguments["url"] == "http://x/a.md")
        );
        messages.push(tool("# A lease\n\ntext"));
        assert!(matches!(turn(&messages), Turn::Act(_, "calculator", sum) if sum["expression"] == "300 / 150"));
        messages.push(tool("2"));
        let answer = Turn::Answer("a.md (\"A lease\"): 9 times \"lease\", and about 2 minutes to read aloud.".into());
        assert_eq!(turn(&messages), answer);
    }

    #[test]
    fn a_tool_that_failed_is_no_answer() {
        let messages = [json!({"role": "user", "content": question("sea")}), tool("\"sea\" stands in no document")];
        assert_eq!(turn(&messages), Turn::Answer("I do not know: \"sea\" stands in no document".into()));
        assert!(
            matches!(turn(&[json!({"role": "user", "content": "Why?"})]), Turn::Answer(text) if text.contains("one kind"))
        );
    }
}
