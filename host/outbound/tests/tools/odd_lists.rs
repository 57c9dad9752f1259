//! Lists of tools and results with odd members: those alone are lost.

use crate::http::at;
use crate::raw_server::{Log, RawServer, Reply, Request, in_json, result, usual};
use crate::secrets::log;
use crate::*;

/// A server that lists in its own way, and whose tools return `given`.
async fn listing(list: impl Fn(&Log, &Request) -> Value + Send + Sync + 'static, given: Value) -> RawServer {
    RawServer::start(move |log: &Log, request: &Request| -> Reply {
        match request.message["method"].as_str() {
            Some("tools/list") => in_json(&result(request, list(log, request))),
            Some("tools/call") => in_json(&result(request, given.clone())),
            _ => usual(request),
        }
    })
    .await
}

fn settings(server: &RawServer) -> ServerSettings {
    let mut settings = at(server.url(), &[], None);
    settings.call = Duration::from_secs(20);
    settings
}

fn names(tools: &[agentry_outbound::tools::Tool]) -> Vec<&str> {
    tools.iter().map(|tool| tool.name.as_str()).collect()
}

#[tokio::test]
async fn odd_tool_is_left_out_and_named_in_the_log() {
    let (log, _guard) = log();
    let tools = json!([
        {"name": "plain"},
        {"name": "null", "inputSchema": null, "description": 7, "annotations": [], "execution": "x", "icons": {}},
        {"name": "good", "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        {"name": "text_schema", "inputSchema": "object"},
        {"name": "bad\nname", "inputSchema": {}},
        {"name": "x".repeat(200), "inputSchema": {}},
        {"name": "", "inputSchema": {}},
        {"name": "good", "inputSchema": {}},
        {"title": "no name"},
        "no tool",
        {"name": "odd_output", "inputSchema": {}, "outputSchema": "text"},
        {"name": "odd_type", "inputSchema": {"type": "string"}},
        {"name": "nested_required", "inputSchema": {"type": "object", "properties": {"coin": {"type": "string"}, "required": ["coin"]}}},
    ]);
    let server =
        listing(move |_, _| json!({ "tools": tools }), json!({"content": [{"type": "text", "text": "done"}]})).await;
    let tools = only(settings(&server));
    let session = session(&tools);
    let listed = session.list(later()).await.unwrap();
    assert_eq!(names(&listed), ["good", "nested_required", "null", "odd_output", "odd_type", "plain"]);
    for tool in ["plain", "null", "odd_output", "odd_type", "nested_required"] {
        assert_eq!(text(&session, tool, json!({"any": 1})).await, "done", "{tool}");
    }
    let refused = call(&session, "good", json!({"a": "x"})).await.unwrap_err();
    assert!(matches!(refused, ToolError::InvalidArguments { .. }), "{refused:?}");
    let log = log.words();
    for (tool, reason) in [
        ("text_schema", "its inputSchema is a string, expected an object"),
        ("bad\\nname", "no control characters"),
        ("good", "another tool of the list has the same name"),
        ("(no name)", "it is a string, expected an object"),
        ("odd_output", "its outputSchema is a string"),
    ] {
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("a tool of the list") && line.contains(reason)).collect();
        assert!(lines.iter().any(|line| line.contains(tool) && line.contains("server=it")), "{tool}: {lines:?}");
    }
}

#[tokio::test]
async fn list_of_many_odd_entries_is_bounded_and_its_warnings_are_few() {
    let (log, _guard) = log();
    let mut entries = vec![json!({"name": "good"})];
    entries.extend((0..9_000).map(|n| json!({"name": format!("odd{n}"), "inputSchema": n})));
    let server = listing(
        move |log, _| json!({"tools": entries, "nextCursor": log.count("tools/list").to_string()}),
        json!({"content": []}),
    )
    .await;
    let tools = only(settings(&server));
    let session = session(&tools);
    assert_eq!(names(&session.list(later()).await.unwrap()), ["good"]);
    let asked = server.log.count("tools/list");
    assert!((2..10).contains(&asked), "{asked} pages were asked for");
    let log = log.words();
    assert_eq!(log.lines().filter(|line| line.contains("a tool of the list is not used")).count(), 20);
    assert_eq!(log.lines().filter(|line| line.contains("further ones are not shown")).count(), 1);
}

