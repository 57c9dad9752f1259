//! A task that wants to run here: what was received, on its way to be claimed.

use super::room::{Place, Slot};
use super::{Shared, execute};
use crate::broker::Delivery;
use crate::registry::{Resolved, Runner};
use crate::task::{Arrival, Failure, Runnable, TaskMessage, WaitCode};
use serde_json::json;
use std::sync::Arc;

/// A task that wants to be claimed.
pub struct Candidate {
    /// What is asked, and whether it can run here.
    pub arrival: Arrival,
    /// What would run it, and where.
    pub ready: Option<Ready>,
    /// The delivery it came in; `None`: it was parked.
    pub delivery: Option<Delivery>,
    /// The database said once that this host runs it already, and nothing here does.
    pub second_look: bool,
}

impl Candidate {
    /// It came in this delivery.
    pub fn with(self, delivery: Delivery) -> Candidate {
        Candidate { delivery: Some(delivery), ..self }
    }
}

/// A runner with the place that it may use.
pub type Ready = (Arc<dyn Runner>, Place);

/// Can it run here, now? With a place, or without one it is to be parked.
pub fn consider(shared: &Shared, message: Arc<TaskMessage>, queue: Arc<str>, slot: Slot) -> Candidate {
    let (runnable, ready) = match shared.parts.catalog.resolve(&message.plugin) {
        Resolved::Ready(runner) => match shared.room.place(slot, runner.name(), runner.concurrency()) {
            Some(place) => (here(&message, &*runner), Some((runner, place))),
            None => (
                not_here(WaitCode::NoSlot, json!({"plugin": runner.name(), "concurrency": runner.concurrency()})),
                None,
            ),
        },
        Resolved::Broken { cause } => (not_here(WaitCode::PluginBroken, json!({"cause": cause})), None),
        Resolved::Disabled => {
            (not_here(WaitCode::Paused, json!({"plugin": &*message.plugin.name, "disabled": true})), None)
        }
        Resolved::Unknown { known } => (not_here(WaitCode::NoPlugin, json!({"known": known})), None),
    };
    Candidate { arrival: Arrival { message, queue, runnable }, ready, delivery: None, second_look: false }
}

/// The broker gave up on it: whatever the row says that it waits for, it ends.
pub fn hopeless(message: Arc<TaskMessage>, queue: Arc<str>, failure: Failure) -> Candidate {
    let arrival = Arrival { message, queue, runnable: Runnable::Never { failure } };
    Candidate { arrival, ready: None, delivery: None, second_look: false }
}

fn here(message: &TaskMessage, runner: &dyn Runner) -> Runnable {
    Runnable::Here {
        version: runner.version().clone(),
        digest: runner.digest().clone(),
        max_attempts: message.max_attempts(Some(runner.retry().max_attempts)),
        allowed: execute::allowed(message, runner) + execute::SETTLED_WITHIN,
        lane: true, // as far as this one alone is concerned; see `claim`
    }
}

fn not_here(code: WaitCode, detail: serde_json::Value) -> Runnable {
    Runnable::NotHere { code, detail }
}
