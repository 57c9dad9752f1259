//! Brakes of operators, and the record of what operators changed.

use crate::task::TaskId;
use chrono::{DateTime, Utc};

/// The actor of a command that works on the database itself.
pub const LOCAL: &str = "local";

/// The kind of thing that a brake holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrakeKind {
    /// A logical queue: its tasks do not begin.
    Queue,
    /// A plugin, or one version of it: its tasks wait in the database.
    Plugin,
    /// A host: it begins no task.
    Host,
}

impl BrakeKind {
    /// Every kind.
    pub const ALL: [BrakeKind; 3] = [BrakeKind::Queue, BrakeKind::Plugin, BrakeKind::Host];

    /// The stable text form.
    pub fn as_str(self) -> &'static str {
        match self {
            BrakeKind::Queue => "queue",
            BrakeKind::Plugin => "plugin",
            BrakeKind::Host => "host",
        }
    }

    /// The kind of that text form.
    pub fn parse(text: &str) -> Option<BrakeKind> {
        BrakeKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The action of the audit table that sets it, and the one that releases it.
    pub fn actions(self) -> (&'static str, &'static str) {
        match self {
            BrakeKind::Queue => ("queue.pause", "queue.resume"),
            BrakeKind::Plugin => ("plugin.disable", "plugin.enable"),
            BrakeKind::Host => ("host.drain", "host.undrain"),
        }
    }
}

/// A brake that holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Brake {
    /// Its kind.
    pub kind: BrakeKind,
    /// A queue; `NAME` or `NAME@VERSION` of a plugin; the id of a host.
    pub target: String,
    /// The name of the token with which it was set, or [`LOCAL`].
    pub by: String,
    /// The reason that was given.
    pub reason: Option<String>,
    /// When it was set.
    pub since: DateTime<Utc>,
}

impl Brake {
    /// Whether it is the brake of this target.
    pub fn is_of(&self, kind: BrakeKind, target: &str) -> bool {
        self.kind == kind && self.target == target
    }

    /// The command that releases it.
    pub fn remedy(&self) -> String {
        let verb = match self.kind {
            BrakeKind::Queue => "queue resume",
            BrakeKind::Plugin => "plugin enable",
            BrakeKind::Host => "host undrain",
        };
        format!("agentry {verb} {}", self.target)
    }
}

/// The brakes that hold, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brakes {
    /// The number of the last change; 0: no brake was ever set.
    pub change: i64,
    /// By kind and target.
    pub held: Vec<Brake>,
}

impl Brakes {
    fn of(&self, kind: BrakeKind) -> impl Iterator<Item = &Brake> {
        self.held.iter().filter(move |brake| brake.kind == kind)
    }

    /// The brake of a queue.
    pub fn queue(&self, queue: &str) -> Option<&Brake> {
        self.of(BrakeKind::Queue).find(|brake| brake.target == queue)
    }

    /// The brake of a plugin in all its versions.
    pub fn plugin(&self, name: &str) -> Option<&Brake> {
        self.of(BrakeKind::Plugin).find(|brake| brake.target == name)
    }

    /// The brake of a version of a plugin: of that version, or of all.
    pub fn version(&self, name: &str, version: &str) -> Option<&Brake> {
        let names = |target: &str| target.split_once('@').is_some_and(|braked| braked == (name, version));
        self.plugin(name).or_else(|| self.of(BrakeKind::Plugin).find(|brake| names(&brake.target)))
    }

    /// The brake of a host.
    pub fn host(&self, host: crate::task::HostId) -> Option<&Brake> {
        let id = host.to_string();
        self.of(BrakeKind::Host).find(|brake| brake.target == id)
    }

    /// How many of a kind hold.
    pub fn count(&self, kind: BrakeKind) -> usize {
        self.of(kind).count()
    }
}

/// Changes by operators that concern a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Running tasks of this host that are to end.
    pub to_end: Vec<TaskId>,
    /// The brakes that hold.
    pub brakes: Brakes,
}

/// A brake that is to be set or released.
#[derive(Clone, Debug)]
pub struct BrakeChange {
    /// Its kind.
    pub kind: BrakeKind,
    /// Its target; see [`Brake::target`].
    pub target: String,
    /// Set it; otherwise release it.
    pub set: bool,
    /// The name of the token with which it is asked for, or [`LOCAL`].
    pub by: String,
    /// The reason that was given.
    pub reason: Option<String>,
}

/// Result of a [`BrakeChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrakeAnswer {
    /// Whether anything was written.
    pub changed: bool,
    /// The brakes that hold now.
    pub brakes: Brakes,
}

/// A change by an operator, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The name of a token, or [`LOCAL`].
    pub actor: String,
    /// A stable word, such as `task.cancel`.
    pub action: String,
    /// The id of a task, the name of a queue …
    pub target: String,
    /// How many were meant, where that is known beforehand.
    pub count: Option<i64>,
    /// The reason that was given.
    pub reason: Option<String>,
}

/// A recorded change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Change)]
pub struct AuditRow {
    /// Its number.
    pub id: i64,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// The name of a token, or [`LOCAL`].
    pub actor: String,
    /// A stable word.
    pub action: String,
    /// The id of a task, the name of a queue …
    pub target: String,
    /// How many were meant, where that was known beforehand.
    pub count: Option<i64>,
    /// The reason that was given.
    pub reason: Option<String>,
}

/// A selection of recorded changes.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this action.
    pub action: Option<String>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only from then on.
    pub since: Option<DateTime<Utc>>,
    /// Only below this number: the cursor of the page.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Tasks that wait, by queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingByQueue {
    /// Queue, and how many of its tasks are scheduled, pending or retrying.
    pub queues: Vec<(String, i64)>,
    /// More wait than were counted.
    pub more: bool,
}
