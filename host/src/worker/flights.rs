//! What runs in this process: from its claim to its recorded end.
//!
//! A redelivery of a task that is in flight is re-attached here: its receipt is added, and acknowledged with the others
//! once the end is recorded. Only the claim step adds flights and only the settle step removes them.

use crate::broker::Receipt;
use crate::metrics::About;
use crate::task::settle::StopReason;
use crate::task::{Fence, TaskId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The map. Its lock is held for a few instructions at a time, never across an await.
#[derive(Default)]
pub struct Flights(Mutex<Maps>);

#[derive(Default)]
struct Maps {
    /// Under a claim of this host.
    claimed: BTreeMap<TaskId, Flight>,
    /// Without one; see [`super::unclaimed`]. The same id may be in both, under two messages that contradict each other.
    unclaimed: BTreeMap<TaskId, Early>,
}

/// A run without a claim.
struct Early {
    fingerprint: [u8; 32],
    /// Of further deliveries: that of the first is with the run.
    receipts: Vec<Receipt>,
    about: About,
    stop: CancellationToken,
    reason: Option<StopReason>,
}

/// Whether a run without a claim may begin.
pub enum Begun {
    /// It is entered. The token ends its guest.
    Started(CancellationToken),
    /// Its id runs here already: the claim table decides.
    Busy,
}

struct Flight {
    fence: Fence,
    receipts: Vec<Receipt>,
    about: Option<About>,
    stop: CancellationToken,
    reason: Option<StopReason>,
}

/// What is left of a flight that is over.
#[derive(Default)]
pub struct Landed {
    /// What is to be acknowledged.
    pub receipts: Vec<Receipt>,
    /// Labels of the guest that ran, if one did.
    pub about: Option<About>,
}

impl Flights {
    /// Enter a claimed task, and the labels of what runs it. The token ends its guest.
    ///
    /// Its last flight from here may not have left yet: the answer to its settlement was lost, and the next attempt comes before
    /// it is asked again; or it was taken over elsewhere, failed there, and is back. Its guest is not needed any more, and its
    /// receipts are acknowledged with this one's: dropped, they would hold their places in the prefetch for as long as the
    /// channel lives.
    pub fn enter(&self, id: TaskId, fence: Fence, receipt: Option<Receipt>, about: Option<About>) -> CancellationToken {
        let stop = CancellationToken::new();
        let receipts = receipt.into_iter().collect();
        let mut flight = Flight { fence, receipts, about, stop: stop.clone(), reason: None };
        let mut maps = self.lock();
        let flights = &mut maps.claimed;
        if let Some(last) = flights.remove(&id) {
            last.stop.cancel();
            flight.receipts.extend(last.receipts);
        }
        flights.insert(id, flight);
        stop
    }

    /// Re-attach a redelivery. Gives the receipt back if the task is not in flight.
    pub fn attach(&self, id: TaskId, receipt: Option<Receipt>) -> Result<(), Option<Receipt>> {
        match self.lock().claimed.get_mut(&id) {
            Some(flight) => {
                flight.receipts.extend(receipt);
                Ok(())
            }
            None => Err(receipt),
        }
    }

    /// Remove a task whose end is recorded (or was fenced). Nothing is left if it is not in flight under this fence.
    pub fn leave(&self, id: TaskId, fence: Fence) -> Landed {
        let flights = &mut self.lock().claimed;
        match flights.get(&id) {
            Some(flight) if flight.fence == fence => {
                flights.remove(&id).map(|Flight { receipts, about, .. }| Landed { receipts, about }).unwrap_or_default()
            }
            _ => Landed::default(),
        }
    }

    /// Enter a run without a claim.
    pub fn begin(&self, id: TaskId, fingerprint: [u8; 32], about: About) -> Begun {
        let mut maps = self.lock();
        if maps.claimed.contains_key(&id) || maps.unclaimed.contains_key(&id) {
            return Begun::Busy;
        }
        let stop = CancellationToken::new();
        let early = Early { fingerprint, receipts: Vec::new(), about, stop: stop.clone(), reason: None };
        maps.unclaimed.insert(id, early);
        Begun::Started(stop)
    }

    /// Re-attach a redelivery to a run without a claim. Gives the receipt back if the same message does not run so.
    pub fn attach_unclaimed(&self, id: TaskId, fingerprint: &[u8; 32], receipt: Receipt) -> Result<(), Receipt> {
        match self.lock().unclaimed.get_mut(&id) {
            Some(early) if early.fingerprint == *fingerprint => {
                early.receipts.push(receipt);
                Ok(())
            }
            _ => Err(receipt),
        }
    }

    /// A run without a claim gets one: from now on it is in flight like any other.
    pub fn claimed(&self, id: TaskId, fence: Fence, receipt: Option<Receipt>) {
        let mut maps = self.lock();
        let Some(early) = maps.unclaimed.remove(&id) else { return };
        let Early { mut receipts, about, stop, reason, .. } = early;
        receipts.extend(receipt);
        let mut flight = Flight { fence, receipts, about: Some(about), stop, reason };
        if let Some(last) = maps.claimed.remove(&id) {
            last.stop.cancel();
            flight.receipts.extend(last.receipts);
        }
        maps.claimed.insert(id, flight);
    }

    /// Remove a run that never got a claim, with the receipts of further deliveries.
    pub fn over(&self, id: TaskId) -> Landed {
        let early = self.lock().unclaimed.remove(&id);
        early.map(|early| Landed { receipts: early.receipts, about: Some(early.about) }).unwrap_or_default()
    }

    /// End a task's guest. Whether it is in flight.
    pub fn stop(&self, id: TaskId, reason: StopReason) -> bool {
        self.lock().claimed.get_mut(&id).map(|flight| end(&mut flight.reason, &flight.stop, reason)).is_some()
    }

    /// End every guest. How many.
    pub fn stop_all(&self, reason: StopReason) -> usize {
        let mut maps = self.lock();
        maps.claimed.values_mut().for_each(|flight| end(&mut flight.reason, &flight.stop, reason));
        maps.unclaimed.values_mut().for_each(|early| end(&mut early.reason, &early.stop, reason));
        maps.claimed.len() + maps.unclaimed.len()
    }

    /// Why a task's guest was stopped.
    pub fn reason(&self, id: TaskId) -> StopReason {
        let maps = self.lock();
        let claimed = maps.claimed.get(&id).and_then(|flight| flight.reason);
        claimed.or_else(|| maps.unclaimed.get(&id)?.reason).unwrap_or(StopReason::Shutdown)
    }

    /// Tasks in flight.
    pub fn len(&self) -> usize {
        let maps = self.lock();
        maps.claimed.len() + maps.unclaimed.len()
    }

    /// Entries are whole at every instruction that could panic, so a poisoned lock is still a good map.
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first reason stands: a task that was cancelled stays cancelled when the host shuts down as well.
fn end(why: &mut Option<StopReason>, stop: &CancellationToken, reason: StopReason) {
    why.get_or_insert(reason);
    stop.cancel();
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
        assert_eq!((tags, landed.about.map(|about| about.plugin).as_deref()), (vec![2, 1], Some("p")));
        assert_eq!(flights.len(), 0);
    }
}
