//! The reason for a task's state, and the remedy: facts of the database, the hosts and the broker, and one sentence that
//! follows from them.
//!
//! [`look`] asks all sources at once, within [`PATIENCE`] in all: one that does not respond is itself an answer. [`explain`] is
//! pure. The API and the command line share both; the command line looks by itself where no daemon responds.

mod brakes;
mod causes;
mod look;
mod services;
#[cfg(test)]
mod tests;
mod waiting;

pub use brakes::{said, with_brake};
pub use causes::explain;
pub use look::{PATIENCE, Places, look, survey};
pub use services::{of_queues, span, unconsumed_queues};

use crate::broker::QueueFacts;
use crate::db::{Brakes, DbError, DeadRow, HostRow, TaskRow};
use crate::task::{State, TaskId};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// Everything that was found.
#[derive(Debug)]
pub struct Facts {
    /// The task in question.
    pub id: TaskId,
    /// The time of the question, by the database's clock where it responds.
    pub now: DateTime<Utc>,
    /// The task's row and dead letters, and all hosts; the error says why they are not known.
    pub database: Result<Recorded, DatabaseError>,
    /// The broker as a person finds it: kind, address, virtual host.
    pub place: Option<String>,
    /// The reason why the broker cannot be asked; `None`: it responds.
    pub broker: Option<String>,
    /// The reason why the broker accepts no messages although it responds.
    pub refusal: Option<String>,
    /// The task's queue; without a row, every queue that is known.
    pub queues: Vec<QueueLook>,
    /// The daemon that responds; `None`: the command line looked by itself.
    pub daemon: Option<Responding>,
    /// Set if the queue is embedded in a daemon that does not respond.
    pub embedded: bool,
}

/// The readiness of the daemon that responds.
#[derive(Debug)]
pub struct Responding {
    /// It takes tasks.
    pub ready: bool,
    /// Code and message of each reason of `/readyz`. Some do not make it unready.
    pub reasons: Vec<(String, String)>,
}

/// The reason why the database says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// It does not respond.
    Away(String),
    /// It responds, and its schema does not fit this build.
    Schema(String),
    /// It responds, and refuses; or there is none where the settings say.
    Refused(String),
}

impl From<DbError> for DatabaseError {
    fn from(error: DbError) -> DatabaseError {
        match error {
            DbError::Schema(text) => DatabaseError::Schema(text),
            DbError::Refused(text) => DatabaseError::Refused(text),
            other => DatabaseError::Away(other.to_string()),
        }
    }
}

/// The part of the database that belongs to a task, and the hosts.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The task's row, without input and output.
    pub task: Option<TaskRow>,
    /// Dead letters that carry its id, newest first.
    pub letters: Vec<DeadRow>,
    /// Every host, newest first.
    pub hosts: Vec<HostRow>,
    /// The brakes that hold.
    pub brakes: Brakes,
}

impl Recorded {
    /// The hosts with a valid lease.
    fn alive(&self) -> impl Iterator<Item = &HostRow> {
        self.hosts.iter().filter(|host| host.alive)
    }

    /// The hosts with a valid lease that consume the queue.
    fn consuming<'a>(&'a self, queue: &'a str) -> impl Iterator<Item = &'a HostRow> {
        self.alive().filter(move |host| host.record.queues.iter().any(|name| name == queue))
    }
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

/// The reason why a queue is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The broker does not respond.
    Away(String),
    /// The broker responds that the queue is not there, or not accessible.
    Refused(String),
}

/// The reason for a task's state.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Explanation {
    /// The task.
    #[schema(value_type = uuid::Uuid)]
    pub id: TaskId,
    /// Its state; `None`: it has no row, or the database does not respond.
    pub state: Option<State>,
    /// Start of that state, as far as it is recorded.
    pub since: Option<DateTime<Utc>>,
    /// The time of the answer.
    pub at: DateTime<Utc>,
    /// One sentence with the remedy: those of the first cause.
    pub summary: String,
    /// The most decisive first; at least one.
    pub causes: Vec<Cause>,
    /// The facts that the causes follow from.
    pub facts: Value,
}

/// One cause.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Cause {
    /// A stable word.
    pub code: &'static str,
    /// One clause for a person, without a full stop.
    pub message: String,
    /// Its start, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// Its end, where that is known.
    pub until: Option<DateTime<Utc>>,
    /// The remedy; `None`: nothing has to be done.
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
