//! Tools of MCP servers under names that every provider of models takes.

use crate::agent::Observation;
use agentry_sdk::tools::{Content, Error, Output, Tool};
use agentry_sdk::{llm, serde_json};
use std::collections::BTreeMap;

/// The longest name that every provider takes.
const NAME_BYTES: usize = 64;

/// The granted tools, by the names under which the model knows them.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, Tool>);

impl Names {
    /// Names each tool `server__tool`, so that no two are the same and none is in `taken`.
    pub(crate) fn new(tools: Vec<Tool>, taken: &[&str]) -> Names {
        let mut names = BTreeMap::new();
        for tool in tools {
            let plain = plain(&format!("{}__{}", tool.server, tool.name));
            let free = |name: &String| !names.contains_key(name) && !taken.contains(&name.as_str());
            let numbered = (2_u32..).map(|number| {
                let number = format!("_{number}");
                format!("{}{number}", &plain[..plain.len().min(NAME_BYTES - number.len())])
            });
            let first = plain[..plain.len().min(NAME_BYTES)].to_owned();
            if let Some(name) = std::iter::once(first).chain(numbered).find(free) {
                names.insert(name, tool);
            }
        }
        Names(names)
    }

    /// The tool behind a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Tool> {
        self.0.get(name)
    }

    /// For the model.
    pub(crate) fn tools(&self) -> impl Iterator<Item = llm::Tool> {
        self.0.iter().map(|(name, tool)| llm::Tool {
            name: name.clone(),
            description: tool.description.clone(),
            parameters: tool.input_schema.clone(),
        })
    }
}

/// With `_` for everything else than letters, digits, `_` and `-`. All of it is ASCII, so that it may be cut anywhere.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

/// What a tool gave, for the model.
pub(crate) fn observation(result: Result<Output, Error>) -> Observation {
    let output = match result {
        Ok(output) => output,
        Err(error) => return Observation::failed(error.message()),
    };
    let mut parts: Vec<String> = output
        .content
        .iter()
        .map(|content| match content {
            Content::Text(text) => text.clone(),
            Content::Other(block) => shown(block),
        })
        .collect();
    // A server that gives structure should give the same as text; where it does not, the structure is all there is.
    if let Some(structured) = &output.structured
        && output.content.iter().all(|content| matches!(content, Content::Other(_)))
    {
        parts.push(structured.clone());
    }
    let text = if parts.is_empty() { "(nothing)".into() } else { parts.join("\n") };
    Observation { text, failed: output.failed }
}

/// A content block that is not of type `text`: the text of a resource, or what kind of thing it is.
fn shown(block: &str) -> String {
    let block: serde_json::Value = serde_json::from_str(block).unwrap_or_default();
    if let Some(text) = block.pointer("/resource/text").and_then(|text| text.as_str()) {
        return text.to_owned();
    }
    let kind = block.get("type").and_then(|kind| kind.as_str()).unwrap_or("something");
    format!("[{} that cannot be shown as text]", kind.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(server: &str, name: &str) -> Tool {
        Tool { server: server.into(), name: name.into(), description: "d".into(), input_schema: "{}".into() }
    }

    #[test]
    fn a_tool_is_known_by_server_and_name_and_found_again() {
        let names = Names::new(vec![tool("search", "web_search"), tool("files", "read")], &[]);
        let known: Vec<_> = names.tools().map(|tool| tool.name).collect();
        assert_eq!(known, ["files__read", "search__web_search"]);
        assert_eq!(names.get("search__web_search"), Some(&tool("search", "web_search")));
        assert_eq!(names.get("web_search"), None);
    }

    #[test]
    fn every_name_is_one_that_providers_take_and_leads_back_to_its_tool() {
        let long = "x".repeat(100);
        let odd = [
            tool("a.b", "c/d"),
            tool("a_b", "c_d"),
            tool("a b", "c:d"),
            tool("\u{fc}", "\u{1f35e}"),
            tool("s", &long),
            tool("s", &format!("{long}y")),
            tool("http", "fetch"),
            tool("", ""),
        ];
        let names = Names::new(odd.to_vec(), &["http__fetch"]);
        let known: Vec<_> = names.tools().map(|tool| tool.name).collect();
        assert_eq!(known.len(), odd.len());
        for name in &known {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            assert!((1..=64).contains(&name.len()) && name.bytes().all(fits), "{name}");
            assert_ne!(name, "http__fetch");
        }
        for tool in &odd {
            let behind = known.iter().filter(|name| names.get(name) == Some(tool)).count();
            assert_eq!(behind, 1, "{tool:?}");
        }
        assert_eq!(names.get("a_b__c_d"), Some(&tool("a.b", "c/d")), "the first has the plain name");
        assert_eq!(names.get("a_b__c_d_2"), Some(&tool("a_b", "c_d")));
    }

    #[test]
    fn an_observation_is_the_text_and_names_what_is_not() {
        let image = Content::Other(r#"{"type": "image", "data": "…"}"#.into());
        let output =
            Output { content: vec![Content::Text("a".into()), image], structured: Some("{}".into()), failed: false };
        assert_eq!(observation(Ok(output)), Observation::of("a\n[image that cannot be shown as text]"));
        let resource = Content::Other(r#"{"type": "resource", "resource": {"uri": "file:///a", "text": "b"}}"#.into());
        assert_eq!(observation(Ok(Output { content: vec![resource], ..Output::default() })), Observation::of("b"));
        let structured = Output { structured: Some("{\"a\":1}".into()), ..Output::default() };
        assert_eq!(observation(Ok(structured)), Observation::of("{\"a\":1}"));
        assert_eq!(observation(Ok(Output::default())), Observation::of("(nothing)"));
    }

    #[test]
    fn a_tool_that_fails_or_is_denied_is_an_observation() {
        let output = Output { content: vec![Content::Text("no such file".into())], structured: None, failed: true };
        assert_eq!(observation(Ok(output)), Observation::failed("no such file"));
        let denied = Error::Denied("files.read is not granted".into());
        assert_eq!(observation(Err(denied)), Observation::failed("files.read is not granted"));
    }
}
