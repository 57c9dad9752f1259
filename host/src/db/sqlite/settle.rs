//! Settling: one transaction for a batch, each row fenced.

use super::super::bisect::Bisection;
use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, Outcome, call_detail, counted, unstorable};
use super::super::{SettleAnswer, storable};
use super::transition::{EVENT, begin, enqueue};
use crate::task::{HostId, Settlement, WaitCode, settle::Call};
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query};

statements! {
    SETTLE = "UPDATE tasks SET state = ?4, output = ?5,
            failure = CASE WHEN ?4 = 'completed' THEN NULL ELSE COALESCE(?6, failure) END,
            burnt = CASE WHEN ?7 THEN attempt ELSE burnt END,
            snoozes = snoozes + ?8, child_losses = child_losses + ?16, run_at = COALESCE(?9, run_at), waiting_code = ?10, waiting_detail = ?11, version = ?12,
            digest = ?13,
            finished_at = CASE WHEN ?4 IN ('completed', 'failed', 'cancelled') THEN ?14 END,
            waiting_since = CASE WHEN ?4 IN ('scheduled', 'pending', 'retrying') THEN ?14 END,
            rescued_at = NULL, last_seq = last_seq + 1, log_seq = log_seq + ?15
        WHERE id = ?1 AND state = 'running' AND fence = ?2 AND owner = ?3
        RETURNING attempt, started_at, last_seq, log_seq - ?15 AS logged";
    ATTEMPT = "INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at,
            ended, failure, usage)
        VALUES (?1, ?2, ?3, ?4, (SELECT build FROM hosts WHERE id = ?4), ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    /// All lines of an attempt at once: a guest may write hundreds.
    LOGS = "INSERT INTO task_logs (task_id, seq, at, attempt, stream, level, logger, message, cut)
        SELECT ?1, ?2 + l.key + 1, l.value ->> 0, ?3, l.value ->> 1, l.value ->> 2, l.value ->> 3, l.value ->> 4,
            l.value ->> 5
        FROM json_each(?4) l";
    /// All calls of an attempt at once, as its lines.
    CALLS = "INSERT INTO task_calls (task_id, fence, seq, at, attempt, capability, operation, target, duration_us,
            request_bytes, response_bytes, result, detail)
        SELECT ?1, ?2, c.key + 1, c.value ->> 0, ?3, c.value ->> 1, c.value ->> 2, c.value ->> 3, c.value ->> 4,
            c.value ->> 5, c.value ->> 6, c.value ->> 7, c.value ->> 8
        FROM json_each(?4) c";
    BODIES = "INSERT INTO task_call_bodies (task_id, fence, seq, request_body_bytes, response_body_bytes, request_body,
            response_body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    /// An attempt that this host has settled: the proof that an earlier call went through, whatever happened since.
    SETTLED = "SELECT fence FROM task_attempts WHERE task_id = ?1 AND fence = ?2 AND host = ?3 AND ended <> 'host_lost'";
}

pub(super) async fn settle(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Settlement],
) -> Result<Vec<SettleAnswer>, Fault> {
    let mut bisection = Bisection::new(batch.len());
    while let Some(range) = bisection.next() {
        let result = settle_all(connection, host, &batch[range.clone()]).await;
        if let Some((index, fault)) = bisection.tried(range, result)? {
            let instead = unstorable(&batch[index], &fault.reason());
            let answer = match settle_all(connection, host, std::slice::from_ref(&instead)).await?.first() {
                Some(SettleAnswer::Fenced) => SettleAnswer::Fenced,
                _ => SettleAnswer::Refused,
            };
            bisection.answer(index, answer);
        }
    }
    bisection.finish()
}

async fn settle_all(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Settlement],
) -> Result<Vec<SettleAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut answers = Vec::with_capacity(batch.len());
    for settlement in batch {
        answers.push(settle_one(&mut tx, host, settlement, now).await?);
    }
    tx.commit().await?;
    Ok(answers)
}

