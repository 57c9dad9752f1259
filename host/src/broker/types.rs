//! What a broker hands over and takes.

pub use crate::task::claim::FENCE;
use crate::task::{Fence, TaskMessage};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why a broker operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It may work later.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// It cannot mend itself: credentials, a virtual host that is missing, a queue with other arguments.
    #[error("{0}")]
    Refused(String),
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Acknowledged but returned: no queue is bound for it.
    #[error("unroutable: no queue is bound for {0}")]
    Unroutable(String),
    /// Not confirmed: it may or may not have arrived.
    #[error("not confirmed: {0}")]
    Unconfirmed(String),
}

/// Which queue of a logical queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `prefix.q`: tasks.
    Tasks(Arc<str>),
    /// `prefix.q.returned.v2`: messages that the broker returned.
    Returned(Arc<str>),
    /// `prefix.q.dead`: unusable messages. Not consumed by the daemon; for facts and tests.
    Dead(Arc<str>),
}

impl Source {
    /// The logical queue.
    pub fn queue(&self) -> &Arc<str> {
        match self {
            Source::Tasks(q) | Source::Returned(q) | Source::Dead(q) => q,
        }
    }
}

/// A message's body and properties, as AMQP 0-9-1 has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The body.
    pub body: Bytes,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `content_encoding`.
    pub content_encoding: Option<String>,
    /// `message_id`.
    pub message_id: Option<String>,
    /// `correlation_id`.
    pub correlation_id: Option<String>,
    /// `reply_to`.
    pub reply_to: Option<String>,
    /// Every other property that was set (`priority`, `expiration`, `timestamp`, `type`, `user_id`, `app_id`, …) under
    /// its AMQP name. `user_id` is never published: RabbitMQ closes the channel if it is not the connection's own.
    pub other: Map<String, Value>,
    /// Headers; AMQP's richer types become the nearest JSON.
    pub headers: Map<String, Value>,
}

impl Message {
    /// The same, published by a relay: its task has a row with this fence.
    #[must_use]
    pub fn relayed(mut self, fence: Fence) -> Message {
        self.headers.insert(FENCE.into(), Value::String(fence.to_string()));
        self
    }

    /// The message whose properties and headers a dead letter's row keeps: the inverse of [`Message::properties`].
    pub fn with_properties(body: impl Into<Bytes>, properties: Value) -> Message {
        let mut other = match properties {
            Value::Object(all) => all,
            _ => Map::new(),
        };
        let headers = match other.remove("headers") {
            Some(Value::Object(headers)) => headers,
            _ => Map::new(),
        };
        let mut text = |name: &str| match other.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        Message {
            body: body.into(),
            content_type: text("content_type"),
            content_encoding: text("content_encoding"),
            message_id: text("message_id"),
            correlation_id: text("correlation_id"),
            reply_to: text("reply_to"),
            other,
            headers,
        }
    }

    /// Properties and headers for a dead letter's row.
    pub fn properties(&self) -> Value {
        let mut all = self.other.clone();
        let named = [
            ("content_type", &self.content_type),
            ("content_encoding", &self.content_encoding),
            ("message_id", &self.message_id),
            ("correlation_id", &self.correlation_id),
            ("reply_to", &self.reply_to),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                all.insert(name.into(), Value::String(value.clone()));
            }
        }
        if !self.headers.is_empty() {
            all.insert("headers".into(), Value::Object(self.headers.clone()));
        }
        Value::Object(all)
    }
}

/// A task as any producer would publish it.
impl From<&TaskMessage> for Message {
    fn from(task: &TaskMessage) -> Message {
        let mut message = Message {
            body: task.encode().into(),
            content_type: Some("application/json".into()),
            message_id: Some(task.id.to_string()),
            correlation_id: task.correlation_id.clone(),
            reply_to: task.reply_to.clone(),
            ..Message::default()
        };
        if let Some(traceparent) = &task.traceparent {
            message.headers.insert("traceparent".into(), Value::String(traceparent.clone()));
        }
        message
    }
}

