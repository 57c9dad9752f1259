//! What runs in this process: from its claim to its recorded end.
//!
//! A redelivery of a task that is in flight is re-attached here: its receipt is added, and acknowledged with the others
//! once the end is recorded. Only the claim step adds flights and only the settle step removes them.

use crate::broker::Receipt;
use crate::task::settle::StopReason;
use crate::task::{Fence, TaskId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The map. Its lock is held for a few instructions at a time, never across an await.
#[derive(Default)]
pub struct Flights(Mutex<BTreeMap<TaskId, Flight>>);

struct Flight {
    fence: Fence,
    receipts: Vec<Receipt>,
    stop: CancellationToken,
    reason: Option<StopReason>,
}

impl Flights {
    /// Enter a claimed task. The token ends its guest.
    pub fn enter(&self, id: TaskId, fence: Fence, receipt: Option<Receipt>) -> CancellationToken {
        let stop = CancellationToken::new();
        let flight = Flight { fence, receipts: receipt.into_iter().collect(), stop: stop.clone(), reason: None };
        self.lock().insert(id, flight);
        stop
    }

    /// Re-attach a redelivery. Gives the receipt back if the task is not in flight.
    pub fn attach(&self, id: TaskId, receipt: Option<Receipt>) -> Result<(), Option<Receipt>> {
        match self.lock().get_mut(&id) {
            Some(flight) => {
                flight.receipts.extend(receipt);
                Ok(())
            }
            None => Err(receipt),
        }
    }

    /// Remove a task whose end is recorded (or was fenced), with everything that is to be acknowledged for it.
    pub fn leave(&self, id: TaskId, fence: Fence) -> Vec<Receipt> {
        let mut flights = self.lock();
        match flights.get(&id) {
            Some(flight) if flight.fence == fence => flights.remove(&id).map(|f| f.receipts).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// End a task's guest. Whether it is in flight.
    pub fn stop(&self, id: TaskId, reason: StopReason) -> bool {
        self.lock().get_mut(&id).map(|flight| end(flight, reason)).is_some()
    }

    /// End every guest. How many.
    pub fn stop_all(&self, reason: StopReason) -> usize {
        let mut flights = self.lock();
        flights.values_mut().for_each(|flight| end(flight, reason));
        flights.len()
    }

    /// Why a task's guest was stopped.
    pub fn reason(&self, id: TaskId) -> StopReason {
        self.lock().get(&id).and_then(|flight| flight.reason).unwrap_or(StopReason::Shutdown)
    }

    /// Tasks in flight.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Entries are whole at every instruction that could panic, so a poisoned lock is still a good map.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first reason stands: a task that was cancelled stays cancelled when the host shuts down as well.
fn end(flight: &mut Flight, reason: StopReason) {
    flight.reason.get_or_insert(reason);
    flight.stop.cancel();
}
