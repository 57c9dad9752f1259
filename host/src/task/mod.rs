//! What a task is: its message, its states, its failures, and every decision about it.
//!
//! Pure values: no I/O, no async, no clock. Whoever calls brings the facts; what is decided here is carried out by
//! [`crate::worker`] and recorded by [`crate::db`].

pub mod claim;
pub mod content;
pub mod event;
pub mod failure;
pub mod identity;
pub mod instant;
mod json;
pub mod limits;
pub mod message;
pub mod options;
mod plugin_ref;
pub mod retry;
pub mod settle;
pub mod span;
pub mod state;
pub mod waiting;

/// The queue of a task if neither it nor its plugin names one.
pub const DEFAULT_QUEUE: &str = "default";

pub use claim::{Arrival, Decision, Row, Runnable, decide};
pub use event::Event;
pub use failure::{Failure, FailureKind};
pub use message::{Rejection, TaskMessage};
pub use options::Options;
pub use plugin_ref::PluginRef;
pub use retry::RetryPolicy;
pub use settle::{Ended, Settlement};
pub use state::{IllegalTransition, State, next};
pub use waiting::{WaitCode, Waiting};

/// A task's id: any UUID.
pub type TaskId = uuid::Uuid;
/// A host process: a random UUID per start, never a host name.
pub type HostId = uuid::Uuid;
/// Grows by one with every claim; the number that makes a stale writer lose.
pub type Fence = i64;
