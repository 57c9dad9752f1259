//! What ends a server with all that it started: also when its daemon was killed outright, and could end nobody.
//!
//! The daemon starts its own program again, which starts the server in its process group and then only watches: whether the
//! server lives, and whether the daemon does. Processes that the server left, in whatever group, are adopted ([`descendants`]) and
//! end with it. [`supervise`] is its whole life. Not defended: a server that stops or kills its supervisor, which is a process of
//! the same user unless the operator gave the server another.

use super::descendants;
use super::last_words::{CANNOT_START, cannot_start};
use super::user::{self, Ids};
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
/// The exit code of one that was told to end everything at once.
const KILLED: u8 = 128 + 9;
/// How the daemon tells it that. Nobody else sends it.
pub(super) const END: Signal = Signal::USR1;

/// How the daemon's own program is made to call [`supervise`].
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The program; this process's own, so that both are of one build.
    pub program: PathBuf,
    /// What makes it call [`supervise`] with the arguments that follow these.
    pub arguments: Vec<OsString>,
}

/// Starts a server and waits for its end, and ends what it left; when the daemon is gone, ends it, too. Arguments: the daemon's
/// process id, `UID:GID` to run the server as or `-` for this process's own, the server's program, and the server's arguments.
/// Must be the leader of a process group. Answers with the process's exit code: the server's own, or 128 and the signal that
/// ended it.
pub fn supervise(arguments: impl Iterator<Item = OsString>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.and_then(|runtime| runtime.block_on(watch(arguments))).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "{CANNOT_START}{error}"); // the daemon, which reads it, may be gone
        FAILED
    })
}

async fn watch(mut arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    let missing = || io::Error::other("its arguments are DAEMON UID:GID PROGRAM [ARGUMENT]...");
    let daemon = arguments.next().and_then(|id| id.to_str()?.parse().ok()).ok_or_else(missing)?;
    let ids = arguments.next().and_then(|ids| user::ids(ids.to_str()?)).ok_or_else(missing)?;
    let program = PathBuf::from(arguments.next().ok_or_else(missing)?);
    // The group is asked to go before it is killed. The server has its time for that, so this process must outlive the asking.
    let mut asked = signal(SignalKind::terminate())?;
    let mut told = signal(SignalKind::user_defined1())?;
    descendants::adopt();
    let mut server = tokio::process::Command::new(&program);
    server.args(arguments);
    let mut server = match ids {
        None => {
            user::drop_ambient()?;
            server.spawn().map_err(|error| io::Error::other(cannot_start(&program, &error)))?
        }
        Some(ids) => spawn_as(&mut server, ids).map_err(|error| {
            let (why, Ids { user, group }) = (cannot_start(&program, &error), ids);
            let dir = std::env::current_dir().unwrap_or_default();
            io::Error::other(format!("{why} (in {} as user {user} and group {group})", dir.display()))
        })?,
    };
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = server.wait() => {
                let code = code(ended?);
                descendants::end().await;
                return Ok(code);
            }
            _ = asked.recv() => {}
            _ = told.recv() => {
                descendants::end().await;
                return Ok(KILLED);
            }
            _ = look.tick() => {
                descendants::let_go(server.id());
                if !is_parent(daemon) {
                    let _ = tokio::time::timeout(GRACE, server.wait()).await;
                    descendants::end().await;
                    // This process with it.
                    kill_process_group(getpgrp(), Signal::KILL)?;
                }
            }
        }
    }
}

/// The working folder is entered again under the other ids, so that one that is closed to them is an error at once.
fn spawn_as(server: &mut tokio::process::Command, ids: Ids) -> io::Result<tokio::process::Child> {
    user::drop_privileges()?;
    server.uid(ids.user).gid(ids.group).current_dir(std::env::current_dir()?).spawn()
}

fn is_parent(id: u32) -> bool {
    getppid().is_some_and(|pid| pid.as_raw_nonzero().get().unsigned_abs() == id)
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}
