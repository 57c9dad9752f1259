//! The agent's real tools: HTTP, a memory, a calculator, and whatever MCP tools were granted.

use crate::agent::{Observation, Toolbox};
use crate::{calculator, mcp};
use agentry_sdk::memory::{self, Memory};
use agentry_sdk::serde_json::{self, Map, Value, json};
use agentry_sdk::{Failure, http, llm, log, tools};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest that one page may take.
const FETCH_TIME: Duration = Duration::from_secs(30);
/// The longest page, in bytes, before its text is taken out.
const PAGE_BYTES: usize = 2 << 20;
/// The memory, by its name in `plugin.toml`.
const MEMORY: &str = "notes";
/// How many memories `recall` gives.
const RECALLED: u32 = 5;

/// Tools that need no server.
const OWN: [&str; 4] = ["http_fetch", "remember", "recall", "calculator"];

/// All tools of one attempt.
pub(crate) struct Granted {
    tools: Vec<llm::Tool>,
    mcp: mcp::Names,
}

impl Granted {
    /// Asks which MCP tools were granted.
    ///
    /// # Errors
    /// The servers do not answer: better later than without them.
    pub(crate) fn open() -> Result<Granted, Failure> {
        let granted = match tools::list() {
            Ok(granted) => granted,
            Err(tools::Error::Denied(why)) => {
                log::info(format_args!("no MCP tools: {why}"));
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Granted::with(granted))
    }

    fn with(granted: Vec<tools::Tool>) -> Granted {
        let mcp = mcp::Names::new(granted, &OWN);
        Granted { tools: own().into_iter().chain(mcp.tools()).collect(), mcp }
    }
}

impl Toolbox for Granted {
    fn tools(&self) -> &[llm::Tool] {
        &self.tools
    }

