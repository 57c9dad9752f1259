//! Threads of the API, apart from those of the path: a flood of tasks does not delay requests, and a flood of requests does not delay
//! tasks, since the kernel shares the processors between them.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// How much less urgent the API is than the path, and how much more than guests. A path that waits for a processor holds leases up.
const LESS_URGENT: i32 = 2;
/// Threads at most. More requests than these can serve are bounded by the connections to the database.
const MOST: usize = 4;

/// A runtime that serves the API.
pub struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts the threads.
    pub fn start() -> io::Result<Threads> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("api")
            .on_thread_start(|| {
                // A priority is a thread's own on Linux alone. A system that refuses it serves requests as urgently as the rest.
                if cfg!(target_os = "linux") {
                    let _ = rustix::process::nice(LESS_URGENT);
                }
            })
            .enable_all()
            .build()?;
        Ok(Threads { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where requests are served.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    /// A runtime that is dropped where others run asynchronously panics, since it waits for its threads.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
