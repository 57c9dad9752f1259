//! Programs that cannot outlive xtask.
//!
//! Between xtask and every program stands a guard (see [`crate::guard`]): a child in a session of its own that holds the
//! reading end of a pipe, the lifeline. When the lifeline ends (dropped here, or because xtask died, even of SIGKILL) the
//! guard ends the program and everything that descends from it, daemons included, and removes what it was told to remove.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::guard::{self, StopSignal};
use crate::signals;

/// How a program is run and ended.
#[derive(Clone)]
pub struct Terms {
    /// Asks it to end.
    pub stop: StopSignal,
    /// How long it may take over that before it and its descendants are killed.
    pub patience: Duration,
    /// Folders that go when it has ended.
    pub remove: Vec<PathBuf>,
    /// A Docker container that goes when it has ended.
    pub container: Option<String>,
    /// Whose process it is, if not xtask's own user's: user and group id.
    pub user: Option<(u32, u32)>,
    /// It shall outlive xtask; this file is locked while it runs and holds the guard's process id.
    pub detached: Option<PathBuf>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            stop: StopSignal::Term,
            patience: Duration::from_secs(2),
            remove: Vec::new(),
            container: None,
            user: None,
            detached: None,
        }
    }
}

/// The lifelines of programs that xtask waits for, by guard: those that an interruption ends at once. Services are not
/// among them; they end afterwards, when their owner is dropped.
static FOREGROUND: Mutex<BTreeMap<u32, ChildStdin>> = Mutex::new(BTreeMap::new());

/// Ends what xtask waits for.
pub fn end_foreground() {
    FOREGROUND.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A program behind its guard. Dropped: stopped, with everything that it started.
pub struct Guarded {
    guard: Child,
    lifeline: Option<ChildStdin>,
    detached: bool,
}

impl Guarded {
    /// Starts `command`, of which program, arguments, folder and environment count; standard input is empty.
    pub fn start(command: &Command, terms: &Terms, stdout: Stdio, stderr: Stdio) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut guard = guard::command(command, terms);
        let detached = terms.detached.is_some();
        let mut guard = guard
            .stdin(if detached { Stdio::null() } else { Stdio::piped() })
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        let lifeline = guard.stdin.take();
        Ok(Self { guard, lifeline, detached })
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.guard.try_wait()
    }

    /// Lets go of a detached program: it lives on.
    pub fn release(mut self) {
        debug_assert!(self.detached, "only a detached program outlives xtask");
        self.detached = false;
        self.lifeline = None;
        std::mem::forget(self);
    }

    fn wait_in_foreground(mut self) -> anyhow::Result<ExitStatus> {
        let id = self.guard.id();
        if let Some(lifeline) = self.lifeline.take() {
            FOREGROUND.lock().unwrap_or_else(PoisonError::into_inner).insert(id, lifeline);
        }
        if signals::check().is_err() {
            end_foreground(); // it came before the lifeline was among those that it ends
        }
        let status = self.guard.wait();
        FOREGROUND.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        signals::check()?;
        status.context("failed to wait for a program")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.lifeline = None;
        if self.detached
            && let Some(pid) = i32::try_from(self.guard.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // Not reaped yet, so the id is still the guard's. It may have ended: then there is nothing to end.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.guard.wait();
    }
}

/// Runs `command` to its end, with xtask's own output.
pub fn run(command: &Command) -> anyhow::Result<ExitStatus> {
    run_on(command, &Terms::default())
}

/// The same, on other terms.
pub fn run_on(command: &Command, terms: &Terms) -> anyhow::Result<ExitStatus> {
    Guarded::start(command, terms, Stdio::inherit(), Stdio::inherit())?.wait_in_foreground()
}

/// Which of a program's streams are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Standard output; standard error goes where xtask's goes.
    Stdout,
    /// Both, in the order in which they were written.
    Both,
}

/// Runs `command` to its end and shows its output to `each`, line by line with line ends, as it comes.
pub fn read(command: &Command, terms: &Terms, read: Read, mut each: impl FnMut(&[u8])) -> anyhow::Result<ExitStatus> {
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    let stderr = match read {
        Read::Stdout => Stdio::inherit(),
        Read::Both => writer.try_clone().context("failed to share a pipe")?.into(),
    };
    let program = Guarded::start(command, terms, writer.into(), stderr)?;
    // The pipe ends when the guard does, so the wait is short. It must be in the foreground meanwhile.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || program.wait_in_foreground());
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            each(&line);
            line.clear();
        }
        waiting.join().unwrap_or_else(|_| anyhow::bail!("failed to wait for a program"))
    })
}

/// Shows a line as it is. A closed standard output must not end the run that cleans up.
pub fn pass(line: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(line).and_then(|()| stdout.flush());
}
