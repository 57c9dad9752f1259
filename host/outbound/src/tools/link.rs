//! What a session knows of its connection, whatever carries it: whether it ended and why, and how often its tools changed.

use super::words::{Lines, bounded, printable};
use crate::secret::Redactor;
use rmcp::RoleClient;
use rmcp::model::{ClientNotification, ClientRequest, JsonRpcMessage, ServerNotification};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use tokio_util::sync::CancellationToken;

/// One connection's end and news.
pub(super) struct Link {
    /// The operator's name of the server.
    server: String,
    redactor: Redactor,
    ended: CancellationToken,
    reason: OnceLock<String>,
    explanation: Mutex<String>,
    changes: AtomicU64,
    /// Requests of the server that it has no answer to yet.
    asked: AtomicUsize,
    /// It sent what is no message.
    garbled: AtomicBool,
    /// Requests of this host that have no answer yet, by [`key`].
    requests: Mutex<BTreeMap<String, (Value, Asked)>>,
    /// Warnings of tools that were logged.
    warned: Mutex<BTreeSet<String>>,
    /// Bytes of entries of a list that were left out.
    left_out: AtomicUsize,
    /// The session has no handshake: each request says its revision (2026-07-28).
    stateless: AtomicBool,
}

/// Kinds of requests of this host, which have different results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `initialize`.
    Initialize,
    /// `tools/list`.
    Tools,
    /// `tools/call`.
    Call,
    /// Another one.
    Other,
}

/// How many requests a server may have under way; a client without capabilities has nothing to answer but refusals and pings.
const ASKED: usize = 64;

/// How many different warnings of tools are logged for a connection.
const WARNINGS: usize = 20;

impl Link {
    /// A connection that begins.
    pub(super) fn new(server: &str, redactor: Redactor) -> Link {
        Link {
            server: server.to_owned(),
            redactor,
            ended: CancellationToken::new(),
            reason: OnceLock::new(),
            explanation: Mutex::default(),
            changes: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            garbled: AtomicBool::new(false),
            requests: Mutex::default(),
            warned: Mutex::default(),
            left_out: AtomicUsize::new(0),
            stateless: AtomicBool::new(false),
        }
    }

    /// Marks the session as one without a handshake.
    pub(super) fn set_stateless(&self) {
        self.stateless.store(true, Ordering::Release);
    }

    /// Whether the session has no handshake.
    pub(super) fn is_stateless(&self) -> bool {
        self.stateless.load(Ordering::Acquire)
    }

    /// Remembers a request that is about to be sent, until its answer or its cancellation.
    pub(super) fn sends(&self, message: &TxJsonRpcMessage<RoleClient>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            JsonRpcMessage::Request(request) => {
                let id = request.id.clone().into_json_value();
                if let Some(key) = key(&id) {
                    requests.insert(key, (id, Asked::of(&request.request)));
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification {
                    let id = cancelled.params.request_id.clone().map(|id| id.into_json_value());
                    id.and_then(|id| key(&id)).and_then(|key| requests.remove(&key));
                }
            }
            _ => {}
        }
    }

    /// The request that an answer is to: the one with its id, or the only one if an error has no id.
    pub(super) fn answered(&self, id: Option<&Value>, is_error: bool) -> Option<(Value, Asked)> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match id.and_then(key) {
            Some(key) => requests.remove(&key),
            None if is_error && requests.len() == 1 => requests.pop_first().map(|(_, request)| request),
            None => None,
        }
    }

    /// Whether a request has no answer yet.
    pub(super) fn awaits(&self, id: &Value) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        key(id).is_some_and(|key| requests.contains_key(&key))
    }

    /// Counts bytes of a list that are not used.
    pub(super) fn leaves_out(&self, bytes: usize) {
        self.left_out.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The bytes that were counted since it was last asked.
    pub(super) fn take_left_out(&self) -> usize {
        self.left_out.swap(0, Ordering::AcqRel)
    }

    /// Logs that a tool is left out, or a part of it: once, also if the tools are listed again, and so many alone.
    pub(super) fn warn_of_tool(&self, tool: &str, reason: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() > WARNINGS {
            return;
        }
        let tool = bounded(&printable(&self.redactor.text(tool), Lines::One), 128);
        let reason = self.redactor.reason(reason);
        if !warned.insert(format!("{tool}: {reason}")) {
            return;
        }
        if warned.len() > WARNINGS {
            return tracing::warn!(
                server = %self.server,
                "more than {WARNINGS} tools of the list are not used as they were sent; further ones are not shown"
            );
        }
        tracing::warn!(server = %self.server, %tool, %reason, "a tool of the list is not used as it was sent");
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

    /// Reports what is no message, once: servers that print to their output by mistake do so all the time.
    pub(super) fn garbled(&self, bytes: usize) {
        if !self.garbled.swap(true, Ordering::AcqRel) {
            self.explain("it sent what is no message of the protocol");
            tracing::warn!(
                server = %self.server, bytes,
                "a tool server sent what is no message of the protocol; more of it is passed over in silence"
            );
        }
    }
}

impl Asked {
    fn of(request: &ClientRequest) -> Asked {
        match request {
            ClientRequest::InitializeRequest(_) => Asked::Initialize,
            ClientRequest::ListToolsRequest(_) => Asked::Tools,
            ClientRequest::CallToolRequest(_) => Asked::Call,
            _ => Asked::Other,
        }
    }

    /// The id and the kind of a message that is a request.
    pub(super) fn in_message(message: &TxJsonRpcMessage<RoleClient>) -> Option<(Value, Asked)> {
        match message {
            JsonRpcMessage::Request(request) => {
                Some((request.id.clone().into_json_value(), Asked::of(&request.request)))
            }
            _ => None,
        }
    }
}

/// An id as text: some servers return a number as a string.
pub(super) fn key(id: &Value) -> Option<String> {
    match id {
        Value::Number(number) => Some(number.as_i64().map_or_else(|| number.to_string(), |number| number.to_string())),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether a message answers one of the server's.
pub(super) fn is_answer(message: &TxJsonRpcMessage<RoleClient>) -> bool {
    matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_))
}

/// Takes credentials out of a message's content; what makes it a message stays.
pub(super) fn redact(redactor: &Redactor, message: &mut Value) {
    for part in ["params", "result", "error"] {
        if let Some(part) = message.get_mut(part) {
            redactor.json(part);
        }
    }
}
