//! A server's tools as it listed them, and whether arguments and results fit what it said of them.

use super::link::Link;
use super::words::{Lines, bounded, printable};
use super::{Output, Tool, ToolError};
use crate::schema;
use crate::secret::Redactor;
use agentry_defence::Defence;
use rmcp::model::{JsonObject, PaginatedRequestParams};
use rmcp::service::{Peer, RoleClient, ServiceError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// The most tools of one server.
pub(super) const TOOLS: usize = 1_000;
/// The most bytes of their names, descriptions and schemas.
const BYTES: usize = 1 << 20;
/// The most pages of a list.
const PAGES: usize = 200;
/// How long a list is used at least and at most, if the server does not say when its tools change (revision 2026-07-28).
const FRESH: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3_600);
/// The longest description that a guest sees; the rest is cut.
const DESCRIPTION_BYTES: usize = 8 << 10;
/// The longest name (the protocol's own advice since revision 2025-11-25).
const NAME_BYTES: usize = 128;

/// Every tool of one server, by name.
pub(super) struct Catalogue {
    tools: BTreeMap<String, Arc<Entry>>,
    /// When to ask again, if the server does not say that they changed.
    until: Option<Instant>,
}

/// One tool.
pub(super) struct Entry {
    pub(super) tool: Tool,
    input: Schema,
    output: Option<Schema>,
}

/// A schema, compiled when it is first needed: one that is broken spoils its own tool alone.
struct Schema {
    text: Arc<JsonObject>,
    compiled: OnceLock<Result<schema::Tolerant, String>>,
}

impl Catalogue {
    /// Asks for all pages. What is wrong with the answer is said; one tool that cannot be used is left out.
    pub(super) async fn ask(peer: &Peer<RoleClient>, link: &Link, server: &str) -> Result<Catalogue, String> {
        let mut catalogue = Catalogue { tools: BTreeMap::new(), until: None };
        let (mut bytes, mut cursor) = (0, None);
        let mut cursors = BTreeSet::new();
        link.take_left_out(); // of a listing that failed
        loop {
            let page = peer
                .list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor)))
                .await
                .map_err(|error| fault(&error, link.redactor()))?;
            if link.is_stateless() {
                catalogue.until =
                    Some(Instant::now() + page.ttl_ms.map_or(FRESH, Duration::from_millis).clamp(FRESH, LONGEST));
            }
            for tool in page.tools {
                catalogue.add(Entry::new(server, tool), link, &mut bytes)?;
            }
            let Some(next) = page.next_cursor else { return Ok(catalogue) };
            // What was left out costs as much to read.
            bytes += next.len() + link.take_left_out();
            let moves = cursors.insert(next.clone());
            if (!moves || cursors.len() >= PAGES || bytes > BYTES) && Defence::ToolCatalogue.stands() {
                let why = if moves {
                    format!("it has more than {PAGES} pages, or more than {BYTES} bytes")
                } else {
                    "its cursor repeats".into()
                };
                link.warn_of_tool("(list)", &format!("the list ends after {} tools: {why}", catalogue.tools.len()));
                return Ok(catalogue);
            }
            cursor = Some(next);
        }
    }

    /// Adds a tool, unless it cannot be named or is there already.
    fn add(&mut self, entry: Entry, link: &Link, bytes: &mut usize) -> Result<(), String> {
        let name = &entry.tool.name;
        // A page that was sent again.
        if self.tools.get(name).is_some_and(|known| known.tool == entry.tool) {
            return Ok(());
        }
        let odd = match () {
            () if !nameable(name) => {
                Some(format!("left out: a name has 1 to {NAME_BYTES} bytes and no control characters"))
            }
            () if self.tools.contains_key(name) => {
                Some("left out: another tool of the list has the same name".to_owned())
            }
            () if entry.bytes() > BYTES && Defence::ToolCatalogue.stands() => {
                Some(format!("left out: it has more than {BYTES} bytes"))
            }
            () => None,
        };
        if let Some(reason) = odd {
            link.leaves_out(entry.bytes());
            link.warn_of_tool(name, &reason);
            return Ok(());
        }
        *bytes += entry.bytes();
        if (*bytes > BYTES || self.tools.len() >= TOOLS) && Defence::ToolCatalogue.stands() {
            return Err(format!("it lists more than {TOOLS} tools, or more than {BYTES} bytes of them"));
        }
        self.tools.insert(name.clone(), Arc::new(entry));
        Ok(())
    }

    /// Whether it may be used still, of a server that does not say when its tools change.
    pub(super) fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }

    /// One tool.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.tools.get(name)
    }

    /// All tools that are granted, by name.
    pub(super) fn granted(&self, grant: &[String]) -> Vec<Tool> {
        self.tools.values().filter(|entry| allows(grant, &entry.tool.name)).map(|entry| entry.tool.clone()).collect()
    }
}

/// Whether a grant's names have this one.
pub(super) fn allows(grant: &[String], tool: &str) -> bool {
    grant.iter().any(|name| name == "*" || name == tool) || !Defence::ToolGrant.stands()
}

