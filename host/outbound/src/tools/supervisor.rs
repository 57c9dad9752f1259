//! What ends a server whose daemon was killed outright, and could end nobody.
//!
//! The daemon starts its own program again, which starts the server in its process group and then only watches: whether the
//! server lives, and whether the daemon does. [`supervise`] is its whole life.

use rustix::process::{Signal, getpgrp, getppid, kill_process_group};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often it looks whether the daemon lives.
const LOOK: Duration = Duration::from_millis(500);
/// How long a server has to go by itself, since its input ended with the daemon.
const GRACE: Duration = Duration::from_secs(2);
/// The exit code of one that could not do its work.
const FAILED: u8 = 125;

/// How the daemon's own program is made to call [`supervise`].
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The program; this process's own, so that both are of one build.
    pub program: PathBuf,
    /// What makes it call [`supervise`] with the arguments that follow these.
    pub arguments: Vec<OsString>,
}

/// Starts a server and waits for its end; when the daemon is gone, ends it and all that it started. Arguments: the daemon's
/// process id, the server's program, and the server's arguments. Must be the leader of a process group. Answers with the
/// process's exit code: the server's own, or 128 and the signal that ended it.
pub fn supervise(arguments: impl Iterator<Item = OsString>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.and_then(|runtime| runtime.block_on(watch(arguments))).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "failed to supervise the server: {error}"); // the daemon, which reads it, may be gone
        FAILED
    })
}

async fn watch(mut arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    let missing = || io::Error::other("its arguments are DAEMON PROGRAM [ARGUMENT]...");
    let daemon = arguments.next().and_then(|id| id.to_str()?.parse().ok()).ok_or_else(missing)?;
    let program = arguments.next().ok_or_else(missing)?;
    // The group is asked to go before it is killed. The server has its time for that, so this process must outlive the asking.
    let mut asked = signal(SignalKind::terminate())?;
    let mut server = tokio::process::Command::new(program).args(arguments).spawn()?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = server.wait() => return Ok(code(ended?)),
            _ = asked.recv() => {}
            _ = look.tick() => {
                if !is_parent(daemon) {
                    let _ = tokio::time::timeout(GRACE, server.wait()).await;
                    // This process with it.
                    kill_process_group(getpgrp(), Signal::KILL)?;
                }
            }
        }
    }
}

fn is_parent(id: u32) -> bool {
    getppid().is_some_and(|pid| pid.as_raw_nonzero().get().unsigned_abs() == id)
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}
