//! The two lines in front of a budget, and the arithmetic of what is free. All numbers in pages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{NoMemory, PAGE};

/// The part of the budget that is kept for resting runs that go on: an eighth.
const KEPT_FOR_RESTING: u64 = 8;
/// A measurement is used for this long.
const MEASURED_FOR: Duration = Duration::from_millis(10);

/// Returns the bytes of memory that this process occupies, or `None` if the system does not report it.
pub(super) type Measure = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// The state of a reservation. Changed under the lock of the line alone.
#[derive(Debug)]
pub(super) struct Numbers {
    /// Reserved.
    pub(super) held: AtomicU64,
    /// Linear memory that the run was granted.
    pub(super) used: AtomicU64,
    /// It does not rest: the run was promised all of it.
    pub(super) whole: bool,
    state: AtomicU8,
}

/// The run may use what it holds.
const ACTIVE: u8 = 0;
/// The run waits in a host call and uses none of its memory.
const RESTING: u8 = 1;
/// The run was told to end because it could not go on.
const ENDING: u8 = 2;

impl Numbers {
    pub(super) fn new(held: u64, whole: bool) -> Arc<Numbers> {
        let state = AtomicU8::new(ACTIVE);
        Arc::new(Numbers { held: AtomicU64::new(held), used: AtomicU64::new(0), whole, state })
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    pub(super) fn is_active(&self) -> bool {
        self.state() == ACTIVE
    }

    pub(super) fn is_resting(&self) -> bool {
        self.state() == RESTING
    }

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }
}

/// Every change of a number and of a line ends with [`Line::advance`].
pub(super) struct Line {
    pub(super) total: u64,
    /// The reservations of runs that are active, and how many there are.
    active: u64,
    running: usize,
    /// The linear memories of runs that rest, what they had reserved, and how many there are.
    resting: u64,
    reserved_by_resting: u64,
    resting_runs: usize,
    /// Grows by the linear memory of each run that begins to rest.
    rested: u64,
    measure: Option<Measure>,
    measured: Option<Measured>,
    tickets: u64,
    /// Resting runs that go on.
    pub(super) resuming: VecDeque<Resuming>,
    /// Runs that begin.
    pub(super) waiting: VecDeque<Waiting>,
}

/// The memory that this process occupied, in pages, and [`Line::rested`] at that time.
#[derive(Clone, Copy)]
struct Measured {
    at: Instant,
    pages: u64,
    rested: u64,
}

pub(super) struct Waiting {
    pub(super) ticket: u64,
    pages: u64,
    admitted: oneshot::Sender<()>,
}

pub(super) struct Resuming {
    pub(super) ticket: u64,
    numbers: Arc<Numbers>,
    answer: oneshot::Sender<Result<(), NoMemory>>,
}

