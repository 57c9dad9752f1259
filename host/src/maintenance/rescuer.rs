//! The rescuer: a task is orphaned if and only if it is `running` and its owner's lease has ended, or has lapsed, or its attempt
//! is past its hard deadline (a host that renews while it is wedged). It is published again; whoever claims it takes it over
//! under a new fence, and the old owner, should it wake, is fenced.

use super::{BATCH, Parts, sweep};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(1);
/// Of so many sweeps, one is thorough. A host that is wedged past the deadline of an attempt is noticed as late as that.
const THOROUGH: u32 = 10;

/// Publish orphans until told to end; each again after a lease time, should nobody have been able to take it over.
pub async fn run(parts: Parts, again: Duration, closing: CancellationToken) {
    let sweeps = AtomicU32::new(0);
    let rescue = async || {
        let thorough = sweeps.load(Ordering::Relaxed).is_multiple_of(THOROUGH);
        let rescued = parts.db.rescue((parts.steady)(), again, thorough, BATCH).await?;
        // One that was full, or that failed, is repeated as it is.
        if rescued < u64::from(BATCH) {
            sweeps.fetch_add(1, Ordering::Relaxed);
        }
        parts.metrics.swept("rescuer", rescued);
        if rescued > 0 {
            tracing::warn!(rescued, "tasks whose host is gone: published again");
            parts.outbox.notify_one();
        }
        Ok(rescued)
    };
    sweep("rescuer", LOOK, &closing, rescue).await;
}
