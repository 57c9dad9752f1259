//! What differs between providers, behind one trait: how a question is written, how an answer and an error are read.

use super::prompt::{Past, Prompt};
use super::tokens::Counted;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

/// One provider's API. It has no I/O: a request's parts go out, a response's body comes in.
pub(super) trait Shape: Send + Sync {
    /// Marks what a call carries for this kind of provider; see [`super::wire`].
    fn tag(&self) -> &'static str;

    /// Whether ids that the host made are kept from the provider, which has none of its own.
    fn marks_made_ids(&self) -> bool {
        false
    }

    /// An example of a root, for errors.
    fn example(&self) -> &'static str;

    /// Where the question goes.
    fn endpoint(&self, root: &Url, model: &str) -> Url;

    /// Where its models are listed.
    fn models(&self, root: &Url) -> Url;

    /// A header that the list needs besides the key.
    fn list_header(&self) -> Option<(HeaderName, HeaderValue)> {
        None
    }

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

    /// Reason to reject a request: it asks for something that the provider's API does not know, and that changes the answer.
    fn cannot(&self, _prompt: &Prompt<'_>) -> Option<&'static str> {
        None
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
    pub counted: Counted,
    pub text: String,
    pub calls: Vec<Asked>,
    pub ending: Ending,
    /// How it ended, in the provider's words, and what there is besides an answer: for an error.
    pub notes: Vec<String>,
}

/// A tool call as it came.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Absent where the provider has none, and not always unique; the host makes one then.
    pub id: Option<String>,
    pub name: String,
    /// A text with JSON, or the JSON itself; `Null`: there are none.
    pub arguments: Value,
    /// Data that the provider wants back with the call.
    pub carried: Option<String>,
}

/// How an answer ended, as the provider says.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is all there.
    Whole,
    /// It does not say. Whole, unless it has as many tokens as were allowed.
    Unsaid,
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
    /// The operator's address, or the name for the model: no such path.
    Address,
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
        let words = words.into();
        let class = match status {
            401 | 403 => Class::Key,
            402 => Class::Quota,
            404 if names_model(&words) => Class::Model,
            404 | 405 => Class::Address,
            413 => Class::TooLong,
            429 => Class::Rate,
            // 409: somebody else has the lock, and 499: they gave up. Their own clients ask again.
            408 | 409 | 499 | 500.. => Class::Down,
            // Redirects come here as well, and are told apart where the address is known.
            _ => Class::Invalid,
        };
        Fault { class, words, after: None }
    }
}

/// A member that is a text and not empty.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value[member].as_str().filter(|text| !text.is_empty())
}

/// Whether an error's words are about a model rather than a path. A server's router knows of no models.
fn names_model(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["model", "deployment", "engine"].iter().any(|word| words.contains(word))
}

/// Has the first call carry the thoughts before it, which their provider wants back.
pub(super) fn carry(calls: &mut [Asked], thoughts: &[&Value]) {
    if let (Some(first), false) = (calls.first_mut(), thoughts.is_empty()) {
        // JSON that was read can be written.
        first.carried = serde_json::to_string(thoughts).ok();
    }
}

/// The thoughts that past calls carry. Those that a guest changed are left out; their provider judges what is missing.
pub(super) fn carried_by<'a>(calls: &'a [Past<'_>]) -> impl Iterator<Item = Value> + 'a {
    let texts = calls.iter().filter_map(|past| past.carried);
    texts.filter_map(|text| serde_json::from_str::<Vec<Value>>(text).ok()).flatten()
}

/// Whether a member `error` says that there is one. Servers write an empty one beside an answer.
pub(super) fn is_error(error: &Value) -> bool {
    match error {
        Value::Object(members) => members.values().any(|member| !member.is_null()),
        Value::String(words) => !words.trim().is_empty(),
        Value::Bool(is_error) => *is_error,
        _ => false,
    }
}

/// An id as it came: a text, or a number.
pub(super) fn id(value: &Value, member: &str) -> Option<String> {
    match &value[member] {
        Value::Number(number) => Some(number.to_string()),
        _ => text(value, member).filter(|id| !id.trim().is_empty()).map(str::to_owned),
    }
}

/// An HTTP status within a body, as a number or as its digits.
pub(super) fn status(value: &Value) -> Option<u16> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        _ => value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as u64))?,
    };
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
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

/// A root as an operator may write it, to what stands before the endpoint: without slashes at the end, and without the endpoint
/// itself, as it is copied from documentation.
pub(super) fn root(url: &Url, endpoint: &[&str]) -> Url {
    let mut segments: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    while segments.last().is_some_and(|last| last.is_empty()) {
        segments.pop();
    }
    if segments.ends_with(endpoint) {
        segments.truncate(segments.len() - endpoint.len());
    }
    let path = format!("/{}", segments.join("/"));
    let mut root = url.clone();
    root.set_path(&path);
    root
}
