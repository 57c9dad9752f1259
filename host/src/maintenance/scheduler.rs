//! The scheduler: a task is due if and only if it is `scheduled` or `retrying` and its `run_at` has passed.

use super::{BATCH, Parts, sweep};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How late a due task may be noticed.
const LOOK: Duration = Duration::from_millis(200);
/// The same while no task waits for a time that is nearer. This process is notified of those that it writes itself, and each of
/// the other hosts looks for its own.
const AT_REST: Duration = Duration::from_secs(1);

/// Wake what is due and fail what is overdue, until told to end.
pub async fn run(parts: Parts, closing: CancellationToken) {
    let db = &*parts.db;
    let at_rest = AtomicBool::new(false);
    let wake = async || {
        if at_rest.load(Ordering::Relaxed) {
            rest(db.waiting_written(), &closing).await;
        }
        let due = db.next_due().await?;
        if due.brakes.is_some_and(|change| change != parts.brakes.now().change) {
            parts.brakes.look();
        }
        let next = due.within;
        at_rest.store(next.is_none_or(|time| time > AT_REST), Ordering::Relaxed);
        if next.is_none_or(|time| !time.is_zero()) {
            return Ok(0);
        }
        let woken = db.wake_due(BATCH).await?;
        parts.metrics.swept("scheduler", woken);
        if woken > 0 {
            parts.outbox.notify_one();
        }
        let expired = db.fail_expired(BATCH).await?;
        parts.metrics.swept("expiry", expired);
        Ok(woken.max(expired))
    };
    sweep("scheduler", LOOK, &closing, wake).await;
}

/// Waits until something may have been written that waits, and no longer than [`AT_REST`] with the pause between two sweeps.
async fn rest(written: Option<&Notify>, closing: &CancellationToken) {
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = async {
            match written {
                Some(written) => written.notified().await,
                None => std::future::pending().await,
            }
        } => {}
        () = tokio::time::sleep(AT_REST.saturating_sub(LOOK)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rest_ends_with_a_written_task_with_the_shutdown_and_by_itself() {
        let (written, closing, began) = (Notify::new(), CancellationToken::new(), Instant::now());
        written.notify_one();
        rest(Some(&written), &closing).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        rest(Some(&written), &closing).await;
        assert_eq!(began.elapsed(), AT_REST - LOOK);
        rest(None, &closing).await;
        assert_eq!(began.elapsed(), 2 * (AT_REST - LOOK));
        closing.cancel();
        rest(None, &closing).await;
        assert_eq!(began.elapsed(), 2 * (AT_REST - LOOK));
    }
}
