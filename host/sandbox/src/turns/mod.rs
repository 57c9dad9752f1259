//! Turns: how many guests compute at once.
//!
//! A guest that computes occupies a thread; one that waits in a host call occupies none. So only those that compute are
//! bounded, and the bound is soft: a guest that has begun never waits for a turn. While it waits in a host call its turn is free
//! for a guest that would begin; when it wakes it computes again at once, and the number may exceed the bound for a while. Then
//! no guest begins until it is below the bound again.
//!
//! Before a task begins it is claimed, which takes the time of a transaction. So that the threads do not idle meanwhile,
//! tasks are admitted ahead of a free turn: as many as began within the last tenth of a second. Guests that compute for long
//! begin seldom, so few tasks are claimed which could not begin soon.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// The beginnings of two such periods are counted: the present one and the one before.
const PERIOD: Duration = Duration::from_millis(50);
/// The most tasks that are admitted ahead of a free turn.
const MOST_AHEAD: u32 = 1_024;

/// The turns of one host. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Shared>,
}

struct Shared {
    bound: u32,
    line: Mutex<Line>,
}

/// A task's turn, from its admission to its end. Dropped: free for another.
pub struct Turn {
    shared: Arc<Shared>,
    state: AtomicU8,
}

/// Admitted, and its guest has not begun.
const AHEAD: u8 = 0;
/// Its guest computes.
const COMPUTING: u8 = 1;
/// Its guest waits in a host call.
const WAITING: u8 = 2;

/// How many guests do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// Tasks that were admitted and whose guests have not begun.
    pub ahead: u32,
    /// Guests that compute.
    pub computing: u32,
    /// Guests that wait in a host call.
    pub waiting: u32,
}

#[derive(Default)]
struct Line {
    guests: Guests,
    tickets: u64,
    /// Admitted tasks that want to begin: each takes a turn that becomes free.
    to_begin: VecDeque<Waiting>,
    /// Tasks that want to be admitted.
    to_admit: VecDeque<Waiting>,
    pace: Pace,
}

struct Waiting {
    ticket: u64,
    granted: oneshot::Sender<()>,
}

/// How many guests began lately.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    now: u32,
    before: u32,
}

impl Turns {
    /// Lets at most so many guests compute before another may begin; at least one.
    pub fn new(bound: u32) -> Turns {
        Turns { shared: Arc::new(Shared { bound: bound.max(1), line: Mutex::default() }) }
    }

    /// The bound.
    pub fn bound(&self) -> u32 {
        self.shared.bound
    }

    /// How many guests do what now.
    pub fn guests(&self) -> Guests {
        self.shared.lock().guests
    }

    /// Waits until a task may be claimed: a turn is free for it, or will be soon. In the order of asking; dropping the future
    /// leaves the line.
    pub async fn admit(&self) -> Turn {
        let shared = &self.shared;
        let place = {
            let mut line = shared.lock();
            match line.to_admit.is_empty() && line.may_admit(shared.bound) {
                true => {
                    line.guests.ahead += 1;
                    None
                }
                false => Some(line.wait(|line| &mut line.to_admit)),
            }
        };
        if let Some((ticket, granted)) = place {
            let place = InLine { shared, ticket, admission: true, over: false };
            // The sender is dropped only when it has sent.
            let _ = granted.await;
            place.granted();
        }
        Turn { shared: shared.clone(), state: AtomicU8::new(AHEAD) }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("bound", &self.bound()).field("guests", &self.guests()).finish()
    }
}

impl Turn {
    /// Waits until the guest may begin. In the order of asking; dropping the future leaves the line.
    pub async fn begin(&self) {
        let shared = &self.shared;
        let (ticket, granted) = {
            let mut line = shared.lock();
            if self.state.load(Ordering::Relaxed) != AHEAD {
                return;
            }
            if line.to_begin.is_empty() && line.guests.computing < shared.bound {
                line.begin();
                self.state.store(COMPUTING, Ordering::Relaxed);
                line.advance(shared.bound);
                return;
            }
            line.wait(|line| &mut line.to_begin)
        };
        let place = InLine { shared, ticket, admission: false, over: false };
        let _ = granted.await;
        place.granted();
        self.state.store(COMPUTING, Ordering::Relaxed);
    }

