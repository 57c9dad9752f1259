//! Tasks that a relay published, and whose messages this process cannot use. They are few, and taken one by one.

use super::super::cells::stamp;
use super::super::fault::Fault;
use super::super::plan::{Write, bounded};
use super::super::{Claimant, Unusable, UnusableAnswer};
use super::transition::{begin, now, one, write};
use sqlx::{SqliteConnection, query};
use std::time::Duration;

statements! {
    /// Into the outbox also if the queue is in this file: a message there is delivered at once.
    AGAIN = "INSERT INTO outbox (task_id, created_at, due_at)
        SELECT id, ?2, ?3 FROM tasks WHERE id = ?1 AND state NOT IN ('completed', 'failed', 'cancelled')
        ON CONFLICT (task_id) DO UPDATE SET due_at = excluded.due_at, token = NULL, reason = NULL, deferred = 0";
}

pub(super) async fn park(
    connection: &mut SqliteConnection,
    me: Claimant,
    tasks: &[Unusable],
    again: Duration,
) -> Result<Vec<UnusableAnswer>, Fault> {
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(match park_one(connection, me, task).await {
            Err(fault) if fault.is_about_data() => {
                let now = now();
                let queue = query(AGAIN).bind(task.id.hyphenated()).bind(stamp(now)).bind(stamp(now + bounded(again)));
                queue.execute(&mut *connection).await?;
                UnusableAnswer::Later(fault.reason())
            }
            other => other?,
        });
    }
    Ok(answers)
}

async fn park_one(connection: &mut SqliteConnection, me: Claimant, task: &Unusable) -> Result<UnusableAnswer, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let Some(mut locked) = one(&mut tx, task.id, now).await? else { return Ok(UnusableAnswer::Unknown) };
    locked.row.owner_alive = locked.owner_alive(me.steady);
    if let Some(change) = Write::of_unusable(&locked, task, me.host, now)? {
        write(&mut tx, &[change], now).await?;
    }
    tx.commit().await?;
    Ok(UnusableAnswer::Kept)
}
