//! What goes into the database and what comes out.

mod examine;
mod letters;
mod outbox;
mod read;
mod replies;
mod steering;
mod stores;
mod verbs;
mod waiting;

pub use examine::*;
pub use letters::*;
pub use outbox::*;
pub use read::*;
pub use replies::*;
pub use steering::*;
pub use stores::*;
pub use verbs::*;
pub use waiting::*;

use crate::task::settle::Standing;
use crate::task::{Arrival, Decision, Fence, HostId, PluginRef, Settlement, State, TaskId, TaskMessage};
use chrono::{DateTime, Utc};
use std::time::Duration;

/// Why a database operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It may work later: the connection, a time-out, a serialisation failure, a full or read-only disk.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// It did not end within its time. Fewer rows may.
    #[error("database unavailable: {0}")]
    TimedOut(String),
    /// It cannot mend itself: credentials, a missing database, an address that names nothing.
    #[error("{0}")]
    Refused(String),
    /// The schema does not fit this build.
    #[error("{0}")]
    Schema(String),
    /// A defect: a statement that the database does not take, a row that does not read back.
    #[error("database defect: {0}")]
    Defect(String),
}

impl DbError {
    /// The same error once more, for another caller.
    pub(super) fn again(&self) -> DbError {
        match self {
            DbError::Unavailable(text) => DbError::Unavailable(text.clone()),
            DbError::TimedOut(text) => DbError::TimedOut(text.clone()),
            DbError::Refused(text) => DbError::Refused(text.clone()),
            DbError::Schema(text) => DbError::Schema(text.clone()),
            DbError::Defect(text) => DbError::Defect(text.clone()),
        }
    }

    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, DbError::Unavailable(_) | DbError::TimedOut(_))
    }

    /// Whether the same call with fewer rows may end in time.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, DbError::TimedOut(_))
    }
}

/// Bytes of payload that one statement reads or writes at most, where it takes many rows. A single row may be larger.
pub const BATCH_BYTES: u64 = 16 << 20;

/// The schema's version: the number of the last migration.
pub type SchemaVersion = i64;

/// What `migrate` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Before; 0: an empty database.
    pub from: SchemaVersion,
    /// Now.
    pub to: SchemaVersion,
}

/// A host's self-reported state.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct HostRecord {
    /// Random per start.
    #[schema(value_type = uuid::Uuid)]
    pub id: HostId,
    /// `agentry/BUILD/HOST/PID`, as its consumers and connections are named.
    pub name: String,
    /// Version and commit of the binary.
    pub build: String,
    /// Digest of its effective settings.
    pub settings_digest: String,
    /// Logical queues it consumes.
    pub queues: Vec<String>,
    /// `name@version` of every plugin it serves.
    pub plugins: Vec<String>,
    /// `name: cause` of every plugin that failed to load.
    pub broken_plugins: Vec<String>,
    /// Slots.
    pub slots: u32,
    /// Of these in use.
    pub busy: u32,
    /// The last change of brakes that it heeds; `None`: its build heeds none.
    pub brakes: Option<i64>,
}

impl HostRecord {
    /// Whether the host serves a version of the plugin that meets the requirement.
    pub fn serves(&self, plugin: &PluginRef) -> bool {
        self.plugins.iter().filter_map(|served| served.split_once('@')).any(|(name, version)| {
            *name == *plugin.name
                && semver::Version::parse(version).is_ok_and(|version| plugin.requirement.matches(&version))
        })
    }

    /// The cause, if the plugin failed to load on the host.
    pub fn broken(&self, plugin: &PluginRef) -> Option<&str> {
        let broken = self.broken_plugins.iter().filter_map(|text| text.split_once(':'));
        let mut of_name = broken.filter(|(name, _)| *name.split('@').next().unwrap_or(name) == *plugin.name);
        of_name.next().map(|(_, cause)| cause.trim())
    }
}

/// A host with its lease.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Host)]
pub struct HostRow {
    /// Its self-reported state.
    #[serde(flatten)]
    pub record: HostRecord,
    /// Time of its start.
    pub started_at: DateTime<Utc>,
    /// Time of the last renewal of its lease.
    pub renewed_at: DateTime<Utc>,
    /// End of its lease.
    pub lease_until: DateTime<Utc>,
    /// The lease is valid now.
    pub alive: bool,
}

/// What a renewal answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// The lease had lapsed, or the row was gone: others may have taken over what this host ran.
    pub lapsed: bool,
}

