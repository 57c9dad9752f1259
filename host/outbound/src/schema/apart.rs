//! A thread for work with a schema. The engine is recursive and blocks: a guest's stack is too small for it, and a poll too short.

use std::sync::{Arc, LazyLock};
use tokio::sync::{Semaphore, oneshot};

/// The stack of one thread, in bytes. The deepest schema that is accepted takes a tenth of it.
const STACK: usize = 16 << 20;
/// The most threads at once; further work waits.
const THREADS: usize = 4;

/// Runs `work` on a thread of its own. Dropping the future abandons the result; the thread ends when `work` does, whose cost is
/// bounded by what this module accepts.
///
/// # Errors
/// The system starts no thread, or `work` panicked.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(THREADS)));
    let broken = || "the check of the schema broke off".to_owned();
    let place = PLACES.clone().acquire_owned().await.map_err(|_| broken())?;
    let (sender, receiver) = oneshot::channel();
    // A subscriber of this thread alone hears of the work, too.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let run = move || {
        let _place = place;
        // A caller that is gone needs no result.
        let _ = sender.send(tracing::dispatcher::with_default(&dispatch, work));
    };
    let thread = std::thread::Builder::new().name("schema".into()).stack_size(STACK).spawn(run);
    thread.map_err(|error| format!("no thread for the check of the schema: {error}"))?;
    receiver.await.map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_thread_of_its_own_and_its_panic_stays_there() {
        let here = std::thread::current().id();
        assert_ne!(apart(|| std::thread::current().id()).await, Ok(here));
        // More often than there are places: a panic gives its place back.
        for _ in 0..=THREADS {
            let broken = apart(|| panic!("on purpose")).await;
            assert_eq!(broken, Err::<(), _>("the check of the schema broke off".to_owned()));
        }
    }
}
