//! What differs between providers, behind one trait: how a question is written, how an answer and an error are read.

use super::prompt::Prompt;
use super::types::{TokenUsage, ToolCall};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

/// One provider's API. It has no I/O: a request's parts go out, a response's body comes in.
pub(super) trait Shape: Send + Sync {
    /// Where the question goes.
    fn endpoint(&self, root: &Url, model: &str) -> Url;

    /// The header that carries the key, and how the key stands in it.
    fn key_header(&self, key: &str) -> (&'static str, String);

    /// A header in addition, which is no secret; one that the operator sets holds instead.
    fn header(&self, _prompt: &Prompt<'_>) -> Option<(HeaderName, HeaderValue)> {
        None
    }

    /// The header in which the provider names the request.
    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }

    /// The question.
    fn body(&self, prompt: &Prompt<'_>) -> Value;

    /// The body of an answer with a status of success.
    fn read(&self, body: &Value) -> Reading;

    /// What the body of an answer with another status says. `Null`: it was no JSON.
    fn fault(&self, status: u16, body: &Value) -> Fault;
}

/// What a body says, before the host's own checks, which are the same for all providers.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The provider's name for the model that answered.
    pub model: Option<String>,
    /// The provider's name for the answer.
    pub id: Option<String>,
    pub usage: TokenUsage,
    pub text: String,
    pub calls: Vec<Asked>,
    pub ending: Ending,
}

/// A tool call as it came.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Absent where the provider has none; the host makes one.
    pub id: Option<String>,
    pub name: String,
    /// A text with JSON, or the JSON itself.
    pub arguments: Value,
    pub opaque: Option<String>,
}

/// How an answer ended, as the provider says.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is all there.
    Whole,
    /// The allowance of tokens ended it.
    Cut,
    /// Safety or policy.
    Refused(String),
    /// It is no answer: what is wrong with it.
    Broken(String),
    /// It is an error in the clothes of a success.
    Fault(Fault),
}

impl Default for Ending {
    fn default() -> Ending {
        Ending::Broken("it does not say how it ended".into())
    }
}

/// What a provider's error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The request is wrong.
    Invalid,
    /// The conversation does not fit.
    TooLong,
    /// Safety or policy.
    Refused,
    /// The operator's key.
    Key,
    /// The operator's money.
    Quota,
    /// The operator's name for the model.
    Model,
    /// Too much at once.
    Rate,
    /// Anything of the provider's own.
    Down,
}

/// An error as a provider tells it.
#[derive(Debug)]
pub(super) struct Fault {
    pub class: Class,
    /// The provider's words; empty if it had none.
    pub words: String,
    /// When to come again, if the body says so.
    pub after: Option<Duration>,
}

impl Fault {
    /// With the meaning that the status alone has (RFC 9110, and 529 as Anthropic uses it).
    pub fn of_status(status: u16, words: impl Into<String>) -> Fault {
        let class = match status {
            401 | 403 => Class::Key,
            402 => Class::Quota,
            404 => Class::Model,
            413 => Class::TooLong,
            429 => Class::Rate,
            // 409: somebody else has the lock, and 499: they gave up. Their own clients ask again.
            408 | 409 | 499 | 500.. => Class::Down,
            // Redirects come here as well, and are told apart where the address is known.
            _ => Class::Invalid,
        };
        Fault { class, words: words.into(), after: None }
    }
}

/// A member that is a text and not empty.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value[member].as_str().filter(|text| !text.is_empty())
}

/// A count of tokens; 0 where there is none.
pub(super) fn count(value: &Value, member: &str) -> u32 {
    u32::try_from(value[member].as_u64().unwrap_or(0)).unwrap_or(u32::MAX)
}

/// What a call carries for this provider, without the tag that says whose it is. What another provider gave is left out: the
/// conversation has moved, and it would mean nothing here.
pub(super) fn opaque<'a>(call: &'a ToolCall, tag: &str) -> Option<&'a str> {
    call.opaque.as_deref()?.strip_prefix(tag)
}

/// A number as a person wrote it: 0.7 as `f32` is not 0.7 as `f64`.
pub(super) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Puts a member in if there is something to put.
pub(super) fn put(object: &mut Map<String, Value>, member: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(member.to_owned(), value.into());
    }
}

/// An address below the root; each segment is percent-encoded, and a query of the root's stays.
pub(super) fn below(root: &Url, segments: &[&str]) -> Url {
    let mut url = root.clone();
    // Only a URL without a host has no segments, and the settings refuse those.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
