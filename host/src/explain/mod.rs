//! Why a task is where it is, and what to do about it: facts of the database, the hosts and the broker, and one sentence that
//! follows from them.
//!
//! [`look`] asks, each source for a bounded time and all at once, so that one that is away is itself an answer. [`explain`] is
//! pure. The API and the command line share both; the command line looks by itself where no daemon answers.

mod causes;
mod look;
#[cfg(test)]
mod tests;

pub use causes::explain;
pub use look::{PATIENCE, Places, look};

use crate::broker::QueueFacts;
use crate::db::{DeadRow, HostRow, TaskRow};
use crate::task::{State, TaskId};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// The task in question.
    pub id: TaskId,
    /// The time of the question, by the database's clock where it answers.
    pub now: DateTime<Utc>,
    /// Its row and its dead letters, and all hosts; or why the database does not say.
    pub database: Result<Recorded, String>,
    /// Why the broker cannot be asked; `None`: it answers.
    pub broker: Option<String>,
    /// Why the broker accepts no messages although it answers.
    pub refusal: Option<String>,
    /// The task's queue; without a row, every queue that is known.
    pub queues: Vec<QueueLook>,
    /// What the answering daemon says against itself: code and message of `/readyz`.
    pub reasons: Vec<(String, String)>,
    /// Whether broker and database are embedded in one daemon.
    pub embedded: bool,
}

/// What the database has of a task, and of the hosts.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The task's row, without input and output.
    pub task: Option<TaskRow>,
    /// Dead letters that carry its id, newest first.
    pub letters: Vec<DeadRow>,
    /// Every host, newest first.
    pub hosts: Vec<HostRow>,
}

/// A queue as the broker counts it.
#[derive(Debug)]
pub struct QueueLook {
    /// The logical queue.
    pub queue: String,
    /// Its tasks; the error says why they are not known.
    pub tasks: Result<QueueFacts, QueueError>,
    /// Messages that the broker returned.
    pub returned: Option<u32>,
    /// Dead letters.
    pub dead: Option<u32>,
}

/// Why a queue is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The broker does not answer.
    Away(String),
    /// The broker answers that it is not there, or not ours.
    Refused(String),
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Explanation {
    /// The task.
    pub id: TaskId,
    /// Its state; `None`: it has no row, or the database does not answer.
    pub state: Option<State>,
    /// Since when it is in that state, as far as is recorded.
    pub since: Option<DateTime<Utc>>,
    /// The time of the answer.
    pub at: DateTime<Utc>,
    /// One sentence, and the remedy: those of the first cause.
    pub summary: String,
    /// The most decisive first; at least one.
    pub causes: Vec<Cause>,
    /// What the causes follow from.
    pub facts: Value,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Cause {
    /// A stable word.
    pub code: &'static str,
    /// One clause for a person, without a full stop.
    pub message: String,
    /// Since when, where it is known.
    pub since: Option<DateTime<Utc>>,
    /// Until when, where it is known.
    pub until: Option<DateTime<Utc>>,
    /// What to do; `None`: nothing has to be done.
    pub remedy: Option<String>,
    /// More for programs.
    pub detail: Value,
}

impl Cause {
    fn new(code: &'static str, message: impl Into<String>) -> Cause {
        Cause { code, message: message.into(), since: None, until: None, remedy: None, detail: Value::Null }
    }

    fn since(mut self, since: impl Into<Option<DateTime<Utc>>>) -> Cause {
        self.since = since.into();
        self
    }

    fn until(mut self, until: impl Into<Option<DateTime<Utc>>>) -> Cause {
        self.until = until.into();
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Cause {
        self.remedy = Some(remedy.into());
        self
    }

    fn detail(mut self, detail: Value) -> Cause {
        self.detail = detail;
        self
    }
}
