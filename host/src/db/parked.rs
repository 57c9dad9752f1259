//! Rows of parked tasks, alike from both databases.

use super::cells::{Cells, need};
use super::fault::Fault;
use super::{Parked, ParkedCursor, ParkedTask, rows};
use std::cmp::Reverse;

/// Columns: those of a message, with `priority`, `created_at`, and the number of rows that were `found`.
pub(super) fn read<R: Cells>(rows: &[R], limit: u32) -> Result<Parked, Fault> {
    let mut parked = Parked::default();
    if let Some(last) = rows.last() {
        let found = need(last.int("found")?, "found")?;
        let cursor = ParkedCursor {
            priority: Reverse(need(last.int("priority")?, "priority")?),
            created_at: need(last.time("created_at")?, "created_at")?,
            id: need(last.id("id")?, "id")?,
        };
        parked.last = (found >= i64::from(limit) || found > rows.len() as i64).then_some(cursor);
    }
    for row in rows {
        match rows::message(row) {
            Ok(message) => parked.tasks.push(ParkedTask { message, queue: need(row.text("queue")?, "queue")? }),
            Err(fault) => parked.unread.push(rows::unread(need(row.id("id")?, "id")?, fault)?),
        }
    }
    Ok(parked)
}