/// One hand-over by the broker.
#[derive(Debug)]
pub struct Delivery {
    /// Where it came from.
    pub source: Source,
    /// What it is.
    pub message: Message,
    /// The broker may have delivered it before. A hint only.
    pub redelivered: bool,
    /// What acknowledges it.
    pub receipt: Receipt,
    /// When it arrived in this process.
    pub arrived: Instant,
}

/// The right to acknowledge one delivery, on the channel incarnation it came from. Dropped without use, the delivery
/// stays unacknowledged and comes again when its channel ends.
#[derive(Debug)]
pub struct Receipt {
    /// Which incarnation of which subscription.
    pub(crate) channel: u64,
    /// The delivery tag there.
    pub(crate) tag: u64,
    /// Goes when the receipt goes: how a broker knows that nobody will ever use it.
    pub(crate) alive: Arc<()>,
}

impl Receipt {
    pub(crate) fn new(channel: u64, tag: u64) -> Self {
        Receipt { channel, tag, alive: Arc::new(()) }
    }
}

/// What became of acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Sent on their channel, or about to be: a broker may hold some for a moment, to send them together with others. If the
    /// channel ends before that, the broker delivers those again.
    pub sent: usize,
    /// Their channel is gone: the broker delivers them again.
    pub stale: usize,
}

/// Whether a subscription consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    #[default]
    Go,
    /// The consumer is cancelled at the broker; what is buffered stays where it is, unacknowledged, and is handed over when it
    /// goes on. Each return counts against the delivery limit of a quorum queue, so an outage is waited out like this.
    Hold,
    /// The consumer is cancelled at the broker, and what is buffered goes back, for others.
    GiveBack,
}

/// A running consumer. Dropping it cancels the consumer; what was delivered and not acknowledged may still be
/// acknowledged until [`Subscription::end`] or the broker is closed.
#[derive(Debug)]
pub struct Subscription {
    /// Deliveries, in order. `None`: the broker was closed.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// Whether the consume is confirmed by the broker on a live channel (`Some(since)`).
    pub confirmed: watch::Receiver<Option<DateTime<Utc>>>,
    /// Whether it consumes. A few deliveries may already stand in `deliveries`, out of the broker's reach: whatever this says,
    /// they stay there for the reader.
    pub flow: watch::Sender<Flow>,
    /// Cancelled by [`Subscription::end`].
    pub(crate) end: CancellationToken,
}

impl Subscription {
    /// End it: what is not acknowledged by now is delivered again, here or elsewhere, and its receipts are stale. Answers
    /// when the broker has been told.
    pub async fn end(mut self) {
        self.end.cancel();
        // Drained, not closed: a closed receiver would be a dropped subscription, which may still acknowledge.
        while self.deliveries.recv().await.is_some() {}
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a logical queue, through the exchange `prefix`.
    Tasks(String),
    /// To its queue of returned messages, through `prefix.dead`.
    Returned(String),
    /// To its dead-letter queue, through `prefix.dead`.
    Dead(String),
    /// To any queue by name, through the default exchange (replies).
    Queue(String),
}

/// Header that says why a message is a dead letter, in a stable word.
const REASON: &str = "agentry-reason";
/// Header that says why, in words.
const DETAIL: &str = "agentry-detail";

/// A message as its dead-letter queue gets it.
pub fn buried(mut message: Message, reason: String, detail: String) -> Message {
    message.headers.insert(REASON.into(), Value::String(reason));
    message.headers.insert(DETAIL.into(), Value::String(detail));
    message
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Where.
    pub target: Target,
    /// What.
    pub message: Message,
}

/// What the broker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// Messages that wait for a consumer (for the embedded queue: not handed over).
    pub ready: u32,
    /// Live consumers.
    pub consumers: u32,
}

/// Whether the broker is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Health {
    /// Connected since.
    Up(DateTime<Utc>),
    /// Not connected, since when and why; a person reads it, so it holds no secret.
    Down(DateTime<Utc>, String),
}

impl Health {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        matches!(self, Health::Up(_))
    }
}
