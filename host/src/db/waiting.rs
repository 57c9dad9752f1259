//! Rows of a look for waiting tasks, alike from both databases.

use super::cells::{Cells, need};
use super::fault::Fault;
use super::{WaitingNow, WaitingTask, rows};
use crate::task::WaitCode;
use chrono::{DateTime, Utc};

/// `outbox` has the columns `due` and `counted`; each row of `found` those by which a task says why it waits.
pub(super) fn collect<R: Cells>(now: DateTime<Utc>, outbox: &R, found: &[R]) -> Result<WaitingNow, Fault> {
    let tasks = rows::readable(found, |row| task(row).map_err(Fault::of_row))?;
    Ok(WaitingNow {
        now,
        tasks: tasks.into_iter().flatten().collect(),
        outbox: need(outbox.int("counted")?, "counted")?.unsigned_abs(),
        outbox_due: outbox.time("due")?,
    })
}

/// A task that waits and does not wait for a time.
fn task(row: &impl Cells) -> Result<Option<WaitingTask>, Fault> {
    let waiting = rows::waiting(row)?
        .filter(|waiting| !matches!(waiting.code, WaitCode::Scheduled | WaitCode::Snoozed | WaitCode::Backoff));
    let Some(waiting) = waiting else { return Ok(None) };
    Ok(Some(WaitingTask {
        id: need(row.id("id")?, "id")?,
        queue: need(row.text("queue")?, "queue")?,
        code: waiting.code,
        since: waiting.since,
    }))
}
