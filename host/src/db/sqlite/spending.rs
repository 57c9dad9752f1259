//! What was spent. Counts are raised first and held against their allowances then: a transaction that spends too much is
//! dropped.

use super::super::fault::Fault;
use super::super::plan;
use super::super::{Amount, SpendAnswer, SpendScope, Writer, rows};
use super::transition::begin;
use chrono::NaiveDate;
use sqlx::{SqliteConnection, query};

statements! {
    OF_DAY = "INSERT INTO spending (plugin, day, kind, used) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (plugin, day, kind) DO UPDATE SET used = used + excluded.used RETURNING kind, used, 0 AS refunded";
    /// What the run before this one spent, where this one has spent nothing yet.
    FORMER = "SELECT s.kind, s.of_run, s.refunded, EXISTS (
            SELECT 1 FROM task_attempts a JOIN tasks t ON t.id = a.task_id
            WHERE a.task_id = s.task_id AND a.fence = s.fence AND a.ended IN ('interrupted', 'host_lost')
                AND t.child_losses = 0) AS interrupted
        FROM task_spending s WHERE s.task_id = ?1 AND s.kind = ?2 AND s.fence < ?3";
    REFUND = "UPDATE task_spending SET used = max(used - ?3, 0), refunded = refunded + ?3, of_run = 0, fence = ?4
        WHERE task_id = ?1 AND kind = ?2";
    /// A claim that was taken over spends nothing.
    OF_TASK = "INSERT INTO task_spending (task_id, kind, used, fence, of_run) VALUES (?1, ?2, ?3, ?4, ?3)
        ON CONFLICT (task_id, kind) DO UPDATE SET used = used + excluded.used, fence = excluded.fence,
            of_run = CASE WHEN fence = excluded.fence THEN of_run ELSE 0 END + excluded.of_run
            WHERE fence IS NULL OR fence <= excluded.fence
        RETURNING kind, used, refunded";
    CORRECT_DAY = "UPDATE spending SET used = max(used + ?4, 0) WHERE plugin = ?1 AND day = ?2 AND kind = ?3";
    CORRECT_TASK = "UPDATE task_spending SET used = max(used + ?3, 0), of_run = max(of_run + ?3, 0)
        WHERE task_id = ?1 AND kind = ?2 AND (fence IS NULL OR fence = ?4)";
}

pub(super) async fn spend(
    connection: &mut SqliteConnection,
    writer: Writer,
    plugin: &str,
    amounts: &[Amount],
) -> Result<SpendAnswer, Fault> {
    let of_day = plan::counted_amounts(amounts, |amount| amount.per_day);
    let of_task = plan::counted_amounts(amounts, |amount| amount.per_task);
    let (mut tx, now) = begin(connection).await?;
    let day = now.date_naive();
    for amount in &of_day {
        let count = query(OF_DAY).bind(plugin).bind(day.to_string()).bind(amount.kind).bind(plan::added(amount));
        let (_, used, refunded) = rows::spent(&count.fetch_one(&mut *tx).await?)?;
        if let Err(exhausted) = plan::afforded(amount, SpendScope::Day, used, refunded) {
            return Ok(exhausted);
        }
    }
    for (amount, (task, fence)) in of_task.iter().zip(writer.into_iter().cycle()) {
        let task = task.hyphenated();
        let former = query(FORMER).bind(task).bind(amount.kind).bind(fence).fetch_optional(&mut *tx).await?;
        if let Some(row) = former {
            let refund = rows::former(&row)?.refund(&of_task);
            query(REFUND).bind(task).bind(amount.kind).bind(refund).bind(fence).execute(&mut *tx).await?;
        }
        let count = query(OF_TASK).bind(task).bind(amount.kind).bind(plan::added(amount)).bind(fence);
        let Some(row) = count.fetch_optional(&mut *tx).await? else { return Ok(SpendAnswer::Fenced) };
        let (_, used, refunded) = rows::spent(&row)?;
        if let Err(exhausted) = plan::afforded(amount, SpendScope::Task, used, refunded) {
            return Ok(exhausted);
        }
    }
    tx.commit().await?;
    Ok(SpendAnswer::Spent((!of_day.is_empty()).then_some(day)))
}

pub(super) async fn correct(
    connection: &mut SqliteConnection,
    writer: Writer,
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
    if let Some((task, fence)) = writer {
        let correct = query(CORRECT_TASK).bind(task.hyphenated()).bind(kind).bind(difference).bind(fence);
        correct.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
