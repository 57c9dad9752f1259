//! Bodies of calls as a person reads them: JSON as an outline in which texts have their own lines, other text line by line, bytes
//! as base64. Whatever they hold, nothing of it steers the terminal.

use super::escape::line;
use super::output::field;
use super::timeline::size;
use serde_json::Value;

/// Characters of a line of base64, as in mail.
const BASE64_LINE: usize = 76;
/// What is nested deeper is shown as it came: each level moves all that is below it.
const DEEPEST: usize = 32;

/// The bodies of calls, each below its call; empty, if none is recorded.
pub fn bodies(calls: &[Value]) -> String {
    let mut text = String::new();
    for call in calls {
        let both = [("request", &call["request_body"]), ("response", &call["response_body"])];
        let shown: String = both.into_iter().filter(|(_, b)| b.is_object()).map(|(name, b)| body(name, b)).collect();
        if !shown.is_empty() {
            let [fence, seq, capability, operation, target, result] =
                ["fence", "seq", "capability", "operation", "target", "result"].map(|name| field(call, name));
            text += &format!("\n{fence}.{seq} {capability} {operation} {target} {result}\n{shown}");
        }
    }
    text
}

fn body(name: &str, body: &Value) -> String {
    let content = body["content"].as_str().unwrap_or_default();
    let is_text = body["encoding"] == "utf-8";
    let mut about = size(body["bytes"].as_i64().unwrap_or_default());
    if !is_text {
        about += ", base64";
    }
    if body["cut"] == true {
        about += ", cut";
    }
    let json = if is_text { serde_json::from_str(content).ok() } else { None };
    let lines = match json.filter(|json: &Value| (1..DEEPEST).contains(&depth(json))) {
        Some(json) => outline(&json),
        None if is_text => content.lines().map(line).collect(),
        None => content.as_bytes().chunks(BASE64_LINE).map(|part| line(&String::from_utf8_lossy(part))).collect(),
    };
    let lines = lines.iter().map(|shown| format!("    {shown}").trim_end().to_owned() + "\n");
    format!("  {name} ({about})\n{}", lines.collect::<String>())
}

/// Levels of objects and lists.
fn depth(json: &Value) -> usize {
    match json {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// `key: value`, `- item`, and below it what is longer than a line.
fn outline(json: &Value) -> Vec<String> {
    let below = |lines: Vec<String>| lines.into_iter().map(|line| format!("  {line}"));
    match json {
        Value::Object(members) if !members.is_empty() => {
            let member = |(key, value): (&String, &Value)| match (outline(value), value) {
                (lines, Value::Array(_) | Value::Object(_)) if is_long(value) => {
                    [vec![format!("{}:", line(key))], below(lines).collect()].concat()
                }
                (lines, _) if lines.len() > 1 => [vec![format!("{}: |", line(key))], below(lines).collect()].concat(),
                (lines, _) => vec![format!("{}: {}", line(key), lines.concat())],
            };
            members.iter().flat_map(member).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            let item = |item: &Value| {
                let lines = outline(item).into_iter().zip(0..);
                lines.map(|(line, n)| format!("{}{line}", if n == 0 { "- " } else { "  " })).collect::<Vec<_>>()
            };
            items.iter().flat_map(item).collect()
        }
        Value::String(text) if !text.is_empty() => text.split('\n').map(line).collect(),
        other => vec![other.to_string()],
    }
}

fn is_long(json: &Value) -> bool {
    json.as_array().is_some_and(|items| !items.is_empty())
        || json.as_object().is_some_and(|members| !members.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(request: Value, response: Value) -> Value {
        json!({
            "fence": 1, "seq": 2, "capability": "llm", "operation": "chat", "target": "default", "result": "ok",
            "request_body": request, "response_body": response,
        })
    }

    fn text(content: &str) -> Value {
        json!({"encoding": "utf-8", "content": content, "bytes": content.len(), "cut": false})
    }

    #[test]
    fn a_chat_is_an_outline_in_which_a_prompt_has_its_lines() {
        let asked = json!({
            "messages": [{"role": "user", "content": "One.\nTwo."}, {"role": "assistant", "content": null}],
            "stop": [], "tools": [{"name": "add", "parameters": {"type": "object"}}],
        });
        let shown = bodies(&[call(text(&asked.to_string()), Value::Null)]);
        let expected = r#"
1.2 llm chat default ok
  request (155 bytes)
    messages:
      - content: |
          One.
          Two.
        role: user
      - content: null
        role: assistant
    stop: []
    tools:
      - name: add
        parameters:
          type: object
"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_no_json_is_shown_line_by_line_and_bytes_as_base64() {
        let cut = json!({"encoding": "utf-8", "content": "{\"a\": \"b", "bytes": 4_096, "cut": true});
        let bytes = json!({"encoding": "base64", "content": "A".repeat(100), "bytes": 75, "cut": false});
        let shown = bodies(&[call(cut, bytes)]);
        let (first, rest) = ("A".repeat(76), "A".repeat(24));
        let expected = format!(
            "\n1.2 llm chat default ok\n  request (4.0 KiB, cut)\n    {{\"a\": \"b\n  response (75 bytes, base64)\n    {first}\n    {rest}\n"
        );
        assert_eq!(shown, expected);
        assert_eq!(bodies(&[call(Value::Null, Value::Null)]), "", "nothing is recorded");
    }

    #[test]
    fn nothing_in_a_body_steers_the_terminal() {
        let hostile = "\u{1b}[2J\u{202e}\r";
        let inside = json!({ hostile: [hostile, { hostile: hostile }] }).to_string();
        let deep = format!("{}\"{hostile}\"{}", "[".repeat(100), "]".repeat(100));
        for content in [hostile, &inside, &deep] {
            let shown = bodies(&[call(text(content), text(content))]);
            let raw = shown.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
            assert!(!raw && shown.contains("\\u{1b}[2J"), "{shown:?}");
        }
    }
}
