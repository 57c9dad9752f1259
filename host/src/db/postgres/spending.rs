//! What was spent. Counts are raised first and held against their allowances then: a transaction that spends too much is
//! dropped, and whoever spends of the same waits for the one before.

use super::super::fault::Fault;
use super::super::plan;
use super::super::{Amount, SpendAnswer, SpendScope, Writer, rows};
use super::transition::column;
use crate::task::{Fence, TaskId};
use chrono::NaiveDate;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row, query};

statements! {
    OF_DAY = "INSERT INTO spending (plugin, day, kind, used)
        SELECT $1, CAST(statement_timestamp() AS date), a.kind, a.used FROM unnest($2::text[], $3::bigint[]) AS a(kind, used)
        ON CONFLICT (plugin, day, kind) DO UPDATE SET used = spending.used + EXCLUDED.used
        RETURNING day, kind, used, CAST(0 AS bigint) AS refunded";
    /// What the run before this one spent, where this one has spent nothing yet.
    FORMER = "SELECT s.kind, s.of_run, s.refunded, EXISTS (
            SELECT FROM task_attempts a JOIN tasks t ON t.id = a.task_id
            WHERE a.task_id = s.task_id AND a.fence = s.fence AND a.ended IN ('interrupted', 'host_lost')
                AND t.child_losses = 0) AS interrupted
        FROM task_spending s WHERE s.task_id = $1 AND s.kind = ANY($2) AND s.fence < $3 ORDER BY s.kind FOR UPDATE OF s";
    REFUND = "UPDATE task_spending SET used = GREATEST(used - $3, 0), refunded = refunded + $3, of_run = 0, fence = $4
        WHERE task_id = $1 AND kind = $2";
    /// A claim that was taken over spends nothing.
    OF_TASK = "INSERT INTO task_spending (task_id, kind, used, fence, of_run)
        SELECT $1, a.kind, a.used, $4, a.used FROM unnest($2::text[], $3::bigint[]) AS a(kind, used)
        ON CONFLICT (task_id, kind) DO UPDATE SET used = task_spending.used + EXCLUDED.used, fence = EXCLUDED.fence,
            of_run = CASE WHEN task_spending.fence = EXCLUDED.fence THEN task_spending.of_run ELSE 0 END + EXCLUDED.of_run
            WHERE task_spending.fence IS NULL OR task_spending.fence <= EXCLUDED.fence
        RETURNING kind, used, refunded";
    CORRECT_DAY = "UPDATE spending SET used = GREATEST(used + $4, 0) WHERE plugin = $1 AND day = $2 AND kind = $3";
    CORRECT_TASK = "UPDATE task_spending SET used = GREATEST(used + $3, 0), of_run = GREATEST(of_run + $3, 0)
        WHERE task_id = $1 AND kind = $2 AND (fence IS NULL OR fence = $4)";
}

pub(super) async fn spend(
    connection: &mut PgConnection,
    writer: Writer,
    plugin: &str,
    amounts: &[Amount],
) -> Result<SpendAnswer, Fault> {
    let of_day = plan::counted_amounts(amounts, |amount| amount.per_day);
    let of_task = plan::counted_amounts(amounts, |amount| amount.per_task);
    let mut day = None;
    let mut tx = connection.begin().await?;
    if !of_day.is_empty() {
        let counts = query(OF_DAY).bind(plugin).bind(column(&of_day, |a| a.kind)).bind(column(&of_day, plan::added));
        let counts = counts.fetch_all(&mut *tx).await?;
        if let Err(exhausted) = afforded(&of_day, SpendScope::Day, &counts)? {
            return Ok(exhausted);
        }
        day = counts.first().map(|row| row.try_get("day")).transpose()?;
    }
    if let Some((task, fence)) = writer.filter(|_| !of_task.is_empty()) {
        refund(&mut tx, task, fence, &of_task).await?;
        let counts = query(OF_TASK).bind(task).bind(column(&of_task, |a| a.kind)).bind(column(&of_task, plan::added));
        let counts = counts.bind(fence).fetch_all(&mut *tx).await?;
        if counts.len() < of_task.len() {
            return Ok(SpendAnswer::Fenced);
        }
        if let Err(exhausted) = afforded(&of_task, SpendScope::Task, &counts)? {
            return Ok(exhausted);
        }
    }
    tx.commit().await?;
    Ok(SpendAnswer::Spent(day))
}

async fn refund(connection: &mut PgConnection, task: TaskId, fence: Fence, amounts: &[Amount]) -> Result<(), Fault> {
    let former = query(FORMER).bind(task).bind(column(amounts, |a| a.kind)).bind(fence);
    for row in former.fetch_all(&mut *connection).await? {
        let former = rows::former(&row)?;
        let refund = query(REFUND).bind(task).bind(&former.kind).bind(former.refund(amounts)).bind(fence);
        refund.execute(&mut *connection).await?;
    }
    Ok(())
}

fn afforded(amounts: &[Amount], scope: SpendScope, counts: &[PgRow]) -> Result<Result<(), SpendAnswer>, Fault> {
    for row in counts {
        let (kind, used, refunded) = rows::spent(row)?;
        let mut own = amounts.iter().filter(|a| a.kind == kind);
        if let Some(exhausted) = own.find_map(|a| plan::afforded(a, scope, used, refunded).err()) {
            return Ok(Err(exhausted));
        }
    }
    Ok(Ok(()))
}

pub(super) async fn correct(
    connection: &mut PgConnection,
    writer: Writer,
    plugin: &str,
    day: Option<NaiveDate>,
    kind: &'static str,
    difference: i64,
) -> Result<(), Fault> {
    let difference = plan::countable(difference);
    let mut tx = connection.begin().await?;
    if day.is_some() {
        query(CORRECT_DAY).bind(plugin).bind(day).bind(kind).bind(difference).execute(&mut *tx).await?;
    }
    if let Some((task, fence)) = writer {
        query(CORRECT_TASK).bind(task).bind(kind).bind(difference).bind(fence).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
