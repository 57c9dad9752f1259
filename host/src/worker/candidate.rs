//! A task that wants to run here: what was received, on its way to be claimed.

use super::room::{Place, Slot};
use super::unclaimed::Unclaimed;
use super::{Shared, execute, stops};
use crate::broker::Delivery;
use crate::registry::{Reservation, Resolved, Runner, Turn};
use crate::task::{Arrival, Failure, Fence, Runnable, TaskMessage, WaitCode};
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
    /// It runs already, or ran, without a claim: told what the claim comes to.
    pub unclaimed: Option<Unclaimed>,
    /// The database said once that this host runs it already, and nothing here does.
    pub second_look: bool,
}

impl Candidate {
    /// Not delivered, and not looked at before.
    pub fn of(arrival: Arrival, ready: Option<Ready>) -> Candidate {
        Candidate { arrival, ready, delivery: None, unclaimed: None, second_look: false }
    }

    /// It came in this delivery.
    pub fn with(self, delivery: Delivery) -> Candidate {
        Candidate { delivery: Some(delivery), ..self }
    }
}

/// What runs a task, and what it holds until its guest is gone.
pub struct Ready {
    /// What runs it.
    pub runner: Arc<dyn Runner>,
    /// Its slots.
    pub place: Place,
    /// Its memory.
    pub memory: Arc<Reservation>,
    /// Its turn, which has not begun.
    pub turn: Arc<Turn>,
}

/// Can it run here? With everything that it needs, for which it may have to wait in line; or it is to be parked.
pub async fn consider(
    shared: &Shared,
    message: Arc<TaskMessage>,
    queue: Arc<str>,
    relayed: Option<Fence>,
    slot: Slot,
) -> Candidate {
    let (runnable, ready) = match find(shared, &message, slot) {
        Err(not_here) => (not_here, None),
        Ok((runner, place)) => {
            let (owed, budget) = (shared.room.owed(), shared.room.memory());
            let bytes = owed.reserves(message.id, &*runner);
            let memory = Arc::new(match owed.is_owed(message.id, &*runner) {
                true => budget.reserve_whole(bytes).await,
                false => budget.reserve(bytes).await,
            });
            let turn = Arc::new(shared.room.turns().admit().await);
            (here(&message, &*runner), Some(Ready { runner, place, memory, turn }))
        }
    };
    Candidate::of(Arrival { message, queue, runnable, relayed }, ready)
}

/// What runs it here, and where; or why not.
fn find(shared: &Shared, message: &TaskMessage, slot: Slot) -> Result<(Arc<dyn Runner>, Place), Runnable> {
    let resolved = shared.parts.catalog.resolve(&message.plugin);
    let version = match &resolved {
        Resolved::Ready(runner) => Some(runner.version().clone()),
        _ => None,
    };
    if let Some(brake) = shared.disabled(&message.plugin, version.as_deref()) {
        return Err(stops::of_disabled(&message.plugin, &brake));
    }
    Err(match resolved {
        Resolved::Ready(runner) => match shared.room.place(slot, runner.name(), runner.concurrency()) {
            Some(place) => return Ok((runner, place)),
            None => not_here(WaitCode::NoSlot, json!({"plugin": runner.name(), "concurrency": runner.concurrency()})),
        },
        Resolved::Broken { cause } => not_here(WaitCode::PluginBroken, json!({"cause": cause})),
        Resolved::Disabled => not_here(WaitCode::Paused, json!({"plugin": &*message.plugin.name, "disabled": true})),
        Resolved::Unknown { known } => not_here(WaitCode::NoPlugin, json!({"known": known})),
    })
}

/// The broker gave up on it: whatever the row says that it waits for, it ends.
pub fn hopeless(message: Arc<TaskMessage>, queue: Arc<str>, failure: Failure) -> Candidate {
    Candidate::of(Arrival { message, queue, runnable: Runnable::Never { failure }, relayed: None }, None)
}

fn here(message: &TaskMessage, runner: &dyn Runner) -> Runnable {
    Runnable::Here {
        version: runner.version().clone(),
        digest: runner.digest().clone(),
        max_attempts: message.max_attempts(Some(runner.retry().max_attempts)),
        allowed: execute::BEGUN_WITHIN + execute::allowed(message, runner) + execute::SETTLED_WITHIN,
        lane: true, // as far as this one alone is concerned; see `claim`
    }
}

/// It is to be parked for this.
pub fn not_here(code: WaitCode, detail: serde_json::Value) -> Runnable {
    Runnable::NotHere { code, detail }
}
