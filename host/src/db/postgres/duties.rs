//! What must happen even if nobody asks. Rows that another process is at are skipped: it sees to them.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{Known, Locked, Write, bounded};
use super::super::{Due, rows};
use super::hosts::{self, interval};
use super::transition::{locked, write};
use crate::task::claim;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, query};
use std::time::Duration;

/// Puts rows of lost owners up for a take-over: their message may be gone, acknowledged by a host that saw them owned. In a paused queue it
/// waits: a further one each time would fill the queue.
macro_rules! rescue {
    ($lost:literal) => {
        concat!(
            "WITH lost AS (SELECT t.id ",
            $lost,
            " AND (t.rescued_at IS NULL OR t.rescued_at <= clock_timestamp() - $2::interval
                AND NOT EXISTS (SELECT 1 FROM brakes b WHERE b.kind = 'queue' AND b.target = t.queue AND b.released_at IS NULL))
            LIMIT $1 FOR UPDATE OF t SKIP LOCKED
        ), marked AS (
            UPDATE tasks t SET rescued_at = clock_timestamp() FROM lost WHERE t.id = lost.id RETURNING t.id
        ), queued AS (
            INSERT INTO outbox (task_id, created_at, due_at) SELECT id, clock_timestamp(), clock_timestamp() FROM marked
            ORDER BY id
            ON CONFLICT (task_id) DO UPDATE
                SET due_at = EXCLUDED.due_at, token = NULL, reason = NULL, deferred = 0
        )
        SELECT count(*) AS rescued FROM marked"
        )
    };
}

/// Plugins of one look for those that no host serves, and looks of one call.
const PLUGINS: i64 = 1_000;
const PAGES: usize = 10;

statements! {
    /// The first time at which one of the three below finds a row, the time now, and whether brakes were changed: each host sends it, however
    /// little it has to do.
    NEXT = "SELECT statement_timestamp() AS now, LEAST(
        (SELECT min(run_at) FROM tasks WHERE state IN ('scheduled', 'retrying')),
        (SELECT min(deadline) FROM tasks WHERE state IN ('scheduled', 'pending', 'retrying') AND deadline IS NOT NULL),
        (SELECT statement_timestamp() FROM tasks WHERE cancel_requested AND state IN ('scheduled', 'pending', 'retrying')
            LIMIT 1)) AS due, (SELECT COALESCE(max(change), 0) FROM brakes) AS brakes";
    /// The statement's own time, as in [`prune`](super::prune): what waits for years is not looked at by every sweep.
    DUE = locked!("WHERE t.state IN ('scheduled', 'retrying') AND t.run_at <= statement_timestamp()", readable!(),
        "ORDER BY t.run_at LIMIT $1 FOR UPDATE SKIP LOCKED");
    EXPIRED = locked!("WHERE t.state IN ('scheduled', 'pending', 'retrying') AND t.deadline IS NOT NULL
        AND t.deadline <= statement_timestamp()", readable!(), "ORDER BY t.deadline LIMIT $1 FOR UPDATE SKIP LOCKED");
    /// Those whose end was asked for while they ran, and that wait again.
    CALLED_OFF = locked!("WHERE t.cancel_requested AND t.state IN ('scheduled', 'pending', 'retrying')", readable!(),
        "LIMIT $1 FOR UPDATE SKIP LOCKED");
    /// What is waited for in vain, perhaps: which versions will do is not for SQL to say. Each is looked for behind the last one, so that one
    /// row of each is read and not all that wait.
    WAITED_FOR = "WITH RECURSIVE asked AS (
        (SELECT plugin FROM tasks WHERE state = 'pending' AND waiting_code IN ('no_plugin', 'plugin_broken') AND plugin > $1
            ORDER BY plugin LIMIT 1)
        UNION ALL
        SELECT (SELECT t.plugin FROM tasks t WHERE t.state = 'pending' AND t.waiting_code IN ('no_plugin', 'plugin_broken')
            AND t.plugin > a.plugin ORDER BY t.plugin LIMIT 1) FROM asked a WHERE a.plugin IS NOT NULL
    )
    SELECT plugin FROM asked WHERE plugin IS NOT NULL LIMIT $2";
    UNKNOWN = locked!("WHERE t.state = 'pending' AND t.waiting_code IN ('no_plugin', 'plugin_broken')
        AND t.waiting_since <= statement_timestamp() - $1::interval AND t.plugin = ANY($2)
        AND NOT EXISTS (SELECT FROM brakes b
            WHERE (b.kind = 'queue' AND b.target = t.queue OR b.kind = 'plugin' AND split_part(b.target, '@', 1) = t.plugin_name)
                AND (b.released_at IS NULL OR b.released_at > statement_timestamp() - $1::interval))", readable!(),
        "LIMIT $3 FOR UPDATE SKIP LOCKED");
    /// Of owners that were lost of late, whose tasks are found by them. The tasks of the living are not read.
    RESCUE = rescue!("FROM tasks t WHERE t.state = 'running' AND t.owner = ANY (ARRAY(
            SELECT id FROM hosts WHERE lease_until <= statement_timestamp() AND (ended OR $3)
                AND lease_until > statement_timestamp() - interval '10 minutes'))");
    /// Of all lost owners, those without a row too, and attempts past their hard deadline. Every running task is read, and the index entry of
    /// every one that ran since the oldest snapshot of the database.
    RESCUE_ALL = rescue!("FROM tasks t LEFT JOIN hosts h ON h.id = t.owner
        WHERE t.state = 'running' AND (h.id IS NULL OR h.lease_until <= clock_timestamp() AND (h.ended OR $3)
                OR $3 AND t.kill_at > t.started_at AND t.kill_at <= clock_timestamp())");
}

