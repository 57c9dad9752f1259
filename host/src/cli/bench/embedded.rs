//! A daemon of this binary for one run, with nothing around it.

use super::super::{Failed, escape};
use super::{resources, target};
use crate::daemon;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::oneshot;

/// How long until it must be ready: it compiles its plugins first.
const START: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// How long until a process whose connections have ended is seen to have ended.
const REAP: Duration = Duration::from_secs(1);
/// Lines of its log that are shown if it does not start.
const TAIL: usize = 8;

/// A running daemon. Dropped: killed, and its data folder removed.
pub struct Embedded {
    /// Where it listens, as a URL.
    pub address: String,
    child: Child,
    pid: u32,
    said: Said,
    /// The daemon ends when this is closed, as it is when this process ends, however.
    _lifeline: ChildStdin,
    _folder: tempfile::TempDir,
}

impl Embedded {
    /// Starts one with default settings and these plugins, and waits until it takes tasks.
    pub async fn start(plugins: &Path) -> Result<Embedded, Failed> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Failed::usage(format!("failed to {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("agentry-bench-")
            .tempdir()
            .map_err(|e| failed("make a temporary folder", &e))?;
        let plugins = std::path::absolute(plugins).map_err(|e| failed("find the plugins", &e))?;
        if !plugins.is_dir() {
            return Err(Failed::usage(format!(
                "--plugins: {} is not a folder; name the one that holds the plugins",
                plugins.display()
            )));
        }
        let program = daemon::program().map_err(|e| failed("find this program", &e))?;
        let mut command = Command::new(program);
        command
            .args(["up", "--while-stdin", "--listen", "127.0.0.1:0", "--data-dir", "data", "--plugins"])
            .arg(plugins);
        // Neither the environment nor a file in the current folder says anything about this daemon, unless it is to be profiled.
        let settings = |name: &str| name.starts_with("AGENTRY_") && name != crate::config::DEBUGGABLE;
        for (name, _) in std::env::vars_os().filter(|(name, _)| settings(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A signal from the terminal goes to this program alone, which then still reads what was recorded.
        command.process_group(0);
        let mut child = command.kill_on_drop(true).spawn().map_err(|e| failed("start a daemon", &e))?;
        // Taken from the child, whose `wait` would close it.
        let (Some(stdin), Some(stderr), Some(pid)) = (child.stdin.take(), child.stderr.take(), child.id()) else {
            return Err(Failed::usage("failed to connect to the input and output of the daemon"));
        };
        let (address, said) = listen(stderr);
        let ended = |why: &str| Failed::unreachable(format!("the embedded daemon {why}:\n  {}", tail(&said)));
        match tokio::time::timeout(START, address).await {
            Ok(Ok(address)) => Ok(Embedded { address, child, pid, said, _lifeline: stdin, _folder: folder }),
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
        // None once it was waited for: the id may be that of another process then.
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A stopped process takes a signal only once it goes on.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            target::note(&format!("the embedded daemon did not end within {} s, and is killed", STOP.as_secs()));
        }
    }

    /// Replaces a failure to reach it by the reason, where its process shows one.
    pub async fn explain(&mut self, failed: &mut Failed) {
        // Any other failure is a response of it.
        if !failed.is_unreachable() {
            return;
        }
        if resources::is_stopped(self.pid) {
            let said = &failed.message;
            failed.message = format!("the embedded daemon (process {}) was stopped by a signal: {said}", self.pid);
        } else if let Ok(Ok(status)) = tokio::time::timeout(REAP, self.child.wait()).await {
            failed.message = format!("the embedded daemon ended during the run ({status})");
        }
        target::note(&format!("the end of the log of the embedded daemon:\n  {}", tail(&self.said)));
    }
}

type Said = Arc<Mutex<Vec<String>>>;

/// The last lines of its log, for an error.
fn tail(said: &Said) -> String {
    said.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ")
}

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
