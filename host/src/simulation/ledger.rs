//! What guests did, told by themselves: neither database nor broker has a part in it.

use crate::task::{HostId, TaskId};

/// One beginning of a guest.
#[derive(Clone, Debug)]
pub struct Run {
    /// The task.
    pub id: TaskId,
    /// The attempt that its host believes it to be.
    pub attempt: u32,
    /// Where.
    pub host: HostId,
    /// Its plugin has no effects.
    pub pure: bool,
    /// It began under a claim of its host.
    pub claimed: bool,
    /// The task had ended already when it began.
    pub after_the_end: bool,
    /// It came to its own end, whatever became of that.
    pub ended: bool,
}

/// All of them, in order.
#[derive(Default)]
pub struct Ledger(pub Vec<Run>);

impl Ledger {
    /// How often a task began.
    pub fn of(&self, id: TaskId) -> usize {
        self.0.iter().filter(|run| run.id == id).count()
    }
}
