//! Messages of servers, in the form that rmcp's types take.
//!
//! rmcp reads a message as a whole: one member that does not fit its types, and the message is lost, with all tools of a list or a
//! result of a call that was made. Here each part is read by itself. What is understood without guessing is converted, one odd
//! member of a list is left out, and the result of a call is carried unread ([`RESULT`]) to where it is needed.

use super::catalogue::TOOLS;
use super::link::{Asked, Link, redact};
use rmcp::RoleClient;
use rmcp::service::RxJsonRpcMessage;
use serde_json::{Map, Value, json};

/// Where the result of a call stands in the result that rmcp sees: in its `_meta`.
pub(super) const RESULT: &str = "agentry/result";
/// The error code of an answer that has none, or cannot be understood (JSON-RPC: internal error).
const INTERNAL: i64 = -32603;
/// The bytes that an entry counts as that is left out, beside its name.
const ENTRY: usize = 32;
/// The most entries of a list of tools that are looked at: most of them may be left out.
const LISTED: usize = 10 * TOOLS;
/// The text that some programs begin their output with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

type Message = RxJsonRpcMessage<RoleClient>;
type Members = Map<String, Value>;

/// A text without a byte order mark and white space at its ends.
pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii()
}

/// JSON without credentials.
pub(super) fn read(link: &Link, text: &[u8]) -> Option<Value> {
    let mut value = serde_json::from_slice(trimmed(text)).ok()?;
    for message in match &mut value {
        Value::Array(batch) => batch.as_mut_slice(),
        one => std::slice::from_mut(one),
    } {
        redact(link.redactor(), message);
    }
    Some(value)
}

/// Whether a JSON value has the members of a message.
pub(super) fn is_message(value: &Value) -> bool {
    ["method", "result", "error"].iter().any(|name| value.get(name).is_some())
}

/// The messages of a text: one, or those of a batch (revision 2025-03-26). What is no message is reported and not answered: an
/// answer to garbage may call for more.
pub(super) fn messages(link: &Link, value: Value) -> Vec<Message> {
    let batch = match value {
        Value::Array(batch) => batch,
        one => vec![one],
    };
    batch.into_iter().filter_map(|value| message(link, value)).collect()
}

fn message(link: &Link, value: Value) -> Option<Message> {
    if !is_message(&value) {
        link.garbled(value.to_string().len());
        return None;
    }
    let Value::Object(members) = value else { return None };
    if members.contains_key("method") {
        return incoming(link, members);
    }
    let (id, asked) = link.answered(members.get("id"), is_error(&members))?;
    answer(link, &id, asked, members)
}

/// A request or a notification of the server, if the client has a use for it.
fn incoming(link: &Link, mut members: Members) -> Option<Message> {
    let size = members.len();
    members.insert("jsonrpc".into(), "2.0".into());
    if members.get("id").is_some_and(Value::is_null) {
        members.remove("id");
    }
    let typed = |members: Members| serde_json::from_value::<Message>(members.into()).ok();
    // A request is answered whatever its parameters are.
    let message = typed(members.clone()).or_else(|| {
        members.remove("params");
        typed(members)
    });
    match message {
        Some(message) => link.welcomes(&message).then_some(message),
        None => {
            link.garbled(size);
            None
        }
    }
}

/// Whether an answer is an error.
pub(super) fn is_error(members: &Members) -> bool {
    members.get("error").is_some_and(|error| !is_absent(error) || members.get("result").is_none_or(Value::is_null))
        && members.contains_key("error")
}

