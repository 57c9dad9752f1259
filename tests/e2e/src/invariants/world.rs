//! What there is when all is at rest, as plain data: whatever the invariants are about, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Expected;
use crate::database::DeadLetter;
use crate::ledger::Ledger;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The table of tasks.
    pub rows: BTreeMap<Uuid, Row>,
    /// What happened to each, in order.
    pub histories: BTreeMap<Uuid, Vec<Event>>,
    /// Attempts that ended, of each.
    pub attempts: BTreeMap<Uuid, Vec<Attempt>>,
    /// Every process that ever had a lease.
    pub hosts: BTreeMap<Uuid, Host>,
    /// Rows that are still to be published.
    pub outbox: u64,
    /// What was put aside, by the database.
    pub dead: Vec<DeadLetter>,
    /// The same by the broker: each letter's reason. `None`: it was not asked.
    pub wire: Option<Vec<String>>,
    /// What is left in each queue, unacknowledged or not; `Err`: it cannot be looked at.
    pub queues: BTreeMap<String, Result<u32, String>>,
    /// Each time that a guest began, by its own account: task and attempt. `None`: nobody wrote it down.
    pub ledger: Option<Vec<(Uuid, u32)>>,
    /// By the same account, tasks of which an attempt began without a claim.
    pub unclaimed: BTreeSet<Uuid>,
    /// How some tasks had ended, when they were looked at earlier.
    pub earlier: Ends,
    /// Every task that was promised: its publish was confirmed, or its request answered.
    pub promised: BTreeSet<Uuid>,
    /// What else is known of this run.
    pub expected: Expected,
}

/// A row of `tasks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What of it never changes, once it has ended.
    pub end: End,
    /// Why it failed, if it did: the kind.
    pub failure: String,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Attempts used up.
    pub burnt: u32,
    /// The last attempt's number.
    pub attempt: u32,
    /// Hosts that were lost while they ran it, as far as they are counted.
    pub host_losses: u32,
    /// Processes that died of it alone.
    pub child_losses: u32,
    /// The last claim's.
    pub fence: i64,
    /// The last claim's host.
    pub owner: Option<Uuid>,
}

/// How a task stands; for good, if that is terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its state.
    pub state: String,
    /// Its output, or a hash of it.
    pub output: String,
    /// When, as the database wrote it.
    pub finished_at: String,
    /// The length of its history.
    pub last_seq: i64,
}

/// How tasks had ended at some moment.
pub type Ends = BTreeMap<Uuid, End>;

/// A row of `task_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its place, from 1.
    pub seq: i64,
    /// What happened.
    pub event: String,
    /// Which attempt it belongs to.
    pub attempt: Option<u32>,
    /// Which claim.
    pub fence: Option<i64>,
    /// Who did it.
    pub host: Option<Uuid>,
}

impl Event {
    /// Whether an attempt begins with it.
    pub fn is_claim(&self) -> bool {
        matches!(self.event.as_str(), "running" | "taken_over")
    }
}

/// A row of `task_attempts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its claim's.
    pub fence: i64,
    /// Who made it.
    pub host: Uuid,
    /// How it ended.
    pub ended: String,
}

/// A row of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `agentry/BUILD/HOST/PID`.
    pub name: String,
    /// Its lease lasts.
    pub is_alive: bool,
}

impl World {
    /// Take in what guests wrote down, under a claim and without one.
    pub fn read(&mut self, ledger: &Ledger) {
        let (claimed, unclaimed): (Vec<_>, Vec<_>) = ledger.lines().into_iter().partition(|(.., claimed)| *claimed);
        self.ledger = Some(claimed.into_iter().map(|(id, attempt, _)| (id, attempt)).collect());
        self.unclaimed = unclaimed.into_iter().map(|(id, ..)| id).collect();
    }

    /// How many events of this name there are, over all tasks.
    pub fn events(&self, name: &str) -> usize {
        self.histories.values().flatten().filter(|event| event.event == name).count()
    }
}
