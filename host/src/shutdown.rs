//! How the process is asked to end: the first SIGTERM or SIGINT drains, the second ends at once. SIGHUP, which some programs send
//! to have settings read again, ends nothing.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for the signals from the moment it is made, so that none is missed.
pub struct Requests {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Requests {
    /// Begin to listen.
    pub fn listen() -> io::Result<Requests> {
        Ok(Requests {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next request, by name. Logs that SIGHUP is ignored.
    pub async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP ignored: settings are read at start only; restart the daemon to change them");
                }
            }
        }
    }
}
