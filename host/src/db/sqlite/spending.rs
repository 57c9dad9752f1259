//! What was spent. Counts are raised first and held against their allowances then: a transaction that spends too much is
//! dropped.

use super::super::fault::Fault;
use super::super::plan;
use super::super::{Amount, SpendAnswer, SpendScope, rows};
use super::transition::begin;
use crate::task::TaskId;
use chrono::NaiveDate;
use sqlx::{SqliteConnection, query};

statements! {
    OF_DAY = "INSERT INTO spending (plugin, day, kind, used) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (plugin, day, kind) DO UPDATE SET used = used + excluded.used RETURNING kind, used";
    OF_TASK = "INSERT INTO task_spending (task_id, kind, used) VALUES (?1, ?2, ?3)
        ON CONFLICT (task_id, kind) DO UPDATE SET used = used + excluded.used RETURNING kind, used";
    CORRECT_DAY = "UPDATE spending SET used = max(used + ?4, 0) WHERE plugin = ?1 AND day = ?2 AND kind = ?3";
    CORRECT_TASK = "UPDATE task_spending SET used = max(used + ?3, 0) WHERE task_id = ?1 AND kind = ?2";
}

pub(super) async fn spend(
    connection: &mut SqliteConnection,
    task: Option<TaskId>,
    plugin: &str,
    amounts: &[Amount],
) -> Result<SpendAnswer, Fault> {
    let of_day = plan::counted_amounts(amounts, |amount| amount.per_day);
    let of_task = plan::counted_amounts(amounts, |amount| amount.per_task.filter(|_| task.is_some()));
    let (mut tx, now) = begin(connection).await?;
    let day = now.date_naive();
    for amount in &of_day {
        let count = query(OF_DAY).bind(plugin).bind(day.to_string()).bind(amount.kind).bind(plan::added(amount));
        let (_, used) = rows::spent(&count.fetch_one(&mut *tx).await?)?;
        if let Err(exhausted) = plan::afforded(amount, SpendScope::Day, used) {
            return Ok(exhausted);
        }
    }
    for amount in &of_task {
        let count = query(OF_TASK).bind(task.map(|id| id.hyphenated())).bind(amount.kind).bind(plan::added(amount));
        let (_, used) = rows::spent(&count.fetch_one(&mut *tx).await?)?;
        if let Err(exhausted) = plan::afforded(amount, SpendScope::Task, used) {
            return Ok(exhausted);
        }
    }
    tx.commit().await?;
    Ok(SpendAnswer::Spent((!of_day.is_empty()).then_some(day)))
}

pub(super) async fn correct(
    connection: &mut SqliteConnection,
    task: Option<TaskId>,
    plugin: &str,
    day: Option<NaiveDate>,
    kind: &'static str,
    difference: i64,
) -> Result<(), Fault> {
    let difference = plan::countable(difference);
    let (mut tx, _) = begin(connection).await?;
    if let Some(day) = day {
        let correct = query(CORRECT_DAY).bind(plugin).bind(day.to_string()).bind(kind).bind(difference);
        correct.execute(&mut *tx).await?;
    }
    if let Some(task) = task {
        query(CORRECT_TASK).bind(task.hyphenated()).bind(kind).bind(difference).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