    /// The guest waits in a host call.
    pub fn wait(&self) {
        self.change(COMPUTING, WAITING);
    }

    /// The guest can go on. Never waits.
    pub fn wake(&self) {
        self.change(WAITING, COMPUTING);
    }

    fn change(&self, from: u8, to: u8) {
        // Most calls change nothing, and take no lock for it.
        if self.state.load(Ordering::Relaxed) != from {
            return;
        }
        let mut line = self.shared.lock();
        // Changed under the lock alone.
        if self.state.load(Ordering::Relaxed) != from {
            return;
        }
        self.state.store(to, Ordering::Relaxed);
        *line.guests.of(from) -= 1;
        *line.guests.of(to) += 1;
        line.advance(self.shared.bound);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.shared.lock();
        *line.guests.of(*self.state.get_mut()) -= 1;
        line.advance(self.shared.bound);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Shared {
    /// Plain numbers: a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn of(&mut self, state: u8) -> &mut u32 {
        match state {
            AHEAD => &mut self.ahead,
            COMPUTING => &mut self.computing,
            _ => &mut self.waiting,
        }
    }
}

impl Line {
    fn wait(&mut self, line: impl FnOnce(&mut Line) -> &mut VecDeque<Waiting>) -> (u64, oneshot::Receiver<()>) {
        let (granted, grant) = oneshot::channel();
        self.tickets += 1;
        let ticket = self.tickets;
        line(self).push_back(Waiting { ticket, granted });
        (ticket, grant)
    }

    fn may_admit(&mut self, bound: u32) -> bool {
        let taken = self.guests.computing + self.guests.ahead;
        taken < bound || taken < bound + self.pace.lately().min(MOST_AHEAD)
    }

    fn begin(&mut self) {
        self.guests.ahead -= 1;
        self.guests.computing += 1;
        self.pace.begun();
    }

    /// Grants what became free.
    fn advance(&mut self, bound: u32) {
        while self.guests.computing < bound
            && let Some(first) = self.to_begin.pop_front()
        {
            self.begin();
            // If the receiver is gone, `InLine` returns what it was given.
            let _ = first.granted.send(());
        }
        while !self.to_admit.is_empty()
            && self.may_admit(bound)
            && let Some(first) = self.to_admit.pop_front()
        {
            self.guests.ahead += 1;
            let _ = first.granted.send(());
        }
    }
}

impl Pace {
    fn begun(&mut self) {
        self.turn_over();
        self.now += 1;
    }

    fn lately(&mut self) -> u32 {
        self.turn_over();
        self.now + self.before
    }

    fn turn_over(&mut self) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= PERIOD {
            self.before = if passed < PERIOD * 2 { self.now } else { 0 };
            self.now = 0;
            self.since = Some(now);
        }
    }
}

/// A place in one of the lines, left when it is dropped.
struct InLine<'a> {
    shared: &'a Shared,
    ticket: u64,
    admission: bool,
    over: bool,
}

impl InLine<'_> {
    fn granted(mut self) {
        self.over = true;
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut line = self.shared.lock();
        let places = if self.admission { &mut line.to_admit } else { &mut line.to_begin };
        match places.iter().position(|waiting| waiting.ticket == self.ticket) {
            Some(place) => drop(places.remove(place)),
            // It was granted in this moment.
            None if self.admission => line.guests.ahead -= 1,
            None => {
                line.guests.computing -= 1;
                line.guests.ahead += 1;
            }
        }
        line.advance(self.shared.bound);
    }
}