fn nameable(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES && printable(name, Lines::One) == name
}

/// What went wrong with a request that is no call.
pub(super) fn fault(error: &ServiceError, redactor: &Redactor) -> String {
    match error {
        ServiceError::McpError(error) => {
            redactor.reason(&format!("it refused tools/list: {} {}", error.code.0, error.message))
        }
        ServiceError::UnexpectedResponse => "its answer to tools/list is none of the protocol".to_owned(),
        error => redactor.reason(&error.to_string()),
    }
}

impl Entry {
    fn new(server: &str, tool: rmcp::model::Tool) -> Entry {
        let description = tool.description.or_else(|| tool.title.map(Into::into)).unwrap_or_default();
        let schema = |text| Schema { text, compiled: OnceLock::new() };
        Entry {
            tool: Tool {
                server: server.to_owned(),
                name: tool.name.into_owned(),
                description: bounded(&printable(&description, Lines::Many), DESCRIPTION_BYTES),
                input_schema: Value::Object((*tool.input_schema).clone()).to_string(),
            },
            input: schema(tool.input_schema),
            output: tool.output_schema.map(schema),
        }
    }

    fn bytes(&self) -> usize {
        let output = self.output.as_ref().map_or(0, |schema| Value::Object((*schema.text).clone()).to_string().len());
        self.tool.name.len() + self.tool.description.len() + self.tool.input_schema.len() + output
    }

