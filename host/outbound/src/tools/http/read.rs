//! Answers over HTTP: JSON or events, with whatever header says so.

use super::client::{Client, Headers};
use super::events;
use super::fault::{Failure, Fault, Loss, UNKNOWN, loss};
use crate::tools::intake;
use crate::tools::link::key;
use crate::tools::words::{Lines, bounded, printable};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{StatusCode, header};
use serde_json::{Map, Value};
use std::sync::atomic::Ordering;

/// The most bytes of an error's body that are read.
const ERROR_BYTES: usize = 64 << 10;
/// The most bytes of a body that an error repeats.
const SHOWN_BYTES: usize = 256;

/// Response to a request.
pub(super) enum Reply {
    /// An answer of JSON-RPC, a result or an error.
    Answer { members: Map<String, Value>, status: StatusCode, session: Option<String> },
    /// An HTTP error without one; the beginning of its body.
    Refused { status: StatusCode, words: String },
    /// The answer comes over another stream.
    Elsewhere,
}

impl Reply {
    /// Effect on the session, as the answer to the request `id`, and its words.
    pub(super) fn loss(&self, id: &Value) -> (Loss, String) {
        match self {
            Reply::Answer { members, status, .. } if intake::is_error(members) => {
                let error = intake::error(members.get("error").cloned().unwrap_or_default());
                let words = error["message"].as_str().unwrap_or_default().to_owned();
                (loss(*status, Some(members), &words, id), words)
            }
            Reply::Refused { status, words } => (loss(*status, None, words, id), words.clone()),
            Reply::Answer { .. } | Reply::Elsewhere => (Loss::None, String::new()),
        }
    }
}

pub(super) type Chunks = BoxStream<'static, reqwest::Result<Bytes>>;

/// Forms of a body.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Json,
    Events,
    /// The header does not say: the first bytes do.
    Unsaid,
}

/// Reads what came back to the request `id`, to the end of its answer.
pub(super) async fn reply(
    client: &Client,
    response: reqwest::Response,
    id: &Value,
    session: Option<&str>,
    headers: &Headers,
) -> Result<Reply, Failure> {
    let status = response.status();
    let new_session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
    let new_session = new_session.filter(|id| !id.is_empty()).map(str::to_owned);
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let form = form(kind.as_deref());
    let mut body: Chunks = response.bytes_stream().boxed();
    if !status.is_success() {
        return Ok(refused(client, status, body).await);
    }
    let first = first(&mut body).await.map_err(|error| client.no_answer(error))?;
    // Servers accept with words of their own.
    let Some(first) = first.filter(|first| status != StatusCode::ACCEPTED || sniffed(first).is_some()) else {
        return match status == StatusCode::ACCEPTED && client.listening.load(Ordering::Acquire) > 0 {
            true => Ok(Reply::Elsewhere),
            false => Err(Fault::unanswered(&format!("it returned HTTP {} without an answer", status.as_u16()))),
        };
    };
    // The body knows better than the header.
    let form = sniffed(&first).or((form != Form::Unsaid).then_some(form));
    let is_page = intake::trimmed(&first).starts_with(b"<");
    let body: Chunks = futures_util::stream::iter([Ok(first)]).chain(body).boxed();
    let members = match form {
        Some(Form::Events) => match events::answer(client, body, id, session, headers).await? {
            Some(members) => members,
            None => return Ok(Reply::Elsewhere),
        },
        Some(_) => json(client, body, id).await?,
        None => {
            let kind = client.link.redactor().reason(kind.as_deref().unwrap_or(""));
            let words = format!(
                "it answered with the content type {kind:?}, which is none of the protocol; check that url is the endpoint's"
            );
            // A page is no sign of the old transport.
            return Err(match is_page {
                true => Fault::once(format!("{words}; {UNKNOWN}")),
                false => Fault::unanswered(&words),
            });
        }
    };
    Ok(Reply::Answer { members, status, session: new_session })
}

/// The form that a content type says, in any case and with any parameters. Frameworks and proxies say `text/plain` or `text/html` of
/// JSON.
pub(super) fn form(kind: Option<&str>) -> Form {
    let essence = kind.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/event-stream" => Form::Events,
        "application/json" => Form::Json,
        other if other.ends_with("+json") => Form::Json,
        _ => Form::Unsaid,
    }
}

/// The form of a body without a header, by its first bytes.
fn sniffed(first: &[u8]) -> Option<Form> {
    let text = intake::trimmed(first);
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word.as_bytes()));
    match () {
        () if begins(&["{", "["]) => Some(Form::Json),
        () if begins(&["data:", "event:", "id:", "retry:", ":"]) => Some(Form::Events),
        () => None,
    }
}

