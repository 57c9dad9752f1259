//! What runs in this process: from its claim to its recorded end.
//!
//! A redelivery of a task that is in flight is re-attached here: its receipt is added, and acknowledged with the others
//! once the end is recorded. Only the claim step adds flights and only the settle step removes them.

use crate::broker::Receipt;
use crate::task::settle::StopReason;
use crate::task::{Fence, TaskId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The map. Its lock is held for a few instructions at a time, never across an await.
#[derive(Default)]
pub struct Flights(Mutex<BTreeMap<TaskId, Flight>>);

struct Flight {
    fence: Fence,
    receipts: Vec<Receipt>,
    plugin: Option<Arc<str>>,
    stop: CancellationToken,
    reason: Option<StopReason>,
}

/// What is left of a flight that is over.
#[derive(Default)]
pub struct Landed {
    /// What is to be acknowledged.
    pub receipts: Vec<Receipt>,
    /// Whose guest ran, if one did.
    pub plugin: Option<Arc<str>>,
}

impl Flights {
    /// Enter a claimed task, and the name of what runs it. The token ends its guest.
    ///
    /// Its last flight from here may not have left yet: the answer to its settlement was lost, and the next attempt comes before
    /// it is asked again; or it was taken over elsewhere, failed there, and is back. Its guest is not needed any more, and its
    /// receipts are acknowledged with this one's: dropped, they would hold their places in the prefetch for as long as the
    /// channel lives.
    pub fn enter(
        &self,
        id: TaskId,
        fence: Fence,
        receipt: Option<Receipt>,
        plugin: Option<Arc<str>>,
    ) -> CancellationToken {
        let stop = CancellationToken::new();
        let receipts = receipt.into_iter().collect();
        let mut flight = Flight { fence, receipts, plugin, stop: stop.clone(), reason: None };
        let mut flights = self.lock();
        if let Some(last) = flights.remove(&id) {
            last.stop.cancel();
            flight.receipts.extend(last.receipts);
        }
        flights.insert(id, flight);
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

    /// Remove a task whose end is recorded (or was fenced). Nothing is left if it is not in flight under this fence.
    pub fn leave(&self, id: TaskId, fence: Fence) -> Landed {
        let mut flights = self.lock();
        match flights.get(&id) {
            Some(flight) if flight.fence == fence => flights
                .remove(&id)
                .map(|Flight { receipts, plugin, .. }| Landed { receipts, plugin })
                .unwrap_or_default(),
            _ => Landed::default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(tag: u64) -> Option<Receipt> {
        Some(Receipt::new(1, tag))
    }

    #[test]
    fn a_flight_that_is_overtaken_by_the_next_leaves_its_receipts_to_it() {
        let (flights, id) = (Flights::default(), uuid::Uuid::nil());
        let first = flights.enter(id, 1, receipt(1), None);
        let second = flights.enter(id, 2, receipt(2), Some("p".into()));
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(flights.leave(id, 1).receipts.is_empty(), "its settlement is answered late");
        let landed = flights.leave(id, 2);
        let tags: Vec<u64> = landed.receipts.iter().map(|receipt| receipt.tag).collect();
        assert_eq!((tags, landed.plugin.as_deref()), (vec![2, 1], Some("p")));
        assert_eq!(flights.len(), 0);
    }
}