/// Who claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The host.
    pub host: HostId,
    /// It has been in touch with the database for a whole lease time. One that has not cannot tell hosts that died from
    /// hosts that the same outage kept from renewing, and takes over only what a host that is known to have ended has left.
    pub steady: bool,
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimAnswer {
    /// Run it.
    Run(Claimed),
    /// It is this host's already: running in memory (re-attach), or claimed by a call whose answer was lost (run it).
    Mine(Claimed),
    /// What was decided is written, or nothing had to be: acknowledge.
    Done(Decision),
    /// Another message has this id: dead-letter this one.
    Conflict,
    /// The database refuses this row, and only this: dead-letter it.
    Refused(String),
}

/// The right to run one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its number.
    pub fence: Fence,
    /// The attempt, from 1, among how many, and after how many snoozes.
    pub standing: Standing,
    /// When it was claimed, by the database's clock.
    pub at: DateTime<Utc>,
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleAnswer {
    /// Recorded, now or by an earlier call whose answer was lost.
    Settled,
    /// Another claim has happened since: dropped.
    Fenced,
    /// The database refuses this row, and only this; it was recorded as `failed(internal)` instead.
    Refused,
    /// The database refuses that as well, for this reason: nothing is written. The task is taken over after its hard deadline.
    Unwritten(String),
}

/// The first attempt of a task that was not claimed before it ran: its birth, its run and its end, to be written at once.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What was asked, and what ran it.
    pub arrival: Arrival,
    /// How it ended, under the first fence.
    pub settlement: Settlement,
    /// How long ago the attempt began.
    pub ran: Duration,
}

/// Result of a [`Recording`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordAnswer {
    /// Written.
    Recorded,
    /// Nothing is written: the task has a row that does not wait for its first attempt. The claim table decides.
    Exists,
    /// Nothing is written: the database rejects this row, and only this one.
    Refused(String),
}

/// A task to be submitted.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What is asked.
    pub message: TaskMessage,
    /// Where it goes.
    pub queue: String,
    /// The task that this one repeats.
    pub retry_of: Option<TaskId>,
    /// Attempts in all.
    pub max_attempts: u32,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It has a row.
    Created,
    /// It had one.
    Exists,
    /// Its id belongs to another.
    Conflict,
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// There is no such task.
    Unknown,
    /// It has ended.
    Terminal(State),
    /// It waited and is cancelled.
    Cancelled,
    /// It runs; its owner will end it.
    Requested(HostId),
}

/// A parked row, as it would be delivered.
#[derive(Clone, Debug)]
pub struct ParkedTask {
    /// What is asked.
    pub message: TaskMessage,
    /// Its queue.
    pub queue: String,
}

/// Which parked tasks to read.
#[derive(Clone, Debug, Default)]
pub struct ParkedLook {
    /// Of these plugins: names without requirement.
    pub plugins: Vec<String>,
    /// But for those that ask for one of these, as they ask: with requirement.
    pub except: Vec<String>,
    /// But for those of these queues.
    pub except_queues: Vec<String>,
    /// Those that wait for the isolation lane too.
    pub lane: bool,
    /// Only those behind this position.
    pub after: Option<ParkedCursor>,
    /// Rows at most.
    pub limit: u32,
}

/// Position in the list of parked tasks, which is ordered by priority, highest first, then by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedCursor {
    /// Priority of the task at this position.
    pub priority: std::cmp::Reverse<i64>,
    /// Its creation time.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: TaskId,
}

/// Parked tasks as read.
#[derive(Clone, Debug, Default)]
pub struct Parked {
    /// Those that may be run.
    pub tasks: Vec<ParkedTask>,
    /// Those whose rows this build cannot read.
    pub unread: Vec<Unread>,
    /// Position of the last row that was read, if more may be behind it.
    pub last: Option<ParkedCursor>,
}

/// A task whose row this build cannot read: a newer one wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The task.
    pub id: TaskId,
    /// What does not read.
    pub reason: String,
}

/// The next duty of the database, and the last change by operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time until [`Db::wake_due`](super::Db::wake_due) or [`Db::fail_expired`](super::Db::fail_expired) has anything to do; `None`: no task
    /// waits for a time.
    pub within: Option<Duration>,
    /// The number of the last change of brakes; `None`: not looked at. Only this process changes those of its own file.
    pub brakes: Option<i64>,
}

/// How long terminal rows are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retention {
    /// `completed`.
    pub completed: Duration,
    /// `failed` and `cancelled`.
    pub failed: Duration,
    /// Dead letters.
    pub dead: Duration,
    /// Recorded changes by operators.
    pub audit: Duration,
}
