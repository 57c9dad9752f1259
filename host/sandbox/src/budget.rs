//! Memory for all guests together: who may begin waits for it in line, who runs may have what is free of it.
//!
//! **Growth goes before admission.** A run that grows takes what is free even while others wait to begin. To turn it
//! away would throw its work away; to let others wait costs them time alone. Nobody starves by it:
//!
//! - who waits is admitted in the order of asking, and while anybody waits nobody else is let in, so that what is free
//!   can only go to those who run already, and they are ever fewer;
//! - each of those ends within its own time-out and gives back all it has, and nobody may ask for more than there is:
//!   so whoever is first in line is admitted in the end;
//! - a run that wants more and finds nothing ends there and then, and gives back what it had: of all that run, one at
//!   least goes on. Whoever has reserved all that it may ever use never asks again, and is never turned away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What is counted in, in bytes: a page of linear memory.
const PAGE: u64 = 64 << 10;

/// A budget of linear memory. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

/// All numbers in pages.
#[derive(Debug)]
struct Shared {
    total: u64,
    line: Mutex<Line>,
}

/// Who is first in line needs more than is free: whoever changes one of the two lets in who may go then.
#[derive(Debug)]
struct Line {
    free: u64,
    waiting: VecDeque<Waiting>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    pages: u64,
    admitted: oneshot::Sender<()>,
}

/// A part of a [`MemoryBudget`]. Dropped: free again.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    pages: AtomicU64,
}

/// There was not as much free as a run asked for. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("asked for {asked} bytes of memory while it held {held}, and {free} of {total} were free")]
pub struct NoMemory {
    /// What it wanted to have in all.
    pub asked: u64,
    /// What it had.
    pub held: u64,
    /// What was free besides.
    pub free: u64,
    /// The whole budget.
    pub total: u64,
}

impl MemoryBudget {
    /// A budget of so many bytes, in whole pages of 64 KiB.
    pub fn new(bytes: u64) -> MemoryBudget {
        let total = bytes / PAGE;
        let line = Mutex::new(Line { free: total, waiting: VecDeque::new(), tickets: 0 });
        MemoryBudget { shared: Arc::new(Shared { total, line }) }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.shared.total * PAGE
    }

    /// What is free now, in bytes.
    pub fn free(&self) -> u64 {
        self.line().free * PAGE
    }

    /// How many wait for a reservation now.
    pub fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    /// Reserve so many bytes, and never more than there are: as soon as they are free and all who asked before have
    /// theirs. Dropping the future leaves the line.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let pages = bytes.div_ceil(PAGE).min(self.shared.total);
        let (place, admission) = {
            let mut line = self.line();
            if line.waiting.is_empty() && line.free >= pages {
                line.free -= pages;
                return self.reservation(pages);
            }
            let (admitted, admission) = oneshot::channel();
            line.tickets += 1;
            let ticket = line.tickets;
            line.waiting.push_back(Waiting { ticket, pages, admitted });
            (InLine { budget: self, ticket, pages, over: false }, admission)
        };
        // The sender goes only when it has sent: whoever is in line is let in.
        let _ = admission.await;
        place.admitted()
    }

    /// Reserve so many bytes, and never more than there are, if they are free now and nobody waits.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let pages = bytes.div_ceil(PAGE).min(self.shared.total);
        let mut line = self.line();
        if !line.waiting.is_empty() || line.free < pages {
            return None;
        }
        line.free -= pages;
        drop(line);
        Some(self.reservation(pages))
    }

    fn reservation(&self, pages: u64) -> Reservation {
        Reservation { budget: self.clone(), pages: AtomicU64::new(pages) }
    }

    fn give_back(&self, pages: u64) {
        let mut line = self.line();
        line.free += pages;
        line.admit();
    }

    /// Plain numbers: a panic elsewhere leaves nothing half done.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Let in whoever may go, one after the other.
    fn admit(&mut self) {
        while let Some(first) = self.waiting.front()
            && first.pages <= self.free
            && let Some(first) = self.waiting.pop_front()
        {
            self.free -= first.pages;
            // Should nobody listen any more, `InLine` gives back what it finds that it was given.
            let _ = first.admitted.send(());
        }
    }
}

/// A place in the line, left if its owner goes away.
struct InLine<'a> {
    budget: &'a MemoryBudget,
    ticket: u64,
    pages: u64,
    over: bool,
}

impl InLine<'_> {
    fn admitted(mut self) -> Reservation {
        self.over = true;
        self.budget.reservation(self.pages)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut line = self.budget.line();
        match line.waiting.iter().position(|waiting| waiting.ticket == self.ticket) {
            Some(place) => drop(line.waiting.remove(place)),
            None => line.free += self.pages,
        }
        // Either way the next may go now: it may need less.
        line.admit();
    }
}

impl Reservation {
    /// What is reserved, in bytes.
    pub fn bytes(&self) -> u64 {
        self.pages.load(Ordering::Relaxed) * PAGE
    }