impl Line {
    pub(super) fn new(total: u64, measure: Option<Measure>) -> Line {
        Line {
            total,
            active: 0,
            running: 0,
            resting: 0,
            reserved_by_resting: 0,
            resting_runs: 0,
            rested: 0,
            measure,
            measured: None,
            tickets: 0,
            resuming: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn measures(&self) -> bool {
        self.measure.is_some()
    }

    pub(super) fn resting_runs(&self) -> usize {
        self.resting_runs
    }

    /// Pages that are free.
    pub(super) fn free(&self) -> u64 {
        self.free_beside(self.resting)
    }

    /// The same if only this much linear memory rested. Resting runs count with their linear memories, or with all that this
    /// process occupied when it was measured and the linear memories of those that began to rest since, if that is less.
    fn free_beside(&self, resting: u64) -> u64 {
        let charged = match self.measured {
            Some(measured) => resting.min(measured.pages + (self.rested - measured.rested)),
            None => resting,
        };
        self.total.saturating_sub(self.active + charged)
    }

    /// Measures, unless it was done a moment ago. Returns whether the numbers may have changed.
    fn look(&mut self) -> bool {
        let Some(measure) = &self.measure else { return false };
        let now = Instant::now();
        if self.resting == 0 || self.measured.is_some_and(|last| now.duration_since(last.at) < MEASURED_FOR) {
            return false;
        }
        let pages = measure().map(|bytes| bytes.div_ceil(PAGE));
        self.measured = pages.map(|pages| Measured { at: now, pages, rested: self.rested });
        true
    }

    /// Whether so many pages are free for a run that is active, measured anew if they seem not to be.
    pub(super) fn has(&mut self, pages: u64) -> bool {
        self.free() >= pages || self.look() && self.free() >= pages
    }

    /// Whether a run may begin with so many pages. Some are kept for those that rest, as long as there are any.
    fn may_begin(&mut self, pages: u64) -> bool {
        let kept = (self.total / KEPT_FOR_RESTING).min(self.reserved_by_resting);
        self.has(pages + kept)
    }

    /// Whether a resting run may go on.
    fn may_resume(&mut self, run: &Numbers) -> bool {
        let missing = |line: &Line| line.free_beside(line.resting - run.used()) < run.held();
        !missing(self) || self.look() && !missing(self)
    }

    /// Takes pages for a run that begins, if they are free and no other run waits.
    pub(super) fn try_begin(&mut self, pages: u64) -> bool {
        let may = self.waiting.is_empty() && self.resuming.is_empty() && self.may_begin(pages);
        if may {
            self.begin(pages);
        }
        may
    }

    fn begin(&mut self, pages: u64) {
        self.active += pages;
        self.running += 1;
    }

    /// Returns what a run took that never began.
    pub(super) fn undo_begin(&mut self, pages: u64) {
        self.active -= pages;
        self.running -= 1;
    }

    /// Takes more pages for an active run.
    pub(super) fn grow(&mut self, run: &Numbers, missing: u64) {
        self.active += missing;
        run.held.fetch_add(missing, Ordering::Relaxed);
    }

    pub(super) fn rest(&mut self, run: &Numbers) {
        self.undo_begin(run.held());
        self.resting += run.used();
        self.rested += run.used();
        self.reserved_by_resting += run.held();
        self.resting_runs += 1;
        run.enter(RESTING);
    }

    fn wake(&mut self, run: &Numbers) {
        self.unrest(run);
        self.begin(run.held());
        run.enter(ACTIVE);
    }

    fn unrest(&mut self, run: &Numbers) {
        self.resting -= run.used();
        self.reserved_by_resting -= run.held();
        self.resting_runs -= 1;
    }

    /// Lets a resting run go on, if its reservation is free and no other run waits for the same.
    pub(super) fn try_resume(&mut self, run: &Numbers) -> bool {
        let may = self.resuming.is_empty() && self.may_resume(run);
        if may {
            self.wake(run);
        }
        may
    }

    /// A run is over.
    pub(super) fn end(&mut self, run: &Numbers) {
        match run.state() {
            ACTIVE => self.undo_begin(run.held()),
            RESTING => self.unrest(run),
            _ => {
                self.unrest(run);
                self.running -= 1;
            }
        }
    }

    pub(super) fn wait_to_begin(&mut self, pages: u64) -> (u64, oneshot::Receiver<()>) {
        let (admitted, admission) = oneshot::channel();
        self.tickets += 1;
        self.waiting.push_back(Waiting { ticket: self.tickets, pages, admitted });
        (self.tickets, admission)
    }

    pub(super) fn wait_to_resume(&mut self, run: &Arc<Numbers>) -> (u64, oneshot::Receiver<Result<(), NoMemory>>) {
        let (answer, answered) = oneshot::channel();
        self.tickets += 1;
        self.resuming.push_back(Resuming { ticket: self.tickets, numbers: run.clone(), answer });
        (self.tickets, answered)
    }

    /// Lets in every run that may go on or begin, in this order. Called after every change.
    pub(super) fn advance(&mut self) {
        while let Some(first) = self.resuming.front() {
            let run = first.numbers.clone();
            if self.may_resume(&run) {
                self.wake(&run);
                // If the receiver is gone, the run is being dropped, and gives back what it has.
                let _ = self.resuming.pop_front().map(|first| first.answer.send(Ok(())));
            } else if self.running > 0 {
                // It ends or rests, and calls this again.
                return;
            } else {
                self.expel();
            }
        }
        while let Some(first) = self.waiting.front()
            && let pages = first.pages
            && self.may_begin(pages)
            && let Some(first) = self.waiting.pop_front()
        {
            self.begin(pages);
            // If the receiver is gone, `InLine` gives back what it was given.
            let _ = first.admitted.send(());
        }
    }

    /// Ends the last run of those that want to go on, so that its memory lets the first go on.
    fn expel(&mut self) {
        let Some(last) = self.resuming.pop_back() else { return };
        let (held, used) = (last.numbers.held(), last.numbers.used());
        last.numbers.enter(ENDING);
        // It has to end before another is chosen.
        self.running += 1;
        let [asked, held, free, total] = [held, used, self.free(), self.total].map(|pages| pages * PAGE);
        let _ = last.answer.send(Err(NoMemory { asked, held, free, total }));
    }
}
