//! What the relay takes out of the outbox.

use super::{BATCH_BYTES, Unread};
use crate::task::{Fence, TaskId, TaskMessage};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// Which outbox rows to take.
#[derive(Clone, Debug)]
pub struct OutboxTake {
    /// Rows at most.
    pub limit: u32,
    /// Bytes of payload at most; one row is taken in any case.
    pub bytes: u64,
    /// How long they are held.
    pub ttl: Duration,
    /// Logical queues for which the broker accepts no messages now, and why. Their rows are not read: they are due again
    /// after `rest`.
    pub aside: Vec<(String, OutboxReason)>,
    /// See `aside`.
    pub rest: Duration,
    /// Rows that were due before this time may be passed over; `None`: none are. Without a bound a search passes over what the index keeps of
    /// every row that was published since the oldest snapshot of the database.
    pub from: Option<DateTime<Utc>>,
}

impl OutboxTake {
    /// Rows of all queues, at most [`BATCH_BYTES`].
    pub fn new(limit: u32, ttl: Duration) -> OutboxTake {
        OutboxTake { limit, bytes: BATCH_BYTES, ttl, aside: Vec::new(), rest: Duration::ZERO, from: None }
    }
}

/// Outbox rows held under a token.
#[derive(Clone, Debug)]
pub struct OutboxBatch {
    /// The token.
    pub token: uuid::Uuid,
    /// What is to be published.
    pub rows: Vec<OutboxRow>,
    /// Rows that are held as well, and that this build cannot read.
    pub unread: Vec<Unread>,
    /// Rows that were set aside.
    pub aside: u32,
    /// A limit was reached: more rows may be due.
    pub more: bool,
    /// Time at which the first of the found rows was due. No row that could be taken was due before.
    pub first_due: Option<DateTime<Utc>>,
}

/// One message to be published.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// The last claim's number; 0: it was never claimed.
    pub fence: Fence,
    /// What is asked; `encode` gives the body.
    pub message: TaskMessage,
    /// Times it was deferred before.
    pub deferred: u32,
}

/// Why an outbox row could not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxReason {
    /// The broker is away.
    NotPublished,
    /// The broker has no queue for it.
    Unroutable,
}

impl OutboxReason {
    /// The stable text form, as `waiting_for` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            OutboxReason::NotPublished => "not_published",
            OutboxReason::Unroutable => "unroutable",
        }
    }
}
