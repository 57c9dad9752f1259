//! A daemon of this binary for one run, with nothing around it.

use super::super::{Failed, escape};
use crate::daemon;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

/// How long until it must be ready: it compiles its plugins first.
const START: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// Lines of its log that are shown if it does not start.
const TAIL: usize = 8;

/// A running daemon. Dropped: killed, and its data folder removed.
pub struct Embedded {
    /// Where it listens, as a URL.
    pub address: String,
    child: Child,
    pid: u32,
    _folder: tempfile::TempDir,
}

impl Embedded {
    /// Starts one with default settings and these plugins, and waits until it takes tasks.
    pub async fn start(plugins: &Path) -> Result<Embedded, Failed> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Failed::usage(format!("failed to {what}: {error}"));
        let folder = tempfile::tempdir().map_err(|e| failed("make a temporary folder", &e))?;
        let plugins = std::path::absolute(plugins).map_err(|e| failed("find the plugins", &e))?;
        if !plugins.is_dir() {
            return Err(Failed::usage(format!(
                "--plugins: {} is not a folder; name the one that holds the plugins",
                plugins.display()
            )));
        }
        let program = daemon::program().map_err(|e| failed("find this program", &e))?;
        let mut command = Command::new(program);
        command.args(["up", "--listen", "127.0.0.1:0", "--data-dir", "data", "--plugins"]).arg(plugins);
        // Neither the environment nor a file in the current folder says anything about this daemon, unless it is to be profiled.
        let settings = |name: &str| name.starts_with("AGENTRY_") && name != crate::config::DEBUGGABLE;
        for (name, _) in std::env::vars_os().filter(|(name, _)| settings(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A signal from the terminal goes to this program alone, which then still reads what was recorded.
        command.process_group(0);
        let mut child = command.kill_on_drop(true).spawn().map_err(|e| failed("start a daemon", &e))?;
        let (Some(stderr), Some(pid)) = (child.stderr.take(), child.id()) else {
            return Err(Failed::usage("failed to read from the daemon"));
        };
        let (address, said) = listen(stderr);
        let ended = |why: &str| {
            let lines = said.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
            Failed::unreachable(format!("the embedded daemon {why}:\n  {lines}"))
        };
        match tokio::time::timeout(START, address).await {
            Ok(Ok(address)) => Ok(Embedded { address, child, pid, _folder: folder }),
            Ok(Err(_)) => Err(ended("ended before it was ready")),
            Err(_) => Err(ended(&format!("was not ready within {} s", START.as_secs()))),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Not waited for yet, so the id is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(STOP, self.child.wait()).await;
    }
}

type Said = Arc<Mutex<Vec<String>>>;

/// Reads everything that a daemon logs, so that it never waits for a reader; the first is its address.
fn listen(stderr: ChildStderr) -> (oneshot::Receiver<String>, Said) {
    let (sender, receiver) = oneshot::channel();
    let said = Said::default();
    let keep = said.clone();
    tokio::spawn(async move {
        let mut sender = Some(sender);
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(address) = line.trim_end().strip_prefix("ready ")
                && let Some(sender) = sender.take()
            {
                let _ = sender.send(address.to_owned()); // the start was given up
            }
            let mut said = keep.lock().unwrap_or_else(PoisonError::into_inner);
            said.push(escape::line(&line));
            if said.len() > TAIL {
                said.remove(0);
            }
        }
    });
    (receiver, said)
}
