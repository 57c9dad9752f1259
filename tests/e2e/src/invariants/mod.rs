//! What must hold whenever everything is at rest, whatever happened before: I1 to I8, said once.
//!
//! ```text
//! read ─▶ World ─▶ violations      database, broker and the guests' ledger; plain data; a pure function
//!   hold    at the end of a scenario
//!   chaos   at the end of a run
//! ```

mod judge;
mod read;
#[cfg(test)]
mod tests;
mod world;

pub use judge::violations;
pub use read::{ends, nothing_on_its_way, world};
pub use world::{Attempt, End, Ends, Event, Host, Row, World};

use uuid::Uuid;

use crate::daemon::Daemon;
use crate::ledger::Ledger;
use crate::site::Site;

/// What a scenario expects of the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Dead letters.
    pub dead_letters: usize,
    /// Runs that a killed daemon may have cost each task.
    pub take_overs: usize,
    /// Tasks that kill the process that they run in, and end for it.
    pub host_lost: usize,
    /// Whether every task is honest, and so completes.
    pub all_complete: bool,
}

/// What a scenario has kept, beyond what stands in database and broker in the end.
#[derive(Clone, Copy, Default)]
pub struct Kept<'a> {
    /// What guests wrote down themselves.
    pub ledger: Option<&'a Ledger>,
    /// How tasks had ended at an earlier moment.
    pub ends: Option<&'a Ends>,
}

/// Checks, and stops the daemon, which must end cleanly. `ids` are all tasks there are.
pub async fn hold(site: &Site, daemon: Daemon, ids: &[Uuid], expected: Expected) {
    hold_with(site, daemon, ids, expected, Kept::default()).await;
}

/// The same, with what was kept.
pub async fn hold_with(site: &Site, daemon: Daemon, ids: &[Uuid], expected: Expected, kept: Kept<'_>) {
    site.at_rest(ids).await;
    let database = site.database().await;
    nothing_on_its_way(site, &database).await;
    // What has ended stays as it is from now on at the latest, also while the daemon ends.
    let mut earlier = ends(&database).await.expect("the database answers");
    earlier.extend(kept.ends.cloned().unwrap_or_default());
    // Once nobody holds messages, those that were never acknowledged are ready again.
    daemon.stop().await;
    let mut world = world(site, &database).await;
    if let Some(ledger) = kept.ledger {
        world.read(ledger);
    }
    world.promised = ids.iter().copied().collect();
    (world.earlier, world.expected) = (earlier, expected);
    let broken = violations(&world);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
