//! The end of a run before its time: signals, and what a person does about the tasks that are left.

use super::super::{Failed, escape};
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Added to a signal's number, this is the exit code that a shell gives to it.
const SIGNALLED: u8 = 128;

/// A signal that asks this program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    name: &'static str,
    number: u8,
}

impl Asked {
    /// The end of the program, with the exit code of this signal.
    pub fn failed(self, more: &str) -> Failed {
        Failed { code: SIGNALLED + self.number, message: format!("interrupted by {}{more}", self.name) }
    }
}

/// Why a run ended before its time.
#[derive(Debug)]
pub enum Early {
    /// A signal.
    Asked(Asked),
    /// The daemon or the broker is gone, or rejected a task.
    Failed(Failed),
}

impl Early {
    /// The name of the signal.
    pub fn signal(&self) -> Option<&'static str> {
        match self {
            Early::Asked(asked) => Some(asked.name),
            Early::Failed(_) => None,
        }
    }

    /// The message of the failure.
    pub fn error(&self) -> Option<&str> {
        match self {
            Early::Asked(_) => None,
            Early::Failed(failed) => Some(&failed.message),
        }
    }

    /// The end of the program.
    pub fn failed(self, more: &str) -> Failed {
        match self {
            Early::Asked(asked) => asked.failed(more),
            Early::Failed(Failed { code, message }) => Failed { code, message: message + more },
        }
    }
}

impl Failed {
    /// Whether a signal ended the program.
    pub(super) fn is_interruption(&self) -> bool {
        self.code > SIGNALLED
    }
}

/// The signals that end a run.
pub struct Stop(Vec<(Asked, Signal)>);

impl Stop {
    /// Takes the signals from their default, which ends the process.
    pub fn listen() -> Result<Stop, Failed> {
        let kinds = [
            (SignalKind::interrupt(), "SIGINT", 2),
            (SignalKind::terminate(), "SIGTERM", 15),
            (SignalKind::hangup(), "SIGHUP", 1),
        ];
        let one = |(kind, name, number)| signal(kind).map(|signal| (Asked { name, number }, signal));
        let signals = kinds.into_iter().map(one).collect::<Result<_, _>>();
        signals.map(Stop).map_err(|e| Failed::usage(format!("failed to listen for signals: {e}")))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        std::future::poll_fn(|context| {
            let mut asked =
                self.0.iter_mut().filter_map(|(asked, signal)| signal.poll_recv(context).is_ready().then_some(*asked));
            asked.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The result of some work; an error if a signal comes first.
    pub async fn unless<T>(&mut self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        tokio::select! {
            done = work => done,
            asked = self.next() => Err(asked.failed("")),
        }
    }
}

/// The command that removes the tasks of a run.
pub fn remedy(run: &str, server: &str) -> String {
    let server = escape::line(server);
    let plain = server.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-_[]".contains(&b)) && !server.contains('[');
    let server = if plain { server } else { format!("'{}'", server.replace('\'', r"'\''")) };
    format!("agentry bench --clean --run {run} --server {server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_a_command_that_a_shell_takes() {
        assert_eq!(remedy("ab", "http://box:1"), "agentry bench --clean --run ab --server http://box:1");
        assert_eq!(remedy("ab", "http://[::1]:1"), "agentry bench --clean --run ab --server 'http://[::1]:1'");
        assert!(remedy("ab", "http://box/a'b").ends_with(r"--server 'http://box/a'\''b'"));
    }

    #[test]
    fn an_interruption_has_the_exit_code_of_its_signal() {
        let failed = Asked { name: "SIGINT", number: 2 }.failed("; more");
        assert_eq!((failed.code, failed.message.as_str()), (130, "interrupted by SIGINT; more"));
    }
}
