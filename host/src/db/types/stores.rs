//! What plugins keep and spend.

use crate::task::{Fence, TaskId};
use chrono::{DateTime, NaiveDate, Utc};
use std::sync::Arc;
use uuid::Uuid;

/// Who writes into a store: an attempt, whose writes count only while its task is `running` under its fence; or a person by
/// hand.
pub type Writer = Option<(TaskId, Fence)>;

/// One bucket, or one memory, of one plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub plugin: Arc<str>,
    /// Which of its own.
    pub name: Arc<str>,
}

/// How much a plugin may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of a key.
    pub key_bytes: u64,
    /// Bytes of a value.
    pub value_bytes: u64,
    /// Keys in all buckets of a plugin.
    pub keys: u64,
    /// Bytes of all its keys and values.
    pub bytes: u64,
    /// Bytes of a text to be remembered, and of a query.
    pub text_bytes: u64,
    /// Bytes of its metadata.
    pub metadata_bytes: u64,
    /// Entries in all memories of a plugin.
    pub memories: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        StoreLimits {
            key_bytes: 512,
            value_bytes: 256 * 1_024,
            keys: 10_000,
            bytes: 64 * 1_024 * 1_024,
            text_bytes: 16 * 1_024,
            metadata_bytes: 4 * 1_024,
            memories: 10_000,
        }
    }
}

/// What of a [`StoreLimits`] a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLimit {
    /// [`StoreLimits::key_bytes`].
    KeyBytes,
    /// [`StoreLimits::value_bytes`].
    ValueBytes,
    /// [`StoreLimits::keys`].
    Keys,
    /// [`StoreLimits::bytes`].
    Bytes,
    /// [`StoreLimits::text_bytes`].
    TextBytes,
    /// [`StoreLimits::metadata_bytes`].
    MetadataBytes,
    /// [`StoreLimits::memories`].
    Memories,
}

/// Why nothing was written. The database itself is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRefusal {
    /// The attempt is no longer the task's own.
    Fenced,
    /// A limit would be passed.
    Limit {
        /// Which one.
        limit: StoreLimit,
        /// How much it would be.
        wanted: u64,
        /// How much may be.
        allowed: u64,
    },
    /// A key or a text holds a NUL character, which the database cannot store.
    Nul,
    /// What is to be added to is no decimal number below 2^64.
    NotANumber,
    /// The sum would be 2^64 or more.
    Overflow,
}

/// What became of a write.
pub type StoreAnswer<T> = Result<T, StoreRefusal>;

/// A key of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Grows; keys are listed in its order. A value that is set again keeps it.
    pub id: i64,
    /// The key.
    pub key: String,
}

/// Something remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRow {
    /// Names it.
    pub id: Uuid,
    /// What was remembered.
    pub text: String,
    /// A JSON object, byte for byte as it came.
    pub metadata: String,
    /// How well it fits the query: more is better; 0 without a query.
    pub score: f64,
    /// When it was first remembered.
    pub at: DateTime<Utc>,
}

/// What is to be spent of one allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Of what: a stable word.
    pub kind: &'static str,
    /// How much.
    pub amount: u64,
    /// How much a task may spend over all its attempts; `None`: it is not counted.
    pub per_task: Option<u64>,
    /// How much a plugin may spend in a day; `None`: it is not counted.
    pub per_day: Option<u64>,
}

/// Over what an allowance is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpendScope {
    /// A task, over all its attempts.
    Task,
    /// A plugin, over a day in UTC.
    Day,
}

/// What became of the wish to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpendAnswer {
    /// All of it is counted, on this day; `None`: nothing is counted by the day.
    Spent(Option<NaiveDate>),
    /// Nothing is: this allowance has not as much left.
    Exhausted {
        /// Of what.
        kind: &'static str,
        /// Over what.
        scope: SpendScope,
        /// How much is used.
        used: u64,
        /// How much may be.
        allowed: u64,
        /// Amount that interrupted runs of the task used in addition, and that was returned to it.
        refunded: u64,
    },
    /// Rejected: a later claim of the task has spent since.
    Fenced,
}
