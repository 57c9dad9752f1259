//! The brakes that this process heeds: a copy in memory of those that operators have set in the database.
//!
//! The keeper of the lease looks for news while tasks run, and when it is asked to: by the scheduler, whose look at what is due sees that something was
//! changed, and by the API. While the database is away those that were applied last
//! hold. The path of a task asks [`InForce::any`] first, which costs nothing while no brake is set.

use crate::db::{Brake, Brakes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, watch};

/// The brakes of one process. A clone is the same.
#[derive(Clone, Default)]
pub struct InForce(Arc<Inner>);

#[derive(Default)]
struct Inner {
    any: AtomicBool,
    now: watch::Sender<Arc<Brakes>>,
    asked: Notify,
}

impl InForce {
    /// Whether any brake holds.
    pub fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// The brakes that hold.
    pub fn now(&self) -> Arc<Brakes> {
        self.0.now.borrow().clone()
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<Arc<Brakes>> {
        self.0.now.subscribe()
    }

    /// These hold now. Brakes of an earlier change than those that are known are an answer that was overtaken.
    pub fn apply(&self, brakes: Brakes) {
        self.0.now.send_if_modified(|now| {
            if brakes.change < now.change || **now == brakes {
                return false;
            }
            for brake in brakes.held.iter().filter(|brake| !now.held.contains(brake)) {
                let Brake { kind, target, by, reason, .. } = brake;
                tracing::warn!(kind = kind.as_str(), name = target, by, reason, "a brake holds");
            }
            let is_gone = |brake: &&Brake| brakes.held.iter().all(|held| !held.is_of(brake.kind, &brake.target));
            for Brake { kind, target, .. } in now.held.iter().filter(is_gone) {
                tracing::info!(kind = kind.as_str(), name = target, "a brake is released");
            }
            self.0.any.store(!brakes.held.is_empty(), Ordering::Release);
            *now = Arc::new(brakes);
            true
        });
    }

    /// Ask for a look at the database now.
    pub fn look(&self) {
        self.0.asked.notify_one();
    }

    /// Returns once a look was asked for.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::BrakeKind;

    fn brakes(change: i64, queues: &[&str]) -> Brakes {
        let held = queues.iter().map(|queue| Brake {
            kind: BrakeKind::Queue,
            target: (*queue).into(),
            by: "ops".into(),
            reason: None,
            since: chrono::DateTime::UNIX_EPOCH,
        });
        Brakes { change, held: held.collect() }
    }

    #[test]
    fn answer_that_was_overtaken_changes_nothing() {
        let force = InForce::default();
        let mut changes = force.changes();
        assert!(!force.any());
        force.apply(brakes(2, &["a"]));
        assert!(force.any() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        force.apply(brakes(1, &[]));
        force.apply(brakes(2, &["a"]));
        assert!(force.any() && !changes.has_changed().unwrap(), "neither is news");
        force.apply(brakes(3, &[]));
        assert!(!force.any() && force.now().queue("a").is_none());
    }
}