/// The first bytes of a body that are not white space alone; `None`: there are none.
async fn first(body: &mut Chunks) -> reqwest::Result<Option<Bytes>> {
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if !intake::trimmed(&chunk).is_empty() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// An HTTP error, with the error of JSON-RPC in its body if there is one, whatever its id.
async fn refused(client: &Client, status: StatusCode, mut body: Chunks) -> Reply {
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        let room = ERROR_BYTES - text.len();
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if text.len() == ERROR_BYTES {
            break;
        }
    }
    let members = intake::read(&client.link, &text).and_then(|value| match value {
        Value::Array(batch) => batch.into_iter().find(|value| value.get("error").is_some()),
        one => Some(one),
    });
    if let Some(Value::Object(members)) = members {
        // Frameworks have an "error" of their own, which is a text.
        if members.get("error").is_some_and(Value::is_object) || members.contains_key("result") {
            return Reply::Answer { members, status, session: None };
        }
    }
    Reply::Refused { status, words: shown(client, &text) }
}

fn shown(client: &Client, text: &[u8]) -> String {
    let text = client.link.redactor().text(String::from_utf8_lossy(text).trim());
    bounded(&printable(&text, Lines::One), SHOWN_BYTES)
}

async fn json(client: &Client, mut body: Chunks, id: &Value) -> Result<Map<String, Value>, Failure> {
    let mut text = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| client.no_answer(error))?;
        if text.len() + chunk.len() > client.most {
            return Err(Fault::too_large(client.most));
        }
        text.extend_from_slice(&chunk);
    }
    let is_answer = |value: &Value| value.is_array() || intake::is_message(value);
    let read = intake::read(&client.link, &text).or_else(|| lines(client, &text)).filter(is_answer);
    let Some(read) = read else {
        return Err(Fault::once(format!("its answer is none of the protocol: {}; {UNKNOWN}", shown(client, &text))));
    };
    match take(client, read, id).await {
        Some(members) => Ok(members),
        None => Err(Fault::once(format!("its answer is to no request of this host; {UNKNOWN}"))),
    }
}

/// The messages of a body that has one a line.
fn lines(client: &Client, text: &[u8]) -> Option<Value> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| intake::read(&client.link, line).filter(intake::is_message)).collect()
}

/// The answer to the request `id` among the messages of a value; the others go to the session. In the body of its own response an
/// answer needs no id: servers that could not read a request, or that have no session, return `null` or a word of their own.
pub(super) async fn take(client: &Client, value: Value, id: &Value) -> Option<Map<String, Value>> {
    let batch = match value {
        Value::Array(batch) => batch,
        one => vec![one],
    };
    let mut found = None;
    for value in batch {
        match value {
            Value::Object(members) if found.is_none() && is_answer_to(&members, id) => found = Some(members),
            other => {
                for message in intake::messages(&client.link, other) {
                    let _ = client.others.send(message).await; // the session may have ended
                }
            }
        }
    }
    found
}

fn is_answer_to(members: &Map<String, Value>, id: &Value) -> bool {
    let is_answer =
        !members.contains_key("method") && ["result", "error"].iter().any(|name| members.contains_key(*name));
    let own = members.get("id").and_then(key);
    is_answer && (own.is_none() || own == key(id) || intake::is_error(members) && !is_number(members.get("id")))
}

fn is_number(id: Option<&Value>) -> bool {
    id.and_then(key).is_some_and(|id| id.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_type_is_read_in_any_case_and_with_parameters() {
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=utf-8",
            "application/problem+json",
        ] {
            assert!(form(Some(kind)) == Form::Json, "{kind}");
        }
        assert!(form(Some("TEXT/Event-Stream;charset=utf-8")) == Form::Events);
        assert!(form(None) == Form::Unsaid && form(Some("text/html")) == Form::Unsaid);
        assert!(sniffed(b"\xef\xbb\xbf\n{}") == Some(Form::Json) && sniffed(b": hi") == Some(Form::Events));
        assert!(sniffed(b"<html>").is_none());
    }

    #[test]
    fn answer_in_its_own_body_needs_no_id() {
        let is = |message: Value| {
            let Value::Object(members) = message else { panic!("{message}") };
            is_answer_to(&members, &json!(3))
        };
        assert!(
            is(json!({"id": 3, "result": {}})) && is(json!({"id": "3", "result": {}})) && is(json!({"result": {}}))
        );
        assert!(is(json!({"id": null, "error": {}})) && is(json!({"id": "server-error", "error": {"code": 1}})));
        assert!(!is(json!({"id": 4, "result": {}})) && !is(json!({"id": 4, "error": {"code": 1}})));
        assert!(!is(json!({"id": 3, "method": "ping"})) && !is(json!({"id": 3})));
    }
}
