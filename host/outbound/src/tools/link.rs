//! What a session knows of its connection, whatever carries it: whether it ended and why, and how often its tools changed.

use crate::secret::Redactor;
use rmcp::RoleClient;
use rmcp::model::{JsonRpcMessage, ServerNotification};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio_util::sync::CancellationToken;

/// One connection's end and news.
pub(super) struct Link {
    redactor: Redactor,
    ended: CancellationToken,
    reason: OnceLock<String>,
    explanation: Mutex<String>,
    changes: AtomicU64,
    /// Requests of the server that it has no answer to yet.
    asked: AtomicUsize,
    /// It sent what is no message.
    garbled: AtomicBool,
}

/// How many requests a server may have under way; a client without capabilities has nothing to answer but refusals and pings.
const ASKED: usize = 64;

impl Link {
    /// A connection that begins.
    pub(super) fn new(redactor: Redactor) -> Link {
        Link {
            redactor,
            ended: CancellationToken::new(),
            reason: OnceLock::new(),
            explanation: Mutex::default(),
            changes: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            garbled: AtomicBool::new(false),
        }
    }

    /// It is over; the first reason counts.
    pub(super) fn end(&self, reason: &str) {
        let _ = self.reason.set(self.redactor.reason(reason));
        self.ended.cancel();
    }

    /// Waits until it is over.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether it is over.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Why it is over.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// What the operator should know of the last trouble, and a guest need not.
    pub(super) fn explain(&self, words: &str) {
        *self.explanation.lock().unwrap_or_else(PoisonError::into_inner) = self.redactor.reason(words);
    }

    /// The last explanation; empty if there is none.
    pub(super) fn explanation(&self) -> String {
        self.explanation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the server said that its tools changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Its server's credentials.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Whether anybody here has use for a message. Of notifications, only changed tools are news: others are dropped before
    /// rmcp logs each of them.
    pub(super) fn welcomes(&self, message: &RxJsonRpcMessage<RoleClient>) -> bool {
        match message {
            JsonRpcMessage::Notification(notification) => {
                let news = matches!(notification.notification, ServerNotification::ToolListChangedNotification(_));
                if news {
                    self.changes.fetch_add(1, Ordering::AcqRel);
                }
                news
            }
            JsonRpcMessage::Request(_) => {
                let many = self.asked.fetch_add(1, Ordering::AcqRel) >= ASKED;
                if many {
                    self.end("it asks without end and hears no answer");
                }
                !many
            }
            _ => true,
        }
    }

    /// A message of ours was sent; it may have been an answer.
    pub(super) fn sent(&self, answer: bool) {
        if answer {
            self.asked.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// It sent what is no message. Said once: servers that print to their output by mistake do so all the time.
    fn garbled(&self, bytes: usize) {
        if !self.garbled.swap(true, Ordering::AcqRel) {
            self.explain("it sent what is no message of the protocol");
            tracing::warn!(
                bytes,
                "a tool server sent what is no message of the protocol; more of it is passed over in silence"
            );
        }
    }
}

/// Whether a message answers one of the server's.
pub(super) fn is_answer(message: &TxJsonRpcMessage<RoleClient>) -> bool {
    matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_))
}

/// A message from its text, without credentials; nothing if it is none of the protocol, or nobody has use for it. What is no
/// message is not answered: to answer garbage may call for more.
pub(super) fn admit(link: &Link, text: &[u8]) -> Option<RxJsonRpcMessage<RoleClient>> {
    if text.trim_ascii().is_empty() {
        return None;
    }
    let message = if link.redactor.is_idle() {
        serde_json::from_slice(text)
    } else {
        serde_json::from_slice::<Value>(text).and_then(|mut value| {
            redact(&link.redactor, &mut value);
            serde_json::from_value(value)
        })
    };
    match message {
        Ok(message) => link.welcomes(&message).then_some(message),
        Err(_) => {
            link.garbled(text.len());
            None
        }
    }
}

/// Takes credentials out of a message's content; what makes it a message stays.
pub(super) fn redact(redactor: &Redactor, message: &mut Value) {
    for part in ["params", "result", "error"] {
        if let Some(part) = message.get_mut(part) {
            redactor.json(part);
        }
    }
}
