//! The wire form of a task, and what makes one unusable.
//!
//! The same shape serves AMQP and HTTP: `{id?, plugin, input, options?}`. Unknown and duplicate keys are errors, and a
//! refusal names the key, what was found and what is allowed. Input is kept byte for byte.

use super::limits::MessageLimits;
use super::{Options, PluginRef, TaskId, content, identity, json, retry};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A usable request for one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskMessage {
    /// The task's id.
    pub id: TaskId,
    /// The producer named it; otherwise one was made and a repeat cannot be recognised.
    pub id_given: bool,
    /// What is to run it.
    pub plugin: PluginRef,
    /// JSON text, as it came.
    pub input: Arc<str>,
    /// What the producer asked for.
    pub options: Options,
    /// Hash over plugin, input and options: tells a duplicate from a conflict.
    pub fingerprint: [u8; 32],
    /// Where the terminal task is published, if anywhere (AMQP `reply_to`).
    pub reply_to: Option<String>,
    /// Given back with the reply (AMQP `correlation_id`).
    pub correlation_id: Option<String>,
    /// The producer's W3C trace context.
    pub traceparent: Option<String>,
}

/// Why a message is unusable. `code` goes into the header `agentry-reason`, `detail` into `agentry-detail`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// The stable word.
    pub code: &'static str,
    /// What was wrong, where, and what is allowed: on one line, and at most [`Rejection::DETAIL_BYTES`] long.
    pub detail: String,
    /// The task's id, where one could be read: then there is a `failed(rejected)` task too.
    pub id: Option<TaskId>,
    /// The plugin it named, where one could be read; in the same way, at most [`Rejection::PLUGIN_BYTES`] long.
    pub plugin: Option<String>,
}

impl Rejection {
    /// The longest detail, in bytes.
    pub const DETAIL_BYTES: usize = 1_024;
    /// The longest name of a plugin that is repeated, in bytes: any that exists fits, with its requirement.
    pub const PLUGIN_BYTES: usize = 256;

    pub(super) fn new(code: &'static str, detail: impl AsRef<str>) -> Rejection {
        Rejection { code, detail: in_short(detail.as_ref(), Rejection::DETAIL_BYTES), id: None, plugin: None }
    }
}

/// A stranger's words, in a log, a header and a row. What is wrong with a message may be a key of it, which is as long as the
/// message and holds what steers a terminal: that becomes visible, and the end is cut.
fn in_short(text: &str, bytes: usize) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let before = short.len();
        if c.is_control() {
            short.extend(c.escape_unicode())
        } else {
            short.push(c)
        }
        if short.len() > bytes {
            short.truncate(before.min(short.floor_char_boundary(bytes - '…'.len_utf8())));
            short.push('…');
            break;
        }
    }
    short
}

/// A message as it came, before anybody looked into it.
#[derive(Clone, Debug, Default)]
pub struct Envelope<'a> {
    /// The body.
    pub body: &'a [u8],
    /// AMQP `content_type`; see [`content`].
    pub content_type: Option<&'a str>,
    /// AMQP `content_encoding`; the same.
    pub content_encoding: Option<&'a str>,
    /// Header `compression`, which kombu sets.
    pub compression: Option<&'a str>,
    /// AMQP `message_id`: a UUID, or a text that stands for one.
    pub message_id: Option<&'a str>,
    /// Header `agentry-plugin`: then the body is the input.
    pub plugin_header: Option<&'a str>,
    /// Header `agentry-options`, JSON.
    pub options_header: Option<&'a str>,
    /// A header of these that is not text: its name, and what it is.
    pub odd_header: Option<(&'static str, &'static str)>,
    /// AMQP `reply_to`.
    pub reply_to: Option<&'a str>,
    /// AMQP `correlation_id`.
    pub correlation_id: Option<&'a str>,
    /// Header `traceparent`.
    pub traceparent: Option<&'a str>,
}

impl Envelope<'_> {
    /// The id of the property `message_id`, if there is one.
    fn id(&self) -> Result<Option<TaskId>, String> {
        self.message_id.map_or(Ok(None), identity::of_message_id)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    id: Option<String>,
    plugin: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    options: Option<&'a RawValue>,
}

