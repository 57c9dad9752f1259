//! Tasks that a relay published, and whose messages the host that received them cannot use. They are few, and taken one by one.

use super::super::fault::Fault;
use super::super::plan::Write;
use super::super::{Claimant, Unusable, UnusableAnswer};
use super::claim::{LOCK, clock};
use super::hosts::interval;
use super::transition::{with_leases, write};
use sqlx::{Connection, PgConnection, query};
use std::time::Duration;

statements! {
    /// A row that is there already is made anew: its holder may be about to delete it for the publication that was received.
    AGAIN = "INSERT INTO outbox (task_id, created_at, due_at)
        SELECT id, clock_timestamp(), clock_timestamp() + $2::interval FROM tasks
        WHERE id = $1 AND state NOT IN ('completed', 'failed', 'cancelled')
        ON CONFLICT (task_id) DO UPDATE SET due_at = EXCLUDED.due_at, token = NULL, reason = NULL, deferred = 0";
}

pub(super) async fn park(
    connection: &mut PgConnection,
    me: Claimant,
    tasks: &[Unusable],
    again: Duration,
) -> Result<Vec<UnusableAnswer>, Fault> {
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(match park_one(connection, me, task).await {
            Err(fault) if fault.is_about_data() => {
                query(AGAIN).bind(task.id).bind(interval(again)).execute(&mut *connection).await?;
                UnusableAnswer::Later(fault.reason())
            }
            other => other?,
        });
    }
    Ok(answers)
}

async fn park_one(connection: &mut PgConnection, me: Claimant, task: &Unusable) -> Result<UnusableAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let rows = query(LOCK).bind(vec![task.id]).fetch_all(&mut *tx).await?;
    let locked = with_leases(&mut tx, &rows, me).await?;
    let Some(locked) = locked.first() else { return Ok(UnusableAnswer::Unknown) };
    let now = clock(&mut tx).await?;
    if let Some(change) = Write::of_unusable(locked, task, me.host, now)? {
        write(&mut tx, &[change]).await?;
    }
    tx.commit().await?;
    Ok(UnusableAnswer::Kept)
}
