//! The attempt's log: what the guest logs, and what it writes to standard output and standard error, in one bounded list.
//!
//! Nothing a guest writes is ever inherited by the daemon, and nothing is kept beyond the limits: what comes after them
//! is discarded, and one last line says so.

mod log;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

pub(crate) use self::log::{Log, lock, truncate, visible};
use crate::instance::Shared;

/// Where a line of the log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The logging interface, or a remark of the host's (logger `agentry`).
    Log,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word that is stored: `log`, `stdout`, `stderr`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Log => "log",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// How grave a line is, as `wasi:logging` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words are those of wasi:logging")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl Level {
    /// The word that is stored: `trace`, `debug`, `info`, `warn`, `error`, `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// One line of an attempt's log. It came from a guest: control characters are still in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Its place in the attempt, from 1, without gaps.
    pub seq: u32,
    /// When it was complete.
    pub at: SystemTime,
    /// Where it came from.
    pub stream: Stream,
    /// How grave it is; standard output is `info`, standard error `warn`.
    pub level: Level,
    /// The logger's name, empty for the standard streams. `agentry` is the host itself, and no guest.
    pub logger: String,
    /// The text, without the line end.
    pub message: String,
    /// The line was longer than the limit, or (on the last line) the log was.
    pub cut: bool,
}

/// Hears each line as it arrives. It is called on the guest's thread, so it must be quick.
pub type LogSink = Arc<dyn Fn(&LogLine) + Send + Sync>;

/// How much a guest may write to a standard stream at once, in bytes; what WASI's own streams allow.
const PERMIT_BYTES: usize = 64 << 10;

/// A guest's standard output or standard error.
pub(crate) struct Output {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: Stream,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Output { shared: self.shared.clone(), stream: self.stream })
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which is not linked; should it ever be, what is written goes nowhere.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.shared.log).write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}