/// `null` is an input; only an absent key is none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The least that can be read of a body that is refused, so that its task can be found.
#[derive(Deserialize)]
struct Gist {
    #[serde(default)]
    id: Option<serde_json::Value>,
    #[serde(default)]
    plugin: Option<serde_json::Value>,
}

impl TaskMessage {
    /// Decode and validate. The refusal carries the id and plugin where they could be read.
    pub fn decode(envelope: &Envelope<'_>, limits: &MessageLimits) -> Result<TaskMessage, Rejection> {
        decode(envelope, limits).map_err(|mut rejection| {
            if envelope.body.len() <= limits.body_bytes {
                let gist: Option<Gist> = serde_json::from_slice(content::without_mark(envelope.body)).ok();
                let text = |v: Option<serde_json::Value>| v.and_then(|v| v.as_str().map(str::to_owned));
                let (id, plugin) = gist.map_or((None, None), |g| (text(g.id), text(g.plugin)));
                // Two different ids: neither can be trusted to be the task's.
                if rejection.code != "id_mismatch" {
                    rejection.id = match id {
                        Some(id) => identity::uuid(&id),
                        None => envelope.id().ok().flatten(),
                    };
                }
                rejection.plugin = plugin.or_else(|| envelope.plugin_header.map(str::to_owned));
            } else {
                rejection.id = envelope.id().ok().flatten();
                rejection.plugin = envelope.plugin_header.map(str::to_owned);
            }
            rejection.plugin = rejection.plugin.map(|name| in_short(&name, Rejection::PLUGIN_BYTES));
            rejection
        })
    }

    /// Put together from parts that were read elsewhere (HTTP), with the same checks.
    pub fn assemble(
        id: Option<TaskId>,
        plugin: &str,
        input: &str,
        options: Options,
        limits: &MessageLimits,
    ) -> Result<TaskMessage, Rejection> {
        let plugin: PluginRef = plugin.parse().map_err(|e| Rejection::new("bad_plugin", format!("plugin: {e}")))?;
        options.check(limits).map_err(|detail| Rejection::new("bad_options", detail))?;
        json::check(input).map_err(|detail| Rejection::new("bad_input", format!("input: {detail}")))?;
        let fingerprint = fingerprint(&plugin, input, &options);
        Ok(TaskMessage {
            id: id.unwrap_or_else(uuid::Uuid::now_v7),
            id_given: id.is_some(),
            plugin,
            input: input.into(),
            options,
            fingerprint,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
        })
    }

    /// The body that carries this task on the wire; [`TaskMessage::decode`] reads it back to an equal fingerprint.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Head<'a> {
            id: TaskId,
            plugin: &'a str,
            options: &'a Options,
        }
        let plugin = self.plugin.to_string();
        let head = Head { id: self.id, plugin: &plugin, options: &self.options };
        let mut body = Vec::with_capacity(self.input.len() + 192);
        // Serialising plain structs to memory has no way to fail.
        let _ = serde_json::to_writer(&mut body, &head);
        body.pop();
        // The input was checked when it came in, and is not read once more.
        body.extend_from_slice(br#","input":"#);
        body.extend_from_slice(self.input.as_bytes());
        body.push(b'}');
        body
    }

    /// Attempts this task has, unless its plugin says otherwise.
    pub fn max_attempts(&self, plugin_default: Option<u32>) -> u32 {
        self.options.max_attempts.or(plugin_default).unwrap_or(retry::DEFAULT_MAX_ATTEMPTS)
    }

    /// Rejects a time-out above the ceiling of its plugin.
    pub fn check_timeout(&self, ceiling: Option<std::time::Duration>) -> Result<(), Rejection> {
        let allowed = ceiling.map_or(u64::MAX, |ceiling| ceiling.as_secs());
        let Some(asked) = self.options.timeout_seconds.filter(|asked| u64::from(*asked) > allowed) else {
            return Ok(());
        };
        let (name, ceiling) = (&self.plugin.name, "limits.max.timeout_seconds of the operator's policy for");
        let detail = format!("options.timeout_seconds is {asked}; allowed are 1 to {allowed} ({ceiling} {name})");
        let id = self.id_given.then_some(self.id);
        Err(Rejection { id, plugin: Some(name.to_string()), ..Rejection::new("bad_options", detail) })
    }
}

