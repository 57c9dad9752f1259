//! What was spent. Counts are raised first and held against their allowances then: a transaction that spends too much is
//! dropped, and whoever spends of the same waits for the one before.

use super::super::fault::Fault;
use super::super::plan;
use super::super::{Amount, SpendAnswer, SpendScope, rows};
use super::transition::column;
use crate::task::TaskId;
use chrono::NaiveDate;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row, query};

statements! {
    OF_DAY = "INSERT INTO spending (plugin, day, kind, used)
        SELECT $1, CAST(statement_timestamp() AS date), a.kind, a.used FROM unnest($2::text[], $3::bigint[]) AS a(kind, used)
        ON CONFLICT (plugin, day, kind) DO UPDATE SET used = spending.used + EXCLUDED.used
        RETURNING day, kind, used";
    OF_TASK = "INSERT INTO task_spending (task_id, kind, used)
        SELECT $1, a.kind, a.used FROM unnest($2::text[], $3::bigint[]) AS a(kind, used)
        ON CONFLICT (task_id, kind) DO UPDATE SET used = task_spending.used + EXCLUDED.used
        RETURNING kind, used";
    CORRECT_DAY = "UPDATE spending SET used = GREATEST(used + $4, 0) WHERE plugin = $1 AND day = $2 AND kind = $3";
    CORRECT_TASK = "UPDATE task_spending SET used = GREATEST(used + $3, 0) WHERE task_id = $1 AND kind = $2";
}

pub(super) async fn spend(
    connection: &mut PgConnection,
    task: Option<TaskId>,
    plugin: &str,
    amounts: &[Amount],
) -> Result<SpendAnswer, Fault> {
    let of_day = plan::counted_amounts(amounts, |amount| amount.per_day);
    let of_task = plan::counted_amounts(amounts, |amount| amount.per_task.filter(|_| task.is_some()));
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
    if !of_task.is_empty() {
        let counts = query(OF_TASK).bind(task).bind(column(&of_task, |a| a.kind)).bind(column(&of_task, plan::added));
        let counts = counts.fetch_all(&mut *tx).await?;
        if let Err(exhausted) = afforded(&of_task, SpendScope::Task, &counts)? {
            return Ok(exhausted);
        }
    }
    tx.commit().await?;
    Ok(SpendAnswer::Spent(day))
}

fn afforded(amounts: &[Amount], scope: SpendScope, counts: &[PgRow]) -> Result<Result<(), SpendAnswer>, Fault> {
    for row in counts {
        let (kind, used) = rows::spent(row)?;
        let exhausted = amounts.iter().filter(|a| a.kind == kind).find_map(|a| plan::afforded(a, scope, used).err());
        if let Some(exhausted) = exhausted {
            return Ok(Err(exhausted));
        }
    }
    Ok(Ok(()))
}

pub(super) async fn correct(
    connection: &mut PgConnection,
    task: Option<TaskId>,
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
    if task.is_some() {
        query(CORRECT_TASK).bind(task).bind(kind).bind(difference).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
