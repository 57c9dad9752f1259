//! Facts about the database itself, for an operator.

use super::SchemaVersion;
use crate::task::HostId;
use chrono::{DateTime, Utc};

/// The server, or the library that stands for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Product and version.
    pub version: String,
    /// Encoding of the database.
    pub encoding: String,
    /// The connection is encrypted; `None`: there is no connection over a network.
    pub tls: Option<bool>,
    /// It takes no writes: a standby, or one that was set so.
    pub read_only: bool,
    /// Name of the database, or its file.
    pub database: String,
    /// User of the connection; empty: there is none.
    pub role: String,
}

/// The schema against this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaFacts {
    /// The version that was applied last; 0: none.
    pub found: SchemaVersion,
    /// The newest that this build knows.
    pub known: SchemaVersion,
}

/// Connections to a server, and its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// All client connections of the server.
    pub used: i64,
    /// Those of this user.
    pub used_by_role: i64,
    /// Those to this database.
    pub used_by_database: i64,
    /// `max_connections` without those reserved for superusers.
    pub of_server: i64,
    /// `CONNECTION LIMIT` of the user; `None`: no limit.
    pub of_role: Option<i64>,
    /// `CONNECTION LIMIT` of the database; `None`: no limit.
    pub of_database: Option<i64>,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableFacts {
    /// Its name.
    pub table: String,
    /// Rows: an estimate of Postgres (-1: never analysed); counted in SQLite.
    pub rows: i64,
    /// Bytes of the table without its indexes.
    pub bytes: i64,
    /// Bytes of its indexes.
    pub index_bytes: i64,
    /// Rows that no vacuum has freed yet; `None`: the database has none.
    pub dead: Option<i64>,
    /// The last vacuum, automatic or not.
    pub vacuumed_at: Option<DateTime<Utc>>,
}

/// Something that holds back vacuum: rows that were deleted since then stay in their tables.
#[derive(Clone, Debug, PartialEq)]
pub struct HolderFacts {
    /// `session`, `prepared transaction` or `replication slot`.
    pub kind: String,
    /// Process, global identifier or slot.
    pub name: String,
    /// Application and state, for a person.
    pub detail: String,
    /// Age in seconds; `None`: the server does not record it.
    pub age_seconds: Option<i64>,
}

/// Tasks that wait for one reason, among the oldest.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingFacts {
    /// A code of `waiting_for`; `pending`: a message waits in the queue. Those with a time to wait for are listed once it has passed.
    pub code: String,
    /// Start of the longest wait; of a task with a time, that time.
    pub since: DateTime<Utc>,
    /// Tasks among those that were looked at.
    pub tasks: i64,
}

/// Running tasks of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningFacts {
    /// The owner.
    pub host: HostId,
    /// Its running tasks.
    pub tasks: i64,
}

/// Dead letters that are recorded and not yet published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LetterFacts {
    /// How many, at most 1,000 are counted.
    pub unpublished: i64,
    /// The time of the oldest of them.
    pub oldest: Option<DateTime<Utc>>,
}

/// The file of an embedded database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of it that are free for new rows.
    pub free_bytes: u64,
    /// Bytes of the log beside it.
    pub log_bytes: u64,
}
