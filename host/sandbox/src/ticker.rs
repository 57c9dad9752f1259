//! The thread that interrupts guests. It advances the engine's epoch while a guest is in memory, and sleeps otherwise: a
//! daemon at rest is not woken a hundred times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often a guest that computes is looked at, and others get a turn.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a guest after which the thread sleeps. Many short runs in a row then wake it once.
const LINGER: u32 = 50;

/// Starts the epoch when a guest needs it. Dropped: the thread ends.
pub(crate) struct Ticker {
    inner: Arc<Inner>,
    thread: Thread,
}

#[derive(Default)]
struct Inner {
    /// Guests in memory.
    running: AtomicUsize,
    /// The thread sleeps, or is about to: whoever adds a guest wakes it.
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// While it lives, the epoch advances.
pub(crate) struct Ticking<'a>(&'a Ticker);

impl Ticker {
    /// Starts the thread. It sleeps until the first guest.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
        let inner = Arc::new(Inner::default());
        let handle = thread::Builder::new().name("sandbox-tick".to_owned()).spawn({
            let inner = inner.clone();
            move || inner.run(&engine)
        })?;
        Ok(Ticker { inner, thread: handle.thread().clone() })
    }

    /// Counts a guest in until the value is dropped.
    pub(crate) fn guest(&self) -> Ticking<'_> {
        // Sequentially consistent, as in `Inner::rest`: of both threads at least one sees what the other wrote, so that a
        // guest never runs without a tick.
        self.inner.running.fetch_add(1, Ordering::SeqCst);
        if self.inner.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(self)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.inner.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Inner {
    fn run(&self, engine: &EngineWeak) {
        let mut idle = 0;
        while !self.ended.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else if idle < LINGER {
                idle += 1;
            } else {
                self.rest();
                idle = 0;
                continue;
            }
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
            thread::sleep(TICK);
        }
    }

    /// Sleeps until there is a guest, or the end.
    fn rest(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Longer than anything here takes on a slow machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn until(what: &str, mut reached: impl FnMut() -> bool) {
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < PATIENCE, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn the_epoch_rests_without_guests_and_advances_with_one() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let asleep = || ticker.inner.asleep.load(Ordering::SeqCst);
        until("it never sleeps", asleep);
        for _ in 0..3 {
            let guest = ticker.guest();
            let second = ticker.guest();
            until("it does not wake", || !asleep());
            drop(guest);
            // As long as one is left, it stays awake: longer than it lingers without any.
            thread::sleep(TICK * (LINGER * 2));
            assert!(!asleep());
            drop(second);
            until("it does not sleep again", asleep);
        }
    }

    #[test]
    fn the_thread_ends_with_its_ticker_and_holds_no_engine() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        until("it never sleeps", || ticker.inner.asleep.load(Ordering::SeqCst));
        let (weak, inner) = (engine.weak(), Arc::downgrade(&ticker.inner));
        drop((ticker, engine));
        until("the engine is still alive", || weak.upgrade().is_none());
        until("the thread is still alive", || inner.upgrade().is_none());
    }
}
