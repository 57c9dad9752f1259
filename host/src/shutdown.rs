//! How the process is asked to end: the first SIGTERM or SIGINT drains, the second ends at once.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for both signals from the moment it is made, so that none is missed.
pub struct Requests {
    terminate: Signal,
    interrupt: Signal,
}

impl Requests {
    /// Begin to listen.
    pub fn listen() -> io::Result<Requests> {
        Ok(Requests { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next request, by name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
