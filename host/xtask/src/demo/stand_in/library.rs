//! The documents, as pages and behind a tool of the Model Context Protocol (streamable HTTP, one JSON answer to each POST).

use serde_json::{Value, json};

/// Documents by name.
pub(super) struct Library {
    /// Where the pages are.
    base: String,
    documents: Vec<(String, String)>,
}

impl Library {
    pub(super) fn new(base: String, documents: Vec<(String, String)>) -> Self {
        Self { base, documents }
    }

    /// A document's text.
    pub(super) fn page(&self, name: &str) -> Option<&str> {
        self.documents.iter().find(|(own, _)| own == name).map(|(_, text)| text.as_str())
    }

    /// The answer to a message; `None` to what wants none.
    pub(super) fn speak(&self, message: &Value) -> Option<Value> {
        let id = message.get("id")?;
        let params = &message["params"];
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "library", "version": "1"},
            }),
            "ping" => json!({}),
            "tools/list" => json!({"tools": [{
                "name": "find",
                "description": "Finds the document in which a word stands most often, and says where it is.",
                "inputSchema": {
                    "type": "object",
                    "properties": {"word": {"type": "string"}},
                    "required": ["word"],
                    "additionalProperties": false,
                },
            }]}),
            "tools/call" => self.find(params["arguments"]["word"].as_str().unwrap_or_default()),
            method => {
                let error = json!({"code": -32601, "message": format!("there is no method {method}")});
                return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
            }
        };
        Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }

    fn find(&self, word: &str) -> Value {
        let word = word.to_lowercase();
        let times =
            |text: &str| text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| *w == word).count();
        let counted = self.documents.iter().map(|(name, text)| (times(text), name, text));
        // Of equals the first.
        let best = counted.rev().max_by_key(|(times, ..)| *times).filter(|(times, ..)| *times > 0);
        let (text, failed) = match best {
            Some((times, name, text)) => {
                let found = json!({
                    "document": name,
                    "url": format!("{}/{name}", self.base),
                    "times": times,
                    "words": text.split_whitespace().count(),
                });
                (found.to_string(), false)
            }
            None => (format!("{word:?} stands in no document"), true),
        };
        json!({"content": [{"type": "text", "text": text}], "isError": failed})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> Library {
        let documents = [("a.md", "sand"), ("b.md", "Sand, and sand"), ("c.md", "sand sand, sandy")];
        Library::new("http://x/pages".into(), documents.map(|(name, text)| (name.into(), text.into())).into())
    }

    #[test]
    fn the_document_with_the_word_most_often_is_found() {
        let call = json!({"id": 7, "method": "tools/call", "params": {"name": "find", "arguments": {"word": "SAND"}}});
        let answer = library().speak(&call).unwrap();
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        let expected = json!({"document": "b.md", "url": "http://x/pages/b.md", "times": 2, "words": 3});
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
        assert_eq!(answer["id"], 7);
    }

    #[test]
    fn a_word_that_is_nowhere_is_a_failure_of_the_tool() {
        let call = json!({"id": 1, "method": "tools/call", "params": {"arguments": {"word": "sea"}}});
        assert_eq!(library().speak(&call).unwrap()["result"]["isError"], true);
    }

    #[test]
    fn a_notification_has_no_answer_and_an_unknown_method_an_error() {
        assert_eq!(library().speak(&json!({"method": "notifications/initialized"})), None);
        assert!(library().speak(&json!({"id": 1, "method": "roots/list"})).unwrap()["error"].is_object());
    }
}
