//! Settling: one transaction for a batch, each row fenced.

pub(super) mod details;

use super::super::SettleAnswer;
use super::super::bisect::Bisection;
use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{Outcome, refused, unstorable};
use super::many::{Many, repeated, rounds};
use super::outgoing::Outgoing;
use super::transition::{NewEvent, append_events, begin};
use crate::task::{HostId, Settlement, TaskId, WaitCode};
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query};
use std::collections::{HashMap, HashSet};

/// Ends attempts, each only while its task is running under its fence.
macro_rules! settles {
    ($size:tt) => {
        concat!(
            "UPDATE tasks INDEXED BY sqlite_autoindex_tasks_1 SET state = s.column4, output = s.column5,
            failure = CASE WHEN s.column4 = 'completed' THEN NULL ELSE COALESCE(s.column6, failure) END,
            burnt = CASE WHEN s.column7 THEN attempt ELSE burnt END, snoozes = snoozes + s.column8,
            child_losses = child_losses + s.column9, run_at = COALESCE(s.column10, run_at),
            waiting_code = s.column11, waiting_detail = s.column12, version = s.column13, digest = s.column14,
            finished_at = s.column15, waiting_since = s.column16, rescued_at = NULL, last_seq = last_seq + 1,
            log_seq = log_seq + s.column17
            FROM (VALUES ",
            repeated!($size "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
            ") AS s WHERE tasks.id = s.column1 AND tasks.state = 'running' AND tasks.fence = s.column2
                AND tasks.owner = s.column3
            RETURNING id, attempt, started_at, last_seq, log_seq"
        )
    };
}

macro_rules! attempts {
    ($size:tt) => {
        concat!(
            "INSERT INTO task_attempts (build, task_id, fence, attempt, host, version, digest, started_at, finished_at,
                ended, failure, usage)
            SELECT (SELECT build FROM hosts WHERE id = ?), a.* FROM (VALUES ",
            repeated!($size "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
            ") AS a"
        )
    };
}

statements! {
    SETTLES_64 = settles!(64);
    SETTLES_16 = settles!(16);
    SETTLES_4 = settles!(4);
    SETTLES_1 = settles!(1);
    ATTEMPTS_64 = attempts!(64);
    ATTEMPTS_16 = attempts!(16);
    ATTEMPTS_4 = attempts!(4);
    ATTEMPTS_1 = attempts!(1);
    /// Attempts that this host has settled: the proof that an earlier call went through, whatever happened since.
    SETTLED = "SELECT a.task_id FROM json_each(?2) c CROSS JOIN task_attempts a
        ON a.task_id = c.value ->> 0 AND a.fence = c.value ->> 1 AND a.host = ?1 AND a.ended <> 'host_lost'";
}

const SETTLES: Many = Many([SETTLES_64, SETTLES_16, SETTLES_4, SETTLES_1]);
const ATTEMPTS: Many = Many([ATTEMPTS_64, ATTEMPTS_16, ATTEMPTS_4, ATTEMPTS_1]);

pub(super) async fn settle(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Settlement],
    outgoing: &mut Outgoing,
) -> Result<Vec<SettleAnswer>, Fault> {
    let mut bisection = Bisection::new(batch.len());
    while let Some(range) = bisection.next() {
        let result = settle_all(connection, host, &batch[range.clone()], outgoing).await;
        if let Some((index, fault)) = bisection.tried(range, result)? {
            let instead = unstorable(&batch[index], &fault.reason());
            let instead = settle_all(connection, host, std::slice::from_ref(&instead), outgoing).await;
            bisection.answer(index, refused(instead)?);
        }
    }
    bisection.finish()
}

async fn settle_all(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Settlement],
    outgoing: &mut Outgoing,
) -> Result<Vec<SettleAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut sent = outgoing.begin();
    let outcomes = batch.iter().map(Outcome::of).collect::<Result<Vec<_>, _>>()?;
    let mut answers = vec![SettleAnswer::Fenced; batch.len()];
    for round in rounds(batch.iter().map(|settlement| settlement.id)) {
        let outcomes: Vec<&Outcome<'_>> = round.iter().map(|at| &outcomes[*at]).collect();
        let settled = settle_round(&mut tx, host, &outcomes, now, &mut sent).await?;
        for (at, settled) in round.into_iter().zip(settled) {
            answers[at] = if settled { SettleAnswer::Settled } else { SettleAnswer::Fenced };
        }
    }
    tx.commit().await?;
    outgoing.end(sent);
    Ok(answers)
}

/// What the row says of an attempt that has ended.
struct Ended {
    attempt: u32,
    started_at: Option<String>,
    last_seq: i64,
    log_seq: i64,
}