pub(super) async fn next_due(connection: &mut PgConnection) -> Result<Due, Fault> {
    let row = query(NEXT).fetch_one(connection).await?;
    let now = need(row.time("now")?, "now")?;
    let within = row.time("due")?.map(|due| (due - now).to_std().unwrap_or_default());
    Ok(Due { within, brakes: row.int("brakes")? })
}

pub(super) async fn wake_due(connection: &mut PgConnection, limit: u32) -> Result<u64, Fault> {
    let mut tx = connection.begin().await?;
    let rows = query(DUE).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let count = apply(&mut tx, &rows, Write::wake).await?;
    tx.commit().await?;
    Ok(count)
}

pub(super) async fn fail_expired(connection: &mut PgConnection, limit: u32) -> Result<u64, Fault> {
    let mut tx = connection.begin().await?;
    let rows = query(EXPIRED).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let expired = apply(&mut tx, &rows, |row| Write::fail(row, &claim::expiry(row.row.deadline), None)).await?;
    // A transaction of its own: of one, the outbox rows of both sweeps would not be locked in the order of ids.
    tx.commit().await?;
    let mut tx = connection.begin().await?;
    let rows = query(CALLED_OFF).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let cancelled = apply(&mut tx, &rows, Write::cancel).await?;
    tx.commit().await?;
    Ok(expired + cancelled)
}

/// Looks at the plugins behind `after`, in the order of their names, and fails tasks of those that no host serves. Returns how many failed, and
/// the name behind which the next call is to look; empty: from the beginning.
pub(super) async fn fail_unknown(
    connection: &mut PgConnection,
    grace: Duration,
    limit: u32,
    mut after: String,
) -> Result<(u64, String), Fault> {
    let mut known = None;
    for _ in 0..PAGES {
        let asked = query(WAITED_FOR).bind(&after).bind(PLUGINS).fetch_all(&mut *connection).await?;
        let asked: Vec<String> =
            asked.iter().map(|row| need(row.text("plugin")?, "plugin")).collect::<Result<_, _>>()?;
        let Some(last) = asked.last().cloned() else { return Ok((0, String::new())) };
        let known = match &mut known {
            Some(known) => known,
            none => {
                let since = hosts::clock(connection).await? - bounded(grace);
                none.insert(Known::since(&hosts::list(connection).await?, since))
            }
        };
        let full = asked.len() as i64 == PLUGINS;
        let lacked: Vec<String> = asked.into_iter().filter(|plugin| known.lacks(plugin)).collect();
        let failed = match lacked.is_empty() {
            true => 0,
            false => {
                let mut tx = connection.begin().await?;
                let rows = query(UNKNOWN).bind(interval(grace)).bind(&lacked).bind(i64::from(limit));
                let rows = rows.fetch_all(&mut *tx).await?;
                let failed = apply(&mut tx, &rows, |row| Write::fail(row, &known.failure(&row.plugin), None)).await?;
                tx.commit().await?;
                failed
            }
        };
        if failed > 0 {
            // Of these plugins there may be more.
            return Ok((failed, after));
        }
        if !full {
            return Ok((0, String::new()));
        }
        after = last;
    }
    Ok((0, after))
}

pub(super) async fn rescue(
    connection: &mut PgConnection,
    steady: bool,
    again: Duration,
    thorough: bool,
    limit: u32,
) -> Result<u64, Fault> {
    let again = interval(again);
    let statement = query(if thorough { RESCUE_ALL } else { RESCUE });
    let row = statement.bind(i64::from(limit)).bind(again).bind(steady).fetch_one(connection).await?;
    let count = need(row.int("rescued")?, "rescued")?;
    Ok(count.unsigned_abs())
}

async fn apply(
    connection: &mut PgConnection,
    rows: &[PgRow],
    change: impl Fn(&Locked) -> Result<Write, Fault>,
) -> Result<u64, Fault> {
    let writes = rows::readable(rows, |row| change(&rows::locked(row)?))?;
    write(connection, &writes).await?;
    Ok(writes.len() as u64)
}