fn decode(envelope: &Envelope<'_>, limits: &MessageLimits) -> Result<TaskMessage, Rejection> {
    if envelope.body.len() > limits.body_bytes {
        return Err(Rejection::new(
            "too_large",
            format!(
                "the body has {} bytes and limits.max.message_kib allows {} bytes",
                envelope.body.len(),
                limits.body_bytes
            ),
        ));
    }
    content::check(envelope.content_type, envelope.content_encoding)?;
    let text = content::text(envelope.body, envelope.compression)?;
    if let Some((name, kind)) = envelope.odd_header {
        let code = if name == "agentry-options" { "bad_options" } else { "bad_message" };
        return Err(Rejection::new(code, format!("the header {name} is {kind}; publish it as text")));
    }

    let (id, plugin, input, options) = match envelope.plugin_header.filter(|name| !name.is_empty()) {
        None => {
            if let Some(options) = envelope.options_header.filter(|text| !text.is_empty()) {
                return Err(Rejection::new(
                    "bad_options",
                    format!(
                        "the header agentry-options ({} bytes) goes with agentry-plugin, which is missing",
                        options.len()
                    ),
                ));
            }
            let body: Body<'_> = object(text).map_err(|(code, e)| Rejection::new(code, format!("the body: {e}")))?;
            let plugin =
                body.plugin.ok_or_else(|| Rejection::new("bad_message", "the body: missing field `plugin`"))?;
            let input = body.input.ok_or_else(|| Rejection::new("bad_message", "the body: missing field `input`"))?;
            let options = match body.options.map(RawValue::get).filter(|text| *text != "null") {
                None => Options::default(),
                Some(text) => {
                    object(text).map_err(|(code, e)| Rejection::new(code, format!("the body: options: {e}")))?
                }
            };
            (body.id, plugin, input.get(), options)
        }
        Some(plugin) => {
            let input: &RawValue = serde_json::from_str(text)
                .map_err(|e| Rejection::new("not_json", format!("the body, which is the input: {e}")))?;
            let options = match envelope.options_header.filter(|text| !text.is_empty()) {
                None => Options::default(),
                Some(text) => object(text)
                    .map_err(|(_, e)| Rejection::new("bad_options", format!("the header agentry-options: {e}")))?,
            };
            (None, plugin.to_owned(), input.get(), options)
        }
    };

    let property = envelope.id().map_err(|detail| Rejection::new("bad_id", detail))?;
    let id = match id {
        None => property,
        Some(text) => {
            let id = identity::uuid(&text).ok_or_else(|| {
                let remedy = "publish a UUID, or any text as the property message_id";
                Rejection::new("bad_id", format!("id is {text:?}, which is not a UUID; {remedy}"))
            })?;
            if property.is_some_and(|property| property != id) {
                let property = envelope.message_id.unwrap_or_default();
                return Err(Rejection::new(
                    "id_mismatch",
                    format!("id is {text:?} and message_id is {property:?}; give one, or the same"),
                ));
            }
            Some(id)
        }
    };

    let mut message = TaskMessage::assemble(id, &plugin, input, options, limits)?;
    message.reply_to = envelope.reply_to.filter(|r| !r.is_empty()).map(str::to_owned);
    message.correlation_id = envelope.correlation_id.map(str::to_owned);
    message.traceparent = envelope.traceparent.filter(|text| is_header(text)).map(str::to_owned);
    Ok(message)
}

/// Whether a text may be a header of HTTP, which trace contexts are. Another one is of no use, and the database may reject it.
fn is_header(text: &str) -> bool {
    text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// Read a JSON object. serde would take an array for a struct, field by field; a message is never one.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, (&'static str, String)> {
    match text.trim_start_matches([' ', '\n', '\r', '\t']).as_bytes().first() {
        Some(b'{') => serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => ("bad_message", e.to_string()),
            _ => ("not_json", e.to_string()),
        }),
        None => Err(("not_json", "it is empty".into())),
        Some(_) => match serde_json::from_str::<de::IgnoredAny>(text) {
            Ok(_) => Err(("bad_message", "expected an object".into())),
            Err(e) => Err(("not_json", e.to_string())),
        },
    }
}

/// Lengths go in before the parts, so that no two different messages hash alike.
fn fingerprint(plugin: &PluginRef, input: &str, options: &Options) -> [u8; 32] {
    let plugin = plugin.to_string();
    let options = serde_json::to_vec(options).unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [plugin.as_bytes(), input.as_bytes(), &options] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