pub(super) async fn settle_one(
    connection: &mut SqliteConnection,
    host: HostId,
    settlement: &Settlement,
    now: DateTime<Utc>,
) -> Result<SettleAnswer, Fault> {
    let outcome = Outcome::of(settlement)?;
    let (id, owner, at) = (outcome.id.hyphenated(), host.hyphenated(), stamp(now));
    let changed = query(SETTLE)
        .bind(id)
        .bind(outcome.fence)
        .bind(owner)
        .bind(outcome.state.as_str())
        .bind(outcome.output)
        .bind(outcome.failure.as_deref())
        .bind(outcome.burns)
        .bind(i64::from(outcome.snoozed))
        .bind(outcome.after.map(|after| stamp(now + after)))
        .bind(outcome.waiting_code.map(WaitCode::as_str))
        .bind(outcome.waiting_detail.as_deref())
        .bind(outcome.version)
        .bind(outcome.digest)
        .bind(at.as_str())
        .bind(outcome.logs.len() as i64)
        .bind(i64::from(outcome.child_lost))
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = changed else {
        let settled = query(SETTLED).bind(id).bind(outcome.fence).bind(owner).fetch_optional(connection).await?;
        return Ok(if settled.is_some() { SettleAnswer::Settled } else { SettleAnswer::Fenced });
    };
    let attempt = row.count("attempt")?;
    query(EVENT)
        .bind(id)
        .bind(need(row.int("last_seq")?, "last_seq")?)
        .bind(at.as_str())
        .bind(outcome.event.as_str())
        .bind(attempt)
        .bind(outcome.fence)
        .bind(owner)
        .bind(outcome.digest)
        .bind(outcome.detail.as_deref())
        .execute(&mut *connection)
        .await?;
    query(ATTEMPT)
        .bind(id)
        .bind(outcome.fence)
        .bind(attempt)
        .bind(owner)
        .bind(outcome.version)
        .bind(outcome.digest)
        .bind(row.text("started_at")?)
        .bind(at.as_str())
        .bind(outcome.event.as_str())
        .bind(outcome.failure.as_deref())
        .bind(outcome.usage.as_str())
        .execute(&mut *connection)
        .await?;
    if !outcome.logs.is_empty() {
        let lines: Vec<_> = outcome
            .logs
            .iter()
            .map(|l| {
                let (logger, message) = (storable::text(&l.logger), storable::text(&l.message));
                (stamp(l.at), l.stream, l.level, logger, message, l.cut)
            })
            .collect();
        query(LOGS)
            .bind(id)
            .bind(need(row.int("logged")?, "logged")?)
            .bind(attempt)
            .bind(serde_json::to_string(&lines).map_err(|e| Fault::Defect(format!("log lines: {e}")))?)
            .execute(&mut *connection)
            .await?;
    }
    if !outcome.calls.is_empty() {
        query(CALLS)
            .bind(id)
            .bind(outcome.fence)
            .bind(attempt)
            .bind(calls(outcome.calls)?)
            .execute(&mut *connection)
            .await?;
    }
    // JSON holds no bytes, so these go one by one.
    for (call, seq) in outcome.calls.iter().zip(1i64..).filter(|(call, _)| plan::has_body(call)) {
        query(BODIES)
            .bind(id)
            .bind(outcome.fence)
            .bind(seq)
            .bind(plan::body_bytes(&call.request_body))
            .bind(plan::body_bytes(&call.response_body))
            .bind(plan::body(&call.request_body))
            .bind(plan::body(&call.response_body))
            .execute(&mut *connection)
            .await?;
    }
    if outcome.outbox {
        enqueue(connection, outcome.id, now).await?;
    }
    Ok(SettleAnswer::Settled)
}

/// The columns of calls, as JSON text.
fn calls(calls: &[Call]) -> Result<String, Fault> {
    let rows: Vec<_> = calls
        .iter()
        .map(|c| {
            let words = (storable::text(&c.capability), storable::text(&c.operation), storable::text(&c.target));
            let counts = (counted(c.duration_us), counted(c.request_bytes), counted(c.response_bytes));
            let (capability, operation, target) = words;
            let (result, detail) = (storable::text(&c.result), call_detail(c));
            (stamp(c.at), capability, operation, target, counts.0, counts.1, counts.2, result, detail)
        })
        .collect();
    serde_json::to_string(&rows).map_err(|e| Fault::Defect(format!("calls: {e}")))
}