    /// Have at least so many bytes, if what is missing is free now. Whoever waits to begin comes after.
    ///
    /// # Errors
    /// It is not; what was reserved before still is.
    pub fn try_hold(&self, bytes: u64) -> Result<(), NoMemory> {
        let mut line = self.budget.line();
        // Changed under the lock alone.
        let held = self.pages.load(Ordering::Relaxed);
        let missing = bytes.div_ceil(PAGE).saturating_sub(held);
        if missing > line.free {
            let (held, free) = (held * PAGE, line.free * PAGE);
            return Err(NoMemory { asked: bytes, held, free, total: self.budget.total() });
        }
        line.free -= missing;
        self.pages.store(held + missing, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(*self.pages.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn pages(count: u64) -> u64 {
        count * PAGE
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_reserved_is_not_free_until_it_is_dropped() {
        let budget = MemoryBudget::new(pages(10) + 1);
        assert_eq!((budget.total(), budget.free()), (pages(10), pages(10)));
        let one = budget.try_reserve(1).unwrap();
        let other = budget.try_reserve(pages(9)).unwrap();
        assert_eq!((one.bytes(), budget.free()), (PAGE, 0));
        assert!(budget.try_reserve(1).is_none());
        drop(one);
        assert_eq!(budget.free(), PAGE);
        drop(other);
        assert_eq!(budget.free(), pages(10));
    }

    #[test]
    fn who_waits_is_let_in_by_the_order_of_asking_however_little_others_need() {
        let budget = MemoryBudget::new(pages(10));
        let held = budget.try_reserve(pages(6)).unwrap();
        let mut large = pin!(budget.reserve(pages(8)));
        let mut small = pin!(budget.reserve(pages(1)));
        assert!(poll(large.as_mut()).is_none() && poll(small.as_mut()).is_none());
        assert!(budget.try_reserve(pages(1)).is_none(), "nobody overtakes");
        assert_eq!((budget.waiting(), budget.free()), (2, pages(4)), "who waits holds nothing");
        drop(held);
        let large = poll(large.as_mut()).unwrap();
        let small = poll(small.as_mut()).unwrap();
        assert_eq!((large.bytes(), small.bytes(), budget.free()), (pages(8), pages(1), pages(1)));
    }

    #[test]
    fn a_run_that_grows_takes_what_is_free_before_those_who_wait() {
        let budget = MemoryBudget::new(pages(10));
        let running = budget.try_reserve(pages(6)).unwrap();
        let mut waiting = pin!(budget.reserve(pages(5)));
        assert!(poll(waiting.as_mut()).is_none());
        running.try_hold(pages(10)).unwrap();
        assert_eq!(budget.free(), 0);
        drop(running);
        assert_eq!(poll(waiting.as_mut()).unwrap().bytes(), pages(5));
    }

    #[test]
    fn growth_within_what_is_held_is_free_and_growth_beyond_what_is_free_is_refused() {
        let budget = MemoryBudget::new(pages(10));
        let (one, other) = (budget.try_reserve(pages(4)).unwrap(), budget.try_reserve(pages(3)).unwrap());
        one.try_hold(pages(4)).unwrap();
        one.try_hold(pages(2)).unwrap();
        assert_eq!((one.bytes(), budget.free()), (pages(4), pages(3)));
        one.try_hold(pages(5) - 1).unwrap();
        assert_eq!((one.bytes(), budget.free()), (pages(5), pages(2)));
        let refused = other.try_hold(pages(6)).unwrap_err();
        let expected = NoMemory { asked: pages(6), held: pages(3), free: pages(2), total: pages(10) };
        assert_eq!(refused, expected);
        assert_eq!(other.bytes(), pages(3), "a refusal takes nothing");
        drop(one);
        other.try_hold(pages(6)).unwrap();
        drop(other);
        assert_eq!(budget.free(), pages(10));
    }

    #[test]
    fn nobody_may_ask_for_more_than_there_is() {
        let budget = MemoryBudget::new(pages(2));
        let all = poll(pin!(budget.reserve(u64::MAX))).unwrap();
        assert_eq!(all.bytes(), pages(2));
    }

    #[test]
    fn who_leaves_the_line_holds_up_nobody_and_keeps_nothing() {
        let budget = MemoryBudget::new(pages(10));
        let held = budget.try_reserve(pages(6)).unwrap();
        let mut large = Box::pin(budget.reserve(pages(8)));
        let mut small = pin!(budget.reserve(pages(2)));
        assert!(poll(large.as_mut()).is_none() && poll(small.as_mut()).is_none());
        drop(large);
        let small = poll(small.as_mut()).unwrap();
        // Let in, and gone before it heard of it.
        let mut late = Box::pin(budget.reserve(pages(7)));
        assert!(poll(late.as_mut()).is_none());
        drop(held);
        assert_eq!(budget.free(), pages(1));
        drop(late);
        assert_eq!(budget.free(), pages(8));
        drop(small);
        assert_eq!((budget.free(), budget.waiting()), (pages(10), 0));
    }

    /// The argument at the top, played: small reservations fill the budget, each run wants most of it, whoever is turned
    /// away reserves it all the next time.
    #[tokio::test]
    async fn many_that_each_want_most_of_it_all_end() {
        let budget = MemoryBudget::new(pages(20));
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move {
                    for (turned_away, reserve) in [1, 12, 12].into_iter().enumerate() {
                        let held = budget.reserve(pages(reserve)).await;
                        tokio::task::yield_now().await;
                        let grown = held.try_hold(pages(12));
                        tokio::task::yield_now().await;
                        if grown.is_ok() {
                            return turned_away;
                        }
                    }
                    panic!("turned away although it had reserved everything");
                })
            })
            .collect();
        let mut turned_away = 0;
        for task in tasks {
            turned_away += task.await.unwrap();
        }
        assert!(turned_away > 0, "there was no want of memory");
        assert_eq!((budget.free(), budget.waiting()), (budget.total(), 0));
    }
}