/// Some languages write a member that is not there.
fn is_absent(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// The answer to a request of this host, as rmcp takes it.
pub(super) fn answer(link: &Link, id: &Value, asked: Asked, mut members: Members) -> Option<Message> {
    let is_error = is_error(&members);
    let mut converted = json!({"jsonrpc": "2.0", "id": id});
    match members.remove("result") {
        Some(result) if !is_error => converted["result"] = convert(link, asked, result),
        _ => {
            let found = members.remove("error").filter(|error| !is_absent(error));
            converted["error"] = error(found.unwrap_or_else(|| "the answer has neither a result nor an error".into()));
        }
    }
    serde_json::from_value(converted).ok()
}

/// A JSON-RPC error with each of its members.
pub(super) fn error(error: Value) -> Value {
    let code = |value: Option<&Value>| {
        value
            .and_then(|code| code.as_i64().or_else(|| code.as_str()?.parse().ok()))
            .and_then(|code| i32::try_from(code).ok())
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let known = code(error.get("code")).map_or(INTERNAL, i64::from);
    let message = match error.get("message") {
        Some(message) => text(message),
        None => text(&error),
    };
    let mut converted = json!({"code": known, "message": message});
    if let Some(data) = error.get("data").filter(|data| !data.is_null()) {
        converted["data"] = data.clone();
    }
    converted
}

fn convert(link: &Link, asked: Asked, result: Value) -> Value {
    match (asked, result) {
        (Asked::Call, result) => json!({"content": [], "isError": false, "_meta": {RESULT: result}}),
        (Asked::Initialize, Value::Object(result)) => initialized(&result),
        (Asked::Tools, Value::Object(result)) => tools(link, result),
        (_, result) => result,
    }
}

/// Members of the result of `initialize` that this host needs.
fn initialized(result: &Members) -> Value {
    let text = |value: Option<&Value>, otherwise: &str| Value::from(value.and_then(Value::as_str).unwrap_or(otherwise));
    let info = result.get("serverInfo");
    let mut capabilities = json!({});
    if let Some(tools) = result.get("capabilities").and_then(|all| all.get("tools")).filter(|tools| tools.is_object()) {
        let changes = tools.get("listChanged").and_then(Value::as_bool).unwrap_or(false);
        capabilities["tools"] = json!({"listChanged": changes});
    }
    json!({
        "protocolVersion": text(result.get("protocolVersion"), "(none)"),
        "capabilities": capabilities,
        "serverInfo": {
            "name": text(info.and_then(|info| info.get("name")), "(none)"),
            "version": text(info.and_then(|info| info.get("version")), "(none)"),
        },
    })
}

/// A page of tools without those that cannot be used.
fn tools(link: &Link, mut result: Members) -> Value {
    let mut listed = match result.remove("tools") {
        Some(Value::Array(listed)) => listed,
        // How some languages write an empty list.
        None | Some(Value::Null) => Vec::new(),
        Some(other) => return json!({ "tools": other }),
    };
    if listed.len() > LISTED {
        let reason = format!("the entries behind the first {LISTED} are left out: it has {}", listed.len());
        link.warn_of_tool("(list)", &reason);
        listed.truncate(LISTED);
    }
    let usable = listed.into_iter().filter_map(|listed| {
        let name = listed.get("name").and_then(Value::as_str).unwrap_or("(no name)").to_owned();
        let left_out = |reason: String| {
            link.leaves_out(ENTRY + name.len());
            link.warn_of_tool(&name, &format!("left out: {reason}"));
        };
        tool(link, &name, listed).map_err(left_out).ok()
    });
    let mut page = json!({"tools": usable.collect::<Vec<_>>()});
    match result.remove("nextCursor") {
        None | Some(Value::Null) => {}
        // A cursor like any other since revision 2026-07-28; before, how some languages write one that is not there.
        Some(Value::String(cursor)) if cursor.is_empty() && !link.is_stateless() => {}
        Some(Value::String(cursor)) => page["nextCursor"] = cursor.into(),
        Some(other) => {
            link.warn_of_tool(
                "(list)",
                &format!("the list ends here: nextCursor is {}, expected a string", kind(&other)),
            );
        }
    }
    if let Some(time) = result.get("ttlMs").and_then(Value::as_u64) {
        page["ttlMs"] = time.into();
    }
    page
}

/// The parts of a tool that this host uses.
fn tool(link: &Link, name: &str, listed: Value) -> Result<Value, String> {
    let Value::Object(mut listed) = listed else {
        return Err(format!("it is {}, expected an object", kind(&listed)));
    };
    match listed.get("name") {
        Some(Value::String(_)) => {}
        Some(other) => return Err(format!("its name is {}, expected a string", kind(other))),
        None => return Err("its name is missing".into()),
    }
    let input = match listed.remove("inputSchema") {
        None | Some(Value::Null | Value::Bool(true)) => json!({"type": "object"}),
        Some(schema @ Value::Object(_)) => schema,
        Some(other) => return Err(format!("its inputSchema is {}, expected an object", kind(&other))),
    };
    let mut used = json!({"name": name, "inputSchema": input});
    for text in ["title", "description"] {
        if let Some(Value::String(words)) = listed.remove(text) {
            used[text] = words.into();
        }
    }
    match listed.remove("outputSchema") {
        None | Some(Value::Null | Value::Bool(true)) => {}
        Some(schema @ Value::Object(_)) => used["outputSchema"] = schema,
        Some(other) => {
            let reason =
                format!("its results are not checked: its outputSchema is {}, expected an object", kind(&other));
            link.warn_of_tool(name, &reason);
        }
    }
    Ok(used)
}

/// The type of a JSON value, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;
    use rmcp::model::{JsonRpcMessage, ServerResult};

    fn link() -> Link {
        Link::new("it", Redactor::default())
    }

    fn answered(asked: Asked, members: Value) -> Message {
        let Value::Object(members) = members else { panic!("{members}") };
        answer(&link(), &json!(7), asked, members).unwrap()
    }

    #[test]
    fn odd_tools_are_left_out_and_the_others_stay() {
        let odd = json!([
            {"name": "plain"}, {"name": "null", "inputSchema": null, "outputSchema": null, "description": null},
            {"name": "text", "inputSchema": "object"}, {"name": 7, "inputSchema": {}}, {"inputSchema": {}}, "tool", null,
            {"name": "annotated", "inputSchema": {"type": "object"}, "annotations": "none", "icons": 3, "_meta": [], "title": {}},
        ]);
        let message = answered(Asked::Tools, json!({"result": {"tools": odd, "nextCursor": ""}}));
        let JsonRpcMessage::Response(response) = message else { panic!("{message:?}") };
        let ServerResult::ListToolsResult(list) = response.result else { panic!("{:?}", response.result) };
        let names: Vec<_> = list.tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, ["plain", "null", "annotated"]);
        assert_eq!(list.next_cursor, None);
    }

    #[test]
    fn entries_beyond_the_bound_are_left_out_and_all_that_are_left_out_are_counted() {
        let link = link();
        let mut listed = vec![json!(0); LISTED];
        listed[0] = json!({"name": "first"});
        listed.push(json!({"name": "last"}));
        let Value::Object(result) = json!({ "tools": listed }) else { panic!("{listed:?}") };
        let page = tools(&link, result);
        let names: Vec<_> = page["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["first"]);
        assert!(link.take_left_out() >= (LISTED - 1) * ENTRY);
        assert_eq!(link.take_left_out(), 0);
    }

    #[test]
    fn result_beside_an_absent_error_is_a_result() {
        for error in [json!(null), json!(false), json!("")] {
            let message = answered(Asked::Call, json!({"result": {"content": []}, "error": error}));
            assert!(matches!(message, JsonRpcMessage::Response(_)), "{message:?}");
        }
        let message = answered(Asked::Call, json!({"result": null, "error": {"code": -1, "message": "no"}}));
        assert!(matches!(message, JsonRpcMessage::Error(_)), "{message:?}");
    }

    #[test]
    fn error_of_any_form_is_an_error() {
        for (value, code, words) in [
            (json!({"code": "-32001", "message": "gone"}), -32001, "gone"),
            (json!({"code": 99_999_999_999_i64}), INTERNAL, "99999999999"),
            (json!("no such thing"), INTERNAL, "no such thing"),
            (json!({"message": {"a": 1}}), INTERNAL, "{\"a\":1}"),
        ] {
            let converted = error(value);
            assert_eq!(converted["code"], code);
            assert!(converted["message"].as_str().unwrap().contains(words), "{converted}");
        }
    }
}