    fn call(&self, name: &str, arguments: &Map<String, Value>, time: Duration) -> Observation {
        let result = match name {
            "http_fetch" => read(arguments).and_then(|Fetch { url }| fetch(&url, time)),
            "remember" => read(arguments).and_then(|Remember { text }| remember(&text)),
            "recall" => read(arguments).and_then(|Recall { query }| recall(&query)),
            "calculator" => read(arguments).and_then(|Calculate { expression }| calculator::evaluate(&expression)),
            _ => match self.mcp.get(name) {
                Some(tool) => return mcp::observation(tools::call(&tool.server, &tool.name, arguments)),
                None => Err(format!("there is no tool {name:?}")),
            },
        };
        match result {
            Ok(text) => Observation::of(text),
            Err(why) => Observation::failed(why),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    url: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Remember {
    text: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Recall {
    query: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Calculate {
    expression: String,
}

/// For the model: tools with one argument each, which is text.
fn own() -> [llm::Tool; 4] {
    let tool = |name: &str, description: &str, argument: &str, meaning: &str| {
        let parameters = json!({
            "type": "object",
            "properties": {argument: {"type": "string", "description": meaning}},
            "required": [argument],
            "additionalProperties": false,
        });
        llm::Tool::new(name, description, &parameters)
    };
    [
        tool("http_fetch", "Gets a page and gives its text.", "url", "An http(s) URL."),
        tool("remember", "Keeps a note for later tasks.", "text", "The note: a fact that stands by itself."),
        tool("recall", "Finds notes of earlier tasks by their words.", "query", "Words of the notes."),
        tool(
            "calculator",
            "Calculates. Knows + - * / % ^, parentheses, sqrt abs ln log log2 exp sin cos tan round floor ceil min max, pi and e.",
            "expression",
            "Such as (1 + 2) * sqrt(16).",
        ),
    ]
}

fn read<T: DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments.clone()))
        .map_err(|error| format!("the arguments do not fit: {error}"))
}

fn fetch(url: &str, time: Duration) -> Result<String, String> {
    let response = http::Request::get(url)
        .header("accept", "text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1")
        .timeout(FETCH_TIME.min(time))
        .max_body(PAGE_BYTES)
        .send()
        .map_err(|error| error.message().to_owned())?;
    fetched(&response)
}

/// A response as an observation: its status, where it leads, and its text.
fn fetched(response: &http::Response) -> Result<String, String> {
    let status = response.status;
    if let Some(location) = response.header("location").filter(|_| (300..400).contains(&status)) {
        return Err(format!("HTTP {status}: the page is at {location}"));
    }
    let page = page_text::read(response.header("content-type"), &response.body).map_err(|why| why.to_string());
    let text = page.map(|page| match page.title {
        Some(title) => format!("{title}\n\n{}", page.text),
        None => page.text,
    });
    match text {
        Ok(text) if (200..300).contains(&status) => Ok(format!("HTTP {status}\n{text}")),
        Ok(text) => Err(format!("HTTP {status}\n{text}")),
        Err(why) => Err(format!("HTTP {status}, and the page cannot be read: {why}")),
    }
}

fn remember(text: &str) -> Result<String, String> {
    let remembered = Memory::open(MEMORY).remember(text, &json!({})).map_err(|error| error.message().to_owned());
    remembered.map(|_| "remembered".into())
}

fn recall(query: &str) -> Result<String, String> {
    let entries = Memory::open(MEMORY).search(query, RECALLED).map_err(|error| error.message().to_owned())?;
    Ok(recalled(&entries))
}

fn recalled(entries: &[memory::Entry]) -> String {
    if entries.is_empty() {
        return "nothing is remembered about that".into();
    }
    let lines: Vec<_> = entries.iter().map(|entry| format!("- {} (noted {})", entry.text, entry.at)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> http::Response {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        http::Response { status, headers, body: body.into(), request: "GET https://example.com/".into() }
    }

    fn call(name: &str, arguments: Value) -> Observation {
        let Value::Object(arguments) = arguments else { panic!("no object") };
        Granted::with(Vec::new()).call(name, &arguments, Duration::from_secs(1))
    }

    #[test]
    fn a_page_is_its_status_its_title_and_its_text() {
        let html = [("content-type", "text/html")];
        let page = response(200, &html, "<title>Bread</title><p>Flour<p>Water");
        assert_eq!(fetched(&page), Ok("HTTP 200\nBread\n\nFlour\nWater".into()));
        let missing = response(404, &html, "<p>Not found");
        assert_eq!(fetched(&missing), Err("HTTP 404\nNot found".into()));
        let moved = response(301, &[("location", "https://example.com/new")], "");
        assert_eq!(fetched(&moved), Err("HTTP 301: the page is at https://example.com/new".into()));
        let image = response(200, &[("content-type", "image/png")], "");
        assert!(fetched(&image).is_err_and(|why| why.contains("image/png")));
    }

    #[test]
    fn memories_are_a_line_each() {
        let entry = |text: &str| memory::Entry {
            id: "1".into(),
            text: text.into(),
            metadata: "{}".into(),
            score: 1.0,
            at: "2026-01-01T00:00:00Z".into(),
        };
        assert_eq!(
            recalled(&[entry("a"), entry("b")]),
            "- a (noted 2026-01-01T00:00:00Z)\n- b (noted 2026-01-01T00:00:00Z)"
        );
        assert_eq!(recalled(&[]), "nothing is remembered about that");
    }

    #[test]
    fn what_goes_wrong_with_a_tool_is_an_observation() {
        assert_eq!(call("calculator", json!({"expression": "6 * 7"})), Observation::of("42"));
        assert_eq!(call("calculator", json!({"expression": "1 / 0"})), Observation::failed("division by zero"));
        let wrong = call("calculator", json!({"expr": "1"}));
        assert!(wrong.failed && wrong.text.contains("unknown field `expr`"), "{wrong:?}");
        for (name, arguments) in [
            ("http_fetch", json!({"url": "https://example.com"})),
            ("http_fetch", json!({"url": "example.com"})),
            ("remember", json!({"text": "a"})),
            ("recall", json!({"query": "a"})),
            ("search__web", json!({})),
        ] {
            assert!(call(name, arguments).failed, "{name}");
        }
    }

    #[test]
    fn mcp_tools_stand_beside_the_own_ones() {
        let tool = tools::Tool {
            server: "time".into(),
            name: "now".into(),
            description: "The time.".into(),
            input_schema: r#"{"type":"object"}"#.into(),
        };
        let granted = Granted::with(vec![tool]);
        let names: Vec<_> = granted.tools().iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["http_fetch", "remember", "recall", "calculator", "time__now"]);
        for tool in granted.tools() {
            let schema: Value = serde_json::from_str(&tool.parameters).unwrap();
            assert_eq!(schema["type"], "object", "{}", tool.name);
        }
    }
}
