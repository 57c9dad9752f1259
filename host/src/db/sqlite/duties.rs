//! What must happen even if nobody asks.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{Known, Locked, Write, bounded};
use super::super::rows;
use super::hosts;
use super::many::json_ids;
use super::outgoing::Outgoing;
use super::transition::{begin, locked, read_locked, write};
use crate::task::{TaskId, claim};
use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};
use std::time::Duration;

statements! {
    DUE = locked!("WHERE t.state IN ('scheduled', 'retrying') AND t.run_at <= ?1", readable!(), "ORDER BY t.run_at LIMIT ?2");
    /// Here and below, the index is named: SQLite takes that of all that wait.
    EXPIRED = locked!("WHERE t.id IN (SELECT t.id FROM tasks AS t INDEXED BY tasks_expiring
        WHERE t.state IN ('scheduled', 'pending', 'retrying') AND t.deadline IS NOT NULL AND t.deadline <= ?1", readable!(),
        "ORDER BY t.deadline LIMIT ?2)");
    /// Those whose end was asked for while they ran, and that wait again.
    CALLED_OFF = locked!("WHERE ?1 IS NOT NULL AND t.id IN (SELECT t.id FROM tasks AS t INDEXED BY tasks_called_off
        WHERE t.cancel_requested AND t.state IN ('scheduled', 'pending', 'retrying')", readable!(), "LIMIT ?2)");
    /// What is waited for in vain, perhaps: which versions will do is not for SQL to say.
    /// Each is looked for behind the last one, so that one row of each is read and not all that wait.
    WAITED_FOR = "WITH RECURSIVE asked(plugin) AS (
        SELECT min(plugin) FROM tasks WHERE state = 'pending' AND waiting_code IN ('no_plugin', 'plugin_broken')
        UNION ALL
        SELECT (SELECT min(t.plugin) FROM tasks t WHERE t.state = 'pending' AND t.waiting_code IN ('no_plugin', 'plugin_broken')
            AND t.plugin > a.plugin) FROM asked a WHERE a.plugin IS NOT NULL
    )
    SELECT plugin FROM asked WHERE plugin IS NOT NULL";
    UNKNOWN = locked!("WHERE t.state = 'pending' AND t.waiting_code IN ('no_plugin', 'plugin_broken') AND t.waiting_since <= ?3
        AND t.plugin IN (SELECT value FROM json_each(?4))
        AND NOT EXISTS (SELECT 1 FROM brakes b WHERE (b.kind = 'queue' AND b.target = t.queue
                OR b.kind = 'plugin' AND (b.target = t.plugin_name OR b.target LIKE t.plugin_name || '@%'))
            AND (b.released_at IS NULL OR b.released_at > ?3))", readable!(), "LIMIT ?2");
    /// Rows of lost owners: their message may be gone, acknowledged by a host that saw them owned. In a paused queue it waits: a further one
    /// each time would fill the queue.
    LOST = "SELECT t.id FROM tasks t LEFT JOIN hosts h ON h.id = t.owner
        WHERE t.state = 'running' AND (h.id IS NULL OR h.lease_until <= ?1 AND (h.ended OR ?4)
                OR ?4 AND t.kill_at > t.started_at AND t.kill_at <= ?1)
            AND (t.rescued_at IS NULL OR t.rescued_at <= ?3 AND NOT EXISTS (SELECT 1 FROM brakes b
                WHERE b.kind = 'queue' AND b.target = t.queue AND b.released_at IS NULL)) LIMIT ?2";
    RESCUED = "UPDATE tasks SET rescued_at = ?2 WHERE id IN (SELECT value FROM json_each(?1))";
}

pub(super) async fn wake_due(
    connection: &mut SqliteConnection,
    limit: u32,
    outgoing: &mut Outgoing,
) -> Result<u64, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let rows = query(DUE).bind(stamp(now)).bind(limit).fetch_all(&mut *tx).await?;
    let ids = apply(&mut tx, &rows, now, Write::wake).await?;
    let mut sent = outgoing.begin();
    sent.enqueue(&mut tx, &ids, now).await?;
    tx.commit().await?;
    outgoing.end(sent);
    Ok(ids.len() as u64)
}

pub(super) async fn fail_expired(connection: &mut SqliteConnection, limit: u32) -> Result<u64, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let rows = query(EXPIRED).bind(stamp(now)).bind(limit).fetch_all(&mut *tx).await?;
    let fail = |row: &Locked| Write::fail(row, &claim::expiry(row.row.deadline), None);
    let expired = apply(&mut tx, &rows, now, fail).await?;
    let rows = query(CALLED_OFF).bind(stamp(now)).bind(limit).fetch_all(&mut *tx).await?;
    let cancelled = apply(&mut tx, &rows, now, Write::cancel).await?;
    tx.commit().await?;
    Ok((expired.len() + cancelled.len()) as u64)
}

pub(super) async fn fail_unknown(connection: &mut SqliteConnection, grace: Duration, limit: u32) -> Result<u64, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let since = now - bounded(grace);
    let known = Known::since(&hosts::list(&mut tx).await?, since);
    let waited_for = query(WAITED_FOR).fetch_all(&mut *tx).await?;
    let mut lacked: Vec<String> =
        waited_for.iter().map(|row| need(row.text("plugin")?, "plugin")).collect::<Result<_, _>>()?;
    lacked.retain(|plugin| known.lacks(plugin));
    let rows = query(UNKNOWN)
        .bind(stamp(now))
        .bind(limit)
        .bind(stamp(since))
        .bind(serde_json::Value::from(lacked).to_string())
        .fetch_all(&mut *tx)
        .await?;
    let fail = |row: &Locked| Write::fail(row, &known.failure(&row.plugin), None);
    let ids = apply(&mut tx, &rows, now, fail).await?;
    tx.commit().await?;
    Ok(ids.len() as u64)
}

pub(super) async fn rescue(
    connection: &mut SqliteConnection,
    steady: bool,
    again: Duration,
    limit: u32,
    outgoing: &mut Outgoing,
) -> Result<u64, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let again = stamp(now - bounded(again));
    let rows = query(LOST).bind(stamp(now)).bind(limit).bind(again).bind(steady).fetch_all(&mut *tx).await?;
    let ids = rows.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<Vec<TaskId>, _>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    query(RESCUED).bind(json_ids(ids.iter().copied())).bind(stamp(now)).execute(&mut *tx).await?;
    let mut sent = outgoing.begin();
    sent.enqueue(&mut tx, &ids, now).await?;
    tx.commit().await?;
    outgoing.end(sent);
    Ok(ids.len() as u64)
}

/// Change rows that were read in this transaction, and return their ids.
async fn apply(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
    now: DateTime<Utc>,
    change: impl Fn(&Locked) -> Result<Write, Fault>,
) -> Result<Vec<TaskId>, Fault> {
    let writes = rows::readable(rows, |row| change(&read_locked(row)?))?;
    write(connection, &writes, now).await?;
    Ok(writes.iter().map(|write| write.id).collect())
}
