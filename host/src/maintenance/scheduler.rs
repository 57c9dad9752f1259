//! The scheduler: a task is due if and only if it is `scheduled` or `retrying` and its `run_at` has passed.

use super::{BATCH, Parts, sweep};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How late a due task may be noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Wake what is due and fail what is overdue, until told to end.
pub async fn run(parts: Parts, closing: CancellationToken) {
    let wake = async || {
        let woken = parts.db.wake_due(BATCH).await?;
        if woken > 0 {
            parts.outbox.notify_one();
        }
        Ok(woken.max(parts.db.fail_expired(BATCH).await?))
    };
    sweep("scheduler", LOOK, &closing, wake).await;
}
