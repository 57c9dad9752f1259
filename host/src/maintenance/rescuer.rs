//! The rescuer: a task is orphaned if and only if it is `running` and its owner's lease has ended, or has lapsed, or its attempt
//! is past its hard deadline (a host that renews while it is wedged). It is published again; whoever claims it takes it over
//! under a new fence, and the old owner, should it wake, is fenced.

use super::{BATCH, Parts, sweep};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(1);

/// Publish orphans until told to end; each again after a lease time, should nobody have been able to take it over.
pub async fn run(parts: Parts, again: Duration, closing: CancellationToken) {
    let rescue = async || {
        let rescued = parts.db.rescue((parts.steady)(), again, BATCH).await?;
        if rescued > 0 {
            tracing::warn!(rescued, "tasks whose host is gone: published again");
            parts.outbox.notify_one();
        }
        Ok(rescued)
    };
    sweep("rescuer", LOOK, &closing, rescue).await;
}
