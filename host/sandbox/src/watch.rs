//! Watches over a guest while it runs: what may end it is looked at between its polls, and while it waits in a host call its
//! turn and its memory are lent to others.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use agentry_defence::Defence;

use crate::budget::{NoMemory, Reservation};
use crate::instance::{Halt, Shared};
use crate::turns::Turn;

/// Why a body did not come to its end.
pub(crate) enum Broken {
    Halted(Halt),
    Panicked(String),
}

/// What a guest holds while it runs, as far as it is shared with others.
#[derive(Clone, Default)]
pub(crate) struct Holds {
    pub(crate) memory: Option<Arc<Reservation>>,
    pub(crate) turn: Option<Arc<Turn>>,
}

impl Holds {
    /// The guest waits in a host call.
    fn wait(&self) {
        if let Some(turn) = &self.turn {
            turn.wait();
        }
        if let Some(memory) = &self.memory {
            memory.rest();
        }
    }

    /// The guest competes for memory, and not for a thread.
    fn wait_for_memory(&self) {
        if let Some(turn) = &self.turn {
            turn.wait();
        }
    }

    /// Waits in line for the guest's memory, if it is not free.
    fn resume(&self) -> Option<Resuming> {
        let memory = self.memory.as_ref().filter(|memory| !memory.try_resume())?.clone();
        Some(Box::pin(async move { memory.resume().await }))
    }

    /// The guest can go on.
    fn wake(&self) {
        if let Some(turn) = &self.turn {
            turn.wake();
        }
    }
}

type Resuming = Pin<Box<dyn Future<Output = Result<(), NoMemory>> + Send>>;

/// Wakes the task that polls a guest, and remembers that it was the guest which asked for it.
struct Pulse {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
    turn: Option<Arc<Turn>>,
}

impl Pulse {
    /// Has this task woken from now on.
    fn follow(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
    }

    fn task(&self) -> Option<Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No task any more. A waker that outlives the run does not keep its task alive.
    fn rest(&self) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Wake for Pulse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        // From now on it competes for a thread, not only once it has one.
        if let Some(turn) = &self.turn {
            turn.wake();
        }
        if let Some(task) = self.task() {
            task.wake();
        }
    }
}

/// Polls the guest, and between polls looks at what may end it: the stop token, the CPU time, the wall clock. While the
/// guest computes, the epoch's callback looks at the same, and yields to here.
///
/// The guest is polled only when it was woken, and only while it holds its memory: one that has lent it executes nothing.
pub(crate) async fn watched<F: Future>(
    shared: &Shared,
    holds: &Holds,
    mut body: Pin<&mut F>,
) -> Result<F::Output, Broken> {
    let pulse = Arc::new(Pulse { woken: AtomicBool::new(true), task: Mutex::default(), turn: holds.turn.clone() });
    let waker = Waker::from(pulse.clone());
    let mut stopped = pin!(shared.stop.cancelled());
    let mut over = pin!(tokio::time::sleep_until(shared.end));
    // Whether the guest was woken and not polled since.
    let mut due = false;
    let mut resuming: Option<Resuming> = None;
    let ended = poll_fn(|cx| {
        let halt = |halt| Poll::Ready(Err(Broken::Halted(halt)));
        if shared.is_stopped() {
            return halt(Halt::Stopped);
        }
        if shared.is_over() {
            return halt(Halt::Timeout);
        }
        pulse.follow(cx.waker());
        due |= pulse.woken.swap(false, Ordering::AcqRel);
        if due && resuming.is_none() {
            resuming = holds.resume();
        }
        let memory = resuming.as_mut().map_or(Poll::Ready(Ok(())), |resuming| resuming.as_mut().poll(cx));
        match memory {
            Poll::Ready(Err(none)) => return halt(Halt::Memory(none)),
            Poll::Ready(Ok(())) => resuming = None,
            Poll::Pending => holds.wait_for_memory(),
        }
        if due && resuming.is_none() {
            due = false;
            holds.wake();
            shared.cpu.begin();
            let polled = contained(|| body.as_mut().poll(&mut Context::from_waker(&waker)));
            shared.cpu.end();
            match polled {
                Ok(Poll::Ready(output)) => return Poll::Ready(Ok(output)),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(Err(Broken::Panicked(panic))),
            }
            if shared.cpu.is_spent() {
                return halt(Halt::Cpu);
            }
            // A guest that only yielded computes on.
            if !shared.has_yielded() && !pulse.woken.load(Ordering::Acquire) {
                holds.wait();
            }
        }
        // Last, so that the many guests that end in their first poll never register a timer.
        if stopped.as_mut().poll(cx).is_ready() && Defence::Stop.stands() {
            return halt(Halt::Stopped);
        }
        if over.as_mut().poll(cx).is_ready() && Defence::WallClock.stands() {
            return halt(Halt::Timeout);
        }
        Poll::Pending
    })
    .await;
    pulse.rest();
    ended
}

/// Runs host code whose panic must stay within this run.
pub(crate) fn contained<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    if !Defence::Panics.stands() {
        return Ok(code());
    }
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "without a message".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Duration;

    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::budget::MemoryBudget;
    use crate::instance::CpuMeter;
    use crate::limits::Limits;
    use crate::streams::Log;

    const PAGE: u64 = 64 << 10;

    fn shared() -> Shared {
        Shared {
            log: Mutex::new(Log::new(&Limits::default(), None)),
            stop: CancellationToken::new(),
            end: Instant::now() + Duration::from_secs(60),
            cpu: CpuMeter::new(Duration::from_secs(60)),
            yielded: AtomicBool::new(false),
        }
    }

    /// Bodies that wait, and use their whole reservations whenever they are polled.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_guest_is_polled_only_while_it_holds_its_memory() {
        const TOTAL: u64 = 20;
        let budget = MemoryBudget::new(TOTAL * PAGE);
        let in_use = Arc::new(AtomicU64::new(0));
        let mut runs = Vec::new();
        for number in 0..100_u64 {
            let (budget, in_use) = (budget.clone(), in_use.clone());
            runs.push(tokio::spawn(async move {
                let memory = Arc::new(budget.reserve(6 * PAGE).await);
                memory.try_hold(1).unwrap();
                let body = {
                    let memory = memory.clone();
                    async move {
                        for round in 0..20 {
                            assert!(!memory.is_resting());
                            let now = in_use.fetch_add(6, Ordering::SeqCst) + 6;
                            assert!(now <= TOTAL, "{now} pages are in use");
                            std::thread::yield_now();
                            in_use.fetch_sub(6, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_micros((number * round) % 300)).await;
                        }
                    }
                };
                let holds = Holds { memory: Some(memory), turn: None };
                let ended = watched(&shared(), &holds, pin!(body)).await;
                match ended {
                    Ok(()) => true,
                    Err(Broken::Halted(Halt::Memory(_))) => false,
                    Err(Broken::Halted(halt)) => panic!("{halt}"),
                    Err(Broken::Panicked(words)) => panic!("{words}"),
                }
            }));
        }
        let mut ended = 0;
        for run in runs {
            ended += u32::from(run.await.unwrap());
        }
        assert!(ended > 0);
        assert_eq!((budget.free(), budget.resting(), budget.waiting()), (budget.total(), 0, 0));
    }
}
