//! Memory for all guests together: runs that begin wait for it in line, runs that compute may have what is free of it, and
//! runs that wait in a host call lend theirs to others.
//!
//! **Growth goes before admission.** A run that grows takes what is free even while others wait to begin. A refusal would waste
//! its work; waiting costs the others time alone. No run starves by it:
//!
//! - runs are admitted in the order of asking, and while one waits no other is let in, so that what is free can only go to
//!   those that run already, and they become fewer;
//! - each of those ends within its own time-out and returns all it has, and no run may ask for more than there is: so the
//!   first in line is admitted in the end;
//! - a run that wants more and finds nothing ends there and then, and returns what it had: of all that run, at least one goes
//!   on. A run that has reserved all that it may ever use never asks again, and is never turned away.
//!
//! **A run that waits in a host call rests.** Its guest does not execute, so it touches none of its memory. It returns its
//! reservation, and counts with its linear memory alone ([`Reservation::rest`]). Most of a linear memory is never touched: all
//! that rest count with no more than what this process occupies, where that can be measured. To go on, a run takes its whole
//! reservation again ([`Reservation::resume`]); until it has it, its guest does not execute. So it cannot use what it has
//! lent. If its reservation is not free, it waits in a line of its own, ahead of all that begin. This ends as well:
//!
//! - while a run waits to go on none begins, and those that are active end or rest, which both return memory;
//! - if none is active and the first in line cannot go on, the last one in that line ends, as a run that grows and finds nothing
//!   does, and its memory is returned. So one of them goes on;
//! - an eighth of the budget is not given to runs that begin as long as others rest, so that this is rare;
//! - a run that was promised all that it may ever use ([`MemoryBudget::reserve_whole`]) keeps it while it waits.

mod line;
mod resident;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use line::{Line, Measure, Numbers};

/// The unit of account, in bytes: a page of linear memory.
const PAGE: u64 = 64 << 10;
/// How often a run in line has the memory measured.
const LOOK: Duration = Duration::from_millis(25);

/// A budget of linear memory. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct MemoryBudget {
    line: Arc<Mutex<Line>>,
    total: u64,
}

/// A part of a [`MemoryBudget`]. Dropped: free again.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    numbers: Arc<Numbers>,
}

/// There was not as much free as a run asked for. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("asked for {asked} bytes of memory while it held {held}, and {free} of {total} were free")]
pub struct NoMemory {
    /// The total that it asked for.
    pub asked: u64,
    /// The part that it held.
    pub held: u64,
    /// The part of the budget that was free.
    pub free: u64,
    /// The whole budget.
    pub total: u64,
}

impl MemoryBudget {
    /// Returns a budget of so many bytes, in whole pages of 64 KiB. Runs that rest count with their linear memories.
    pub fn new(bytes: u64) -> MemoryBudget {
        MemoryBudget::with(bytes, None)
    }

    /// Returns a budget in which runs that rest count with no more than what this process occupies. For a budget of real memory.
    pub fn measured(bytes: u64) -> MemoryBudget {
        MemoryBudget::with(bytes, Some(Box::new(resident::measure)))
    }

    fn with(bytes: u64, measure: Option<Measure>) -> MemoryBudget {
        let total = bytes / PAGE;
        MemoryBudget { line: Arc::new(Mutex::new(Line::new(total, measure))), total }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.total * PAGE
    }

    /// Free memory, in bytes.
    pub fn free(&self) -> u64 {
        self.line().free() * PAGE
    }

    /// How many runs wait for memory now, to begin or to go on.
    pub fn waiting(&self) -> usize {
        let line = self.line();
        line.waiting.len() + line.resuming.len()
    }

    /// How many runs rest now.
    pub fn resting(&self) -> usize {
        self.line().resting_runs()
    }

