//! A server that is a child process: started with nothing but what is configured, and ended with all that it started.
//!
//! It leads a process group of its own, so that its children end with it. One that leaves the group (`setsid`) is ended by its
//! supervisor, if it was given one, on Linux; elsewhere only a container or a cgroup around the daemon holds that. Should the
//! daemon be killed outright, the child's standard input ends, which is how the protocol tells a server to go; one that does not
//! is ended by its supervisor as well.

use super::last_words::Tail;
use super::settings::{Program, Server};
use super::supervisor::END;
use super::user::User;
use super::words::{Lines, bounded, printable};
use crate::secret::Redactor;
use agentry_defence::Defence;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// How long a server has to go after its input ended, and again after it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// The longest line of standard error that is shown.
const LINE_BYTES: usize = 2_048;
/// How much of one child's standard error is shown in all; the rest is read and dropped.
const LOG_BYTES: usize = 256 << 10;

/// The child. Dropping it kills the whole group, or has its supervisor do so.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    /// The child is a supervisor, which ends more than a group if it lives to do so.
    is_supervised: bool,
    stderr: JoinHandle<()>,
    last_words: Arc<Mutex<Tail>>,
    /// Its own empty folder, if the operator named none; goes with it.
    _folder: Option<tempfile::TempDir>,
}

/// Its ends of the conversation.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

impl Process {
    /// Starts it.
    pub(super) fn start(server: &Server, program: &Program, plugin: &str) -> io::Result<(Process, Pipes)> {
        let folder = program.dir.is_none().then(|| tempfile::Builder::new().prefix("agentry-tool-").tempdir());
        let folder = folder.transpose()?;
        if let (Some(user), Some(folder)) = (&program.user, &folder) {
            user.own(folder.path())?;
        }
        let dir = program.dir.as_deref().or(folder.as_ref().map(|folder| folder.path()));
        let mut command = match &program.supervisor {
            None => Command::new(&program.path),
            Some(supervisor) => {
                let mut command = Command::new(&supervisor.program);
                command.args(&supervisor.arguments).arg(std::process::id().to_string());
                command.arg(User::argument(program.user.as_ref())).arg(&program.path);
                command
            }
        };
        if Defence::ToolEnvironment.stands() {
            command.env_clear();
        }
        if let Some(user) = &program.user {
            command.env("HOME", &user.home);
        }
        command
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(program.supervisor.is_none());
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pipe = |name| io::Error::other(format!("its {name} is no pipe"));
        let stdin = child.stdin.take().ok_or_else(|| pipe("standard input"))?;
        let stdout = child.stdout.take().ok_or_else(|| pipe("standard output"))?;
        let stderr = child.stderr.take().ok_or_else(|| pipe("standard error"))?;
        let last_words = Arc::<Mutex<Tail>>::default();
        let log = Log {
            server: server.name.clone(),
            plugin: plugin.to_owned(),
            redactor: server.redactor.clone(),
            last_words: last_words.clone(),
        };
        let stderr = tokio::spawn(log.follow(stderr));
        let is_supervised = program.supervisor.is_some();
        Ok((Process { child, group, is_supervised, stderr, last_words, _folder: folder }, Pipes { stdin, stdout }))
    }

    /// Waits for its end, asks for it, forces it, in this order; then ends whatever it left in its group. Its standard input
    /// must be closed by now.
    pub(super) async fn end(mut self) -> Ended {
        let mut status = self.exit_within(GRACE).await;
        if status.is_none() {
            self.signal(Signal::TERM);
            status = self.exit_within(GRACE).await;
        }
        if status.is_none() && self.tell() {
            status = self.exit_within(GRACE).await;
        }
        // The group has members even when its leader is gone. Its number cannot be another's while one of them lives.
        self.signal(Signal::KILL);
        self.group = None;
        if status.is_none() {
            status = self.exit_within(GRACE).await;
        }
        // The pipe may be in the hands of a process that left the group.
        if tokio::time::timeout(GRACE, &mut self.stderr).await.is_err() {
            self.stderr.abort();
        }
        let last_words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner).shown();
        Ended { status, last_words }
    }

    async fn exit_within(&mut self, time: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(time, self.child.wait()).await.ok()?.ok()
    }

    /// Has the supervisor end everything at once; whether there is one.
    fn tell(&self) -> bool {
        // There is no id once it was waited for, when the number may be another's.
        let supervisor = self.child.id().filter(|_| self.is_supervised).and_then(|id| Pid::from_raw(id.cast_signed()));
        supervisor.is_some_and(|supervisor| kill_process(supervisor, END).is_ok())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // None left is as good as ended.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.tell() {
            self.signal(Signal::KILL);
        }
        self.stderr.abort();
    }
}

/// How it ended.
pub(super) struct Ended {
    /// `None`: it could not be ended.
    pub(super) status: Option<ExitStatus>,
    /// The last lines of its standard error, without credentials.
    pub(super) last_words: String,
}

/// Follows standard error into the log.
struct Log {
    server: String,
    plugin: String,
    redactor: Redactor,
    last_words: Arc<Mutex<Tail>>,
}

impl Log {
    async fn follow(self, stderr: impl AsyncRead + Unpin) {
        let mut lines = BoundedLines::new(stderr, LINE_BYTES + self.redactor.longest());
        let mut left = LOG_BYTES;
        while let Ok(Some(line)) = lines.next().await {
            let line = String::from_utf8_lossy(line);
            let line = bounded(&printable(self.redactor.text(line.trim_end()).as_str(), Lines::One), LINE_BYTES);
            if line.is_empty() {
                continue;
            }
            if left > 0 {
                tracing::debug!(server = %self.server, plugin = %self.plugin, line, "a tool server's standard error");
                left = left.saturating_sub(line.len());
                if left == 0 {
                    tracing::debug!(server = %self.server, plugin = %self.plugin, "its further lines are not logged");
                }
            }
            self.last_words.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

/// Lines of a stream, each cut at a length; what is beyond is read and dropped.
struct BoundedLines<R> {
    stream: BufReader<R>,
    line: Vec<u8>,
    most: usize,
}

impl<R: AsyncRead + Unpin> BoundedLines<R> {
    fn new(stream: R, most: usize) -> BoundedLines<R> {
        BoundedLines { stream: BufReader::new(stream), line: Vec::new(), most }
    }

    async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut any = false;
        loop {
            let read = self.stream.fill_buf().await?;
            if read.is_empty() {
                return Ok(any.then_some(self.line.as_slice()));
            }
            any = true;
            let end = read.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(read.len());
            let room = self.most - self.line.len();
            self.line.extend_from_slice(&read[..taken.min(room)]);
            self.stream.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_cut_at_its_length_and_the_next_is_whole() {
        let mut lines = BoundedLines::new(&b"abcdefgh\nij\n\nkl"[..], 3);
        for expected in [&b"abc"[..], b"ij", b"", b"kl"] {
            assert_eq!(lines.next().await.unwrap(), Some(expected));
        }
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
