//! Tasks that wait now, as a bounded look finds them.

use crate::task::{TaskId, WaitCode};
use chrono::{DateTime, Utc};

/// The most that a look for waiting tasks reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingLook {
    /// Of the tasks that wait, oldest first; and of the outbox, first due first.
    pub rows: u32,
    /// Plugins for which tasks are parked.
    pub plugins: u32,
    /// Of each such plugin's tasks, in the order in which they run.
    pub of_plugin: u32,
    /// Rows of the outbox that are counted.
    pub outbox: u32,
}

impl Default for WaitingLook {
    /// A few milliseconds of the database's time, whatever it holds.
    fn default() -> WaitingLook {
        WaitingLook { rows: 1_000, plugins: 100, of_plugin: 10, outbox: 10_000 }
    }
}

/// A task that is due and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingTask {
    /// The task.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// What it waits for, as its row says.
    pub code: WaitCode,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Tasks that are due and wait, as far as the look reached.
#[derive(Clone, Debug, Default)]
pub struct WaitingNow {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Each once, in no order. Rows that this build cannot read are left out.
    pub tasks: Vec<WaitingTask>,
    /// Rows of the outbox, as far as they are counted.
    pub outbox: u64,
    /// When the first of them was or will be due.
    pub outbox_due: Option<DateTime<Utc>>,
}

/// Connections of one use of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// Their use.
    pub name: &'static str,
    /// The most that may be open.
    pub max: u32,
    /// Open.
    pub open: u32,
    /// Of these, in use.
    pub used: u32,
    /// Operations that wait for one.
    pub waiting: u32,
}