    /// Reserves so many bytes, and never more than there are: as soon as they are free and all that asked before have
    /// theirs. Dropping the future leaves the line.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        self.reservation(self.begin(bytes).await, false)
    }

    /// As [`MemoryBudget::reserve`], for a run that keeps its reservation while it waits: it is not ended for want of memory as
    /// long as it does not grow beyond it.
    pub async fn reserve_whole(&self, bytes: u64) -> Reservation {
        self.reservation(self.begin(bytes).await, true)
    }

    /// Reserves so many bytes, and never more than there are, if they are free now and no run waits.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let pages = bytes.div_ceil(PAGE).min(self.total);
        let begun = self.line().try_begin(pages);
        begun.then(|| self.reservation(pages, false))
    }

    fn reservation(&self, pages: u64, whole: bool) -> Reservation {
        Reservation { budget: self.clone(), numbers: Numbers::new(pages, whole) }
    }

    /// The pages of a run that may begin.
    async fn begin(&self, bytes: u64) -> u64 {
        let pages = bytes.div_ceil(PAGE).min(self.total);
        let (place, admission) = {
            let mut line = self.line();
            if line.try_begin(pages) {
                return pages;
            }
            let (ticket, admission) = line.wait_to_begin(pages);
            (InLine { budget: self, ticket, pages: Some(pages), over: false }, admission)
        };
        // The sender is dropped only when it has sent: a run that is in line is let in.
        let _ = self.look_until(admission).await;
        place.admitted();
        pages
    }

    /// Waits for an answer. Memory may become free without an event in this process: it is looked for at intervals.
    async fn look_until<T>(&self, mut answer: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
        if !self.line().measures() {
            return answer.await;
        }
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered,
                () = tokio::time::sleep(LOOK) => self.line().advance(),
            }
        }
    }

    /// Plain numbers: a panic elsewhere leaves nothing half done.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("total", &self.total()).field("free", &self.free()).finish_non_exhaustive()
    }
}

/// A place in one of the lines, left when it is dropped. `pages`: of a run that begins.
struct InLine<'a> {
    budget: &'a MemoryBudget,
    ticket: u64,
    pages: Option<u64>,
    over: bool,
}

impl InLine<'_> {
    fn admitted(mut self) {
        self.over = true;
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut line = self.budget.line();
        match self.pages {
            Some(pages) => match line.waiting.iter().position(|waiting| waiting.ticket == self.ticket) {
                Some(place) => drop(line.waiting.remove(place)),
                None => line.undo_begin(pages),
            },
            // One that was let go on already has its reservation, and returns it when it is dropped.
            None => line.resuming.retain(|resuming| resuming.ticket != self.ticket),
        }
        // Either way the next may go now: it may need less.
        line.advance();
    }
}

impl Reservation {
    /// Reserved memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.numbers.held() * PAGE
    }

    /// Whether its run rests.
    pub fn is_resting(&self) -> bool {
        self.numbers.is_resting()
    }

    /// Holds at least so many bytes, if what is missing is free now. Runs that wait to begin come after.
    ///
    /// # Errors
    /// It is not, or its run rests; what was reserved before still is.
    pub fn try_hold(&self, bytes: u64) -> Result<(), NoMemory> {
        let mut line = self.budget.line();
        // Changed under the lock alone.
        let held = self.numbers.held();
        let wanted = bytes.div_ceil(PAGE);
        let missing = wanted.saturating_sub(held);
        if !self.numbers.is_active() || missing > 0 && !line.has(missing) {
            let (held, free) = (held * PAGE, line.free() * PAGE);
            return Err(NoMemory { asked: bytes, held, free, total: self.budget.total() });
        }
        line.grow(&self.numbers, missing);
        self.numbers.used.fetch_max(wanted, Ordering::Relaxed);
        Ok(())
    }

    /// Lends the reservation to others: its run waits, and its guest does not execute until [`Reservation::try_resume`] or
    /// [`Reservation::resume`] has returned it.
    pub fn rest(&self) {
        if self.numbers.whole || !self.numbers.is_active() {
            return;
        }
        let mut line = self.budget.line();
        line.rest(&self.numbers);
        line.advance();
    }

    /// Takes the reservation back, if it is free now. Returns whether the run may go on.
    #[must_use]
    pub fn try_resume(&self) -> bool {
        self.numbers.is_active() || self.numbers.is_resting() && self.budget.line().try_resume(&self.numbers)
    }

    /// Takes the reservation back as soon as it is free and all runs that asked before have theirs, ahead of those that begin.
    /// Dropping the future leaves the line.
    ///
    /// # Errors
    /// Every run rests or waits in this line, and there is not enough for all: this one has to end.
    pub async fn resume(&self) -> Result<(), NoMemory> {
        if self.try_resume() {
            return Ok(());
        }
        let (place, answered) = {
            let mut line = self.budget.line();
            let (ticket, answered) = line.wait_to_resume(&self.numbers);
            line.advance();
            (InLine { budget: &self.budget, ticket, pages: None, over: false }, answered)
        };
        let answer = self.budget.look_until(answered).await;
        place.admitted();
        // The sender is dropped only when it has sent, or was removed by this very place.
        answer.unwrap_or(Ok(()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut line = self.budget.line();
        line.end(&self.numbers);
        line.advance();
    }
}