/// Ends of different tasks: whether each is recorded, now or by an earlier call.
pub(super) async fn settle_round(
    connection: &mut SqliteConnection,
    host: HostId,
    outcomes: &[&Outcome<'_>],
    now: DateTime<Utc>,
    outgoing: &mut Outgoing,
) -> Result<Vec<bool>, Fault> {
    let at = stamp(now);
    let mut rows = end(connection, host, outcomes, now, &at).await?;
    let (mut ended, mut others) = (Vec::with_capacity(outcomes.len()), Vec::new());
    for outcome in outcomes {
        match rows.remove(&outcome.id) {
            Some(row) => ended.push((*outcome, row)),
            None => others.push(*outcome),
        }
    }
    let lines: Vec<NewEvent<'_>> = ended
        .iter()
        .map(|(outcome, row)| NewEvent {
            id: outcome.id,
            seq: row.last_seq,
            event: outcome.event,
            attempt: row.attempt,
            fence: outcome.fence,
            host: Some(host),
            digest: Some(outcome.digest),
            detail: outcome.detail.as_deref(),
            at: None,
        })
        .collect();
    append_events(connection, &lines, now).await?;
    for (statement, part) in ATTEMPTS.parts(&ended) {
        let mut insert = query(statement).bind(host.hyphenated());
        for (outcome, row) in part {
            insert = insert
                .bind(outcome.id.hyphenated())
                .bind(outcome.fence)
                .bind(row.attempt)
                .bind(host.hyphenated())
                .bind(outcome.version)
                .bind(outcome.digest)
                .bind(row.started_at.as_deref())
                .bind(at.as_str())
                .bind(outcome.event.as_str())
                .bind(outcome.failure.as_deref())
                .bind(outcome.usage.as_str());
        }
        insert.execute(&mut *connection).await?;
    }
    details::write(connection, &ended).await?;
    let again: Vec<TaskId> =
        ended.iter().filter(|(outcome, _)| outcome.outbox).map(|(outcome, _)| outcome.id).collect();
    outgoing.enqueue(connection, &again, now).await?;
    let settled = settled(connection, host, &others).await?;
    let done = |outcome: &&Outcome<'_>| !others.iter().any(|o| o.id == outcome.id) || settled.contains(&outcome.id);
    Ok(outcomes.iter().map(done).collect())
}

/// Change the rows that run under these fences, and return them.
async fn end(
    connection: &mut SqliteConnection,
    host: HostId,
    outcomes: &[&Outcome<'_>],
    now: DateTime<Utc>,
    at: &str,
) -> Result<HashMap<TaskId, Ended>, Fault> {
    let mut ended = HashMap::with_capacity(outcomes.len());
    for (statement, part) in SETTLES.parts(outcomes) {
        let mut update = query(statement);
        for outcome in part {
            let terminal = outcome.state.is_terminal();
            update = update
                .bind(outcome.id.hyphenated())
                .bind(outcome.fence)
                .bind(host.hyphenated())
                .bind(outcome.state.as_str())
                .bind(outcome.output)
                .bind(outcome.failure.as_deref())
                .bind(outcome.burns)
                .bind(i64::from(outcome.snoozed))
                .bind(i64::from(outcome.child_lost))
                .bind(outcome.after.map(|after| stamp(now + after)))
                .bind(outcome.waiting_code.map(WaitCode::as_str))
                .bind(outcome.waiting_detail.as_deref())
                .bind(outcome.version)
                .bind(outcome.digest)
                .bind(terminal.then_some(at))
                .bind((!terminal).then_some(at))
                .bind(outcome.logs.len() as i64);
        }
        for row in update.fetch_all(&mut *connection).await? {
            let id = need(row.id("id")?, "id")?;
            let row = Ended {
                attempt: row.count("attempt")?,
                started_at: row.text("started_at")?,
                last_seq: need(row.int("last_seq")?, "last_seq")?,
                log_seq: need(row.int("log_seq")?, "log_seq")?,
            };
            ended.insert(id, row);
        }
    }
    Ok(ended)
}

/// Those of which an earlier call recorded the end.
async fn settled(
    connection: &mut SqliteConnection,
    host: HostId,
    outcomes: &[&Outcome<'_>],
) -> Result<HashSet<TaskId>, Fault> {
    if outcomes.is_empty() {
        return Ok(HashSet::new());
    }
    let claims: Vec<_> = outcomes.iter().map(|outcome| (outcome.id, outcome.fence)).collect();
    let rows = query(SETTLED).bind(host.hyphenated()).bind(json(&claims)?).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.id("task_id")?, "task_id")).collect()
}

/// Rows of columns, as JSON text.
fn json(rows: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(rows).map_err(|e| Fault::Defect(format!("rows: {e}")))
}