#[tokio::test]
async fn list_ends_where_its_cursor_leads_nowhere() {
    let one = || json!([{"name": "one"}]);
    for cursor in [json!(""), Value::Null, json!(7), json!("same"), json!({})] {
        let next = cursor.clone();
        let server = listing(move |_, _| json!({"tools": one(), "nextCursor": next}), json!({})).await;
        let tools = only(settings(&server));
        assert_eq!(names(&session(&tools).list(later()).await.unwrap()), ["one"], "{cursor}");
        assert!(server.log.count("tools/list") <= 2, "{cursor}");
    }
    let server =
        listing(move |log, _| json!({"tools": [], "nextCursor": log.count("tools/list").to_string()}), json!({})).await;
    let tools = only(settings(&server));
    assert_eq!(session(&tools).list(later()).await.unwrap(), []);
    assert_eq!(server.log.count("tools/list"), 200);
    for empty in [json!({}), json!({"tools": null})] {
        let server = listing(move |_, _| empty.clone(), json!({})).await;
        assert_eq!(session(&only(settings(&server))).list(later()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn result_arrives_whatever_blocks_it_has() {
    let text = |text: &str| Content::Text(text.to_owned());
    let block = |block: &Value| Content::Other(block.to_string());
    let video = json!({"type": "video", "url": "https://example.com/v"});
    let image = json!({"type": "image", "data": "aGk="});
    let resource = json!({"type": "resource", "resource": {"uri": "a://b", "blob": "aGk="}});
    for (given, content, structured, failed) in [
        (json!({"content": [{"type": "text", "text": "see"}, video]}), vec![text("see"), block(&video)], None, false),
        (json!({"content": [image, resource]}), vec![block(&image), block(&resource)], None, false),
        (json!({"content": [{"type": "text", "text": "no"}], "isError": true}), vec![text("no")], None, true),
        (json!({"structuredContent": {"a": 1}}), vec![], Some(r#"{"a":1}"#), false),
        (json!({"content": [], "isError": null, "_meta": "odd"}), vec![], None, false),
        (
            json!({"content": [{"type": "text", "text": "a", "annotations": {"priority": "high"}}]}),
            vec![text("a")],
            None,
            false,
        ),
        (json!({}), vec![], None, false),
    ] {
        let shown = given.to_string();
        let server = listing(|_, _| json!({"tools": [{"name": "odd"}]}), given).await;
        let output = call(&session(&only(settings(&server))), "odd", json!({})).await.unwrap();
        assert_eq!(
            (output.content, output.structured.as_deref(), output.failed),
            (content, structured, failed),
            "{shown}"
        );
    }
    for odd in [json!("done"), json!(7), json!([]), Value::Null] {
        let server = listing(|_, _| json!({"tools": [{"name": "odd"}]}), odd.clone()).await;
        let error = call(&session(&only(settings(&server))), "odd", json!({})).await.unwrap_err();
        assert!(
            matches!(&error, ToolError::Failed { reason, .. } if reason.contains("the call was made")),
            "{odd}: {error:?}"
        );
    }
}

#[tokio::test]
async fn tool_whose_schema_cannot_be_checked_is_called_and_named_in_the_log() {
    let (log, _guard) = log();
    let email = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$";
    let tools = json!([{"name": "mail", "inputSchema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"to": {"type": "string", "format": "email", "pattern": email}, "tree": {"$ref": "#/$defs/tree"}}, "required": ["to"],
        "$defs": {"tree": {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}}},
        "outputSchema": {"type": "object", "properties": {"id": {"type": "string", "pattern": "(?<=x)"}}}}]);
    let given = json!({"content": [], "structuredContent": {"id": "y"}});
    let server = listing(move |_, _| json!({ "tools": tools }), given).await;
    let tools = only(settings(&server));
    let session = session(&tools);
    for _ in 0..2 {
        let output = call(&session, "mail", json!({"to": "a@b.org", "tree": {"of": [{}]}})).await.unwrap();
        assert_eq!(output.structured.as_deref(), Some(r#"{"id":"y"}"#));
    }
    for breaks in [json!({}), json!({"to": 7}), json!({"to": "a@b.org", "tree": {"of": [7]}})] {
        let error = call(&session, "mail", breaks).await.unwrap_err();
        assert!(matches!(error, ToolError::InvalidArguments { .. }), "{error:?}");
    }
    assert_eq!(server.log.count("tools/call"), 2);
    let log = log.words();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("not all of a tool's schema")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, part) in lines.iter().zip(["/properties/to/pattern", "/properties/id/pattern"]) {
        assert!(line.contains("server=it") && line.contains("tool=mail") && line.contains(part), "{line}");
    }
}