    /// The arguments, if they fit.
    pub(super) fn arguments(&self, text: &str, redactor: &Redactor) -> Result<JsonObject, ToolError> {
        let wrong = |reason: String| ToolError::InvalidArguments {
            server: self.tool.server.clone(),
            tool: self.tool.name.clone(),
            reason,
        };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(format!("they are no JSON: {error}")))?;
        if !value.is_object() {
            return Err(wrong("they are no JSON object".to_owned()));
        }
        let schema = self.checked(&self.input, "arguments").map_err(|reason| ToolError::Unavailable {
            server: self.tool.server.clone(),
            reason: redactor.reason(&format!("the input schema that it gives for {} {reason}", self.tool.name)),
        })?;
        if let Some(schema) = schema.filter(|_| Defence::ToolArguments.stands()) {
            schema.check(&value).map_err(|reason| wrong(redactor.reason(&reason)))?;
        }
        match value {
            Value::Object(members) => Ok(members),
            _ => Err(wrong("they are no JSON object".to_owned())),
        }
    }

    /// Whether its results have structured content of a form that the server gave.
    pub(super) fn promises(&self) -> bool {
        self.output.is_some()
    }

    /// Whether the structured content is what the server promised. One that says it failed need not keep the promise.
    pub(super) fn check(
        &self,
        structured: Option<&Value>,
        output: &Output,
        redactor: &Redactor,
    ) -> Result<(), ToolError> {
        let Some(schema) = self.output.as_ref().filter(|_| !output.failed) else {
            return Ok(());
        };
        let failed = |reason: String| ToolError::Failed {
            server: self.tool.server.clone(),
            tool: self.tool.name.clone(),
            reason: redactor.reason(&reason),
        };
        let structured = structured.ok_or_else(|| failed("it promised structured content and gave none".to_owned()))?;
        // The call was made, so a schema that cannot be used takes nothing away from its result.
        let Ok(Some(schema)) = self.checked(schema, "results") else { return Ok(()) };
        schema
            .check(structured)
            .map_err(|reason| failed(format!("its structured content breaks its own output schema: {reason}")))
    }

    /// The part of a schema that can be checked; `None`: nothing of it. What cannot is logged when it is read.
    fn checked<'a>(&self, schema: &'a Schema, of: &str) -> Result<Option<&'a schema::Schema>, &'a String> {
        let compile = || {
            let mut text = (*schema.text).clone();
            // Arguments are an object whatever it says.
            let is_odd = of == "arguments" && text.get("type").is_some_and(|kind| kind.is_string() && kind != "object");
            let odd = text.get("type").filter(|_| is_odd).map(|kind| format!("/type: {kind}, expected \"object\""));
            text.retain(|name, _| !is_odd || name != "type");
            let mut read = schema::tolerant(&Value::Object(text));
            if let Ok(read) = &mut read {
                read.unchecked.extend(odd);
            }
            let unchecked = match &read {
                Ok(read) => read.unchecked.join("; "),
                Err(reason) => format!("the schema {reason}"),
            };
            if !unchecked.is_empty() {
                let (server, tool, unchecked) =
                    (&self.tool.server, &self.tool.name, bounded(&printable(&unchecked, Lines::One), 1_024));
                tracing::warn!(%server, %tool, of, unchecked, "not all of a tool's schema can be checked");
            }
            read
        };
        schema.compiled.get_or_init(compile).as_ref().map(|read| read.schema.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(tool: Value) -> Entry {
        Entry::new("calc", serde_json::from_value(tool).unwrap())
    }

    fn add() -> Entry {
        entry(json!({"name": "add", "inputSchema": {"type": "object", "required": ["a"],
            "properties": {"a": {"type": "integer"}, "b": {"type": "object", "properties": {"c": {"type": "string"}}}}}}))
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_with_their_place() {
        let entry = add();
        let refused = |text: &str| entry.arguments(text, &Redactor::default()).unwrap_err().to_string();
        assert!(entry.arguments(r#"{"a": 1, "b": {"c": "d"}}"#, &Redactor::default()).is_ok());
        for (arguments, words) in [
            ("", "they are no JSON"),
            ("{", "they are no JSON"),
            ("[1]", "they are no JSON object"),
            ("null", "they are no JSON object"),
            ("{}", "at \"/\": \"a\" is a required property"),
            (r#"{"a": "1"}"#, "at \"/a\": "),
            (r#"{"a": 1, "b": {"c": 2}}"#, "at \"/b/c\": "),
        ] {
            let error = refused(arguments);
            assert!(error.contains(words), "{arguments} gave {error}");
            assert!(error.starts_with("the arguments of calc.add do not fit: "), "{error}");
        }
    }

    #[test]
    fn schema_that_could_cost_without_bound_or_leads_outside_is_the_servers_fault() {
        for schema in [
            json!({"$ref": "https://example.com/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            // These would need a stack without end.
            json!({"$ref": "#"}),
            json!({"$defs": chain(10_000), "$ref": "#/$defs/0"}),
        ] {
            let entry = entry(json!({"name": "add", "inputSchema": schema}));
            match entry.arguments("{}", &Redactor::default()) {
                Err(ToolError::Unavailable { server, reason }) => {
                    assert_eq!(server, "calc");
                    assert!(reason.starts_with("the input schema that it gives for add "), "{reason}");
                }
                other => panic!("{schema} gave {other:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_checked_of_a_schema_spoils_no_call() {
        let schema = json!({"type": "object", "required": ["to"], "properties": {
            "to": {"type": "string", "pattern": "^(?!\\.)[^@]+@[^@]+$"}, "n": {"type": "int"}, "at": {"type": "string", "format": "odd"}}});
        let entry = entry(json!({"name": "add", "inputSchema": schema}));
        for fits in [r#"{"to": "a@b"}"#, r#"{"to": ".", "n": "any", "at": "noon"}"#] {
            assert!(entry.arguments(fits, &Redactor::default()).is_ok(), "{fits}");
        }
        for breaks in ["{}", r#"{"to": 7}"#] {
            assert!(entry.arguments(breaks, &Redactor::default()).is_err(), "{breaks}");
        }
    }

    /// Definitions, each a reference to the next.
    fn chain(length: usize) -> Value {
        let next = |n: usize| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", n + 1) }));
        (0..length).map(next).chain([(length.to_string(), json!({}))]).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn a_schema_of_an_older_draft_is_read_by_its_own_rules() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
            "properties": {"pair": {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}},
        });
        let entry = entry(json!({"name": "add", "inputSchema": schema}));
        assert!(entry.arguments(r#"{"pair": [1, "a"]}"#, &Redactor::default()).is_ok());
        assert!(entry.arguments(r#"{"pair": ["a", 1]}"#, &Redactor::default()).is_err());
    }

    #[test]
    fn a_description_is_printable_and_short() {
        let long = format!("a\u{1b}b\n{}", "x".repeat(DESCRIPTION_BYTES));
        let entry = entry(json!({"name": "add", "description": long, "inputSchema": {}}));
        assert!(entry.tool.description.starts_with("a\\u{1b}b\nxxx"));
        assert_eq!(entry.tool.description.len(), DESCRIPTION_BYTES);
    }

    #[test]
    fn a_tool_without_description_is_described_by_its_title() {
        let entry = entry(json!({"name": "add", "title": "Adds", "inputSchema": {}}));
        assert_eq!(entry.tool.description, "Adds");
    }

    #[test]
    fn a_grant_is_by_name_or_for_all() {
        let grant = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(allows(&grant(&["add"]), "add"));
        assert!(allows(&grant(&["sub", "*"]), "add"));
        assert!(!allows(&grant(&["ad*", "ADD", "add "]), "add"));
        assert!(!allows(&[], "add"));
    }

    #[test]
    fn structured_content_keeps_what_its_schema_promised() {
        let entry = entry(json!({"name": "add", "inputSchema": {}, "outputSchema":
            {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}}));
        let output = |failed| Output { content: Vec::new(), structured: None, failed };
        let check = |structured: Option<Value>, failed| {
            entry.check(structured.as_ref(), &output(failed), &Redactor::default()).map_err(|error| error.to_string())
        };
        assert_eq!(check(Some(json!({"sum": 3})), false), Ok(()));
        assert_eq!(check(None, true), Ok(()));
        assert!(check(Some(json!({"sum": "3"})), false).unwrap_err().contains("output schema: at \"/sum\": "));
        assert!(check(None, false).unwrap_err().contains("promised structured content"));
    }
}
