//! Settling: one statement for a whole batch, each row fenced.

use super::super::bisect::Bisection;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, Outcome, call_detail, counted, refused, unstorable};
use super::super::{SettleAnswer, storable};
use super::transition::column;
use crate::task::{Fence, HostId, Settlement, TaskId, WaitCode, settle::Call, settle::LogLine};
use sqlx::{PgConnection, query};
use std::collections::HashSet;

statements! {
    /// State, event, attempt, logs, calls, their bodies and outbox row of attempts that ended, each only while its task runs under its fence.
    /// State and owner are compared in a way that no index serves: rows are to be found by id, not by a walk through all
    /// that this owner runs and ran.
    SETTLE = "WITH i AS (
        SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::boolean[], $7::boolean[], $8::text[],
            $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $28::boolean[])
            AS i(id, fence, state, event, burns, snoozed, output, failure, after_us, waiting_code, waiting_detail, version,
            digest, lines, child_lost)
    ), changed AS (
        UPDATE tasks t SET state = i.state, output = i.output,
            failure = CASE WHEN i.state = 'completed' THEN NULL ELSE COALESCE(i.failure, t.failure) END,
            burnt = CASE WHEN i.burns THEN t.attempt ELSE t.burnt END,
            snoozes = t.snoozes + CASE WHEN i.snoozed THEN 1 ELSE 0 END,
            child_losses = t.child_losses + CASE WHEN i.child_lost THEN 1 ELSE 0 END,
            run_at = CASE WHEN i.after_us IS NULL THEN t.run_at
                ELSE statement_timestamp() + i.after_us * interval '1 microsecond' END,
            waiting_code = i.waiting_code, waiting_detail = i.waiting_detail, version = i.version, digest = i.digest,
            finished_at = CASE WHEN i.state IN ('completed', 'failed', 'cancelled') THEN statement_timestamp() END,
            waiting_since = CASE WHEN i.state IN ('scheduled', 'pending', 'retrying') THEN statement_timestamp() END,
            rescued_at = NULL, last_seq = t.last_seq + 1, log_seq = t.log_seq + i.lines
        FROM i WHERE t.id = i.id AND t.fence = i.fence
            AND t.state IS NOT DISTINCT FROM 'running' AND t.owner IS NOT DISTINCT FROM $1
        RETURNING t.id, t.fence, t.attempt, t.version, t.digest, t.started_at, t.state, t.last_seq, t.log_seq - i.lines AS
            logged, i.event, i.failure
    ), said AS (
        SELECT * FROM unnest($2::uuid[], $3::bigint[], $16::text[], $17::text[], $18::boolean[])
            AS e(id, fence, usage, detail, outbox)
    ), told AS (
        INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail)
        SELECT c.id, c.last_seq, statement_timestamp(), c.event, c.attempt, c.fence, $1, c.digest, e.detail
        FROM changed c JOIN said e USING (id, fence)
    ), attempted AS (
        INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at, ended,
            failure, usage)
        SELECT c.id, c.fence, c.attempt, $1, (SELECT build FROM hosts WHERE id = $1), c.version, c.digest, c.started_at,
            statement_timestamp(), c.event, c.failure, e.usage
        FROM changed c JOIN said e USING (id, fence)
    ), queued AS (
        INSERT INTO outbox (task_id, created_at, due_at)
        SELECT c.id, statement_timestamp(), statement_timestamp()
        FROM changed c JOIN said e USING (id, fence) WHERE e.outbox ORDER BY c.id
        ON CONFLICT (task_id) DO UPDATE
            SET due_at = EXCLUDED.due_at, token = NULL, reason = NULL, deferred = 0
    ), logged AS (
        INSERT INTO task_logs (task_id, seq, at, attempt, stream, level, logger, message, cut)
        SELECT c.id, c.logged + l.line, l.at, c.attempt, l.stream, l.level, l.logger, l.message, l.cut
        FROM changed c JOIN unnest($19::uuid[], $20::bigint[], $21::bigint[], $22::timestamptz[], $23::text[], $24::text[],
            $25::text[], $26::text[], $27::boolean[])
            AS l(id, fence, line, at, stream, level, logger, message, cut) USING (id, fence)
    ), called AS (
        INSERT INTO task_calls (task_id, fence, seq, at, attempt, capability, operation, target, duration_us, request_bytes,
            response_bytes, result, detail)
        SELECT c.id, c.fence, l.seq, l.at, c.attempt, l.capability, l.operation, l.target, l.duration_us, l.request_bytes,
            l.response_bytes, l.result, l.detail
        FROM changed c JOIN unnest($29::uuid[], $30::bigint[], $31::bigint[], $32::timestamptz[], $33::text[], $34::text[],
            $35::text[], $36::bigint[], $37::bigint[], $38::bigint[], $39::text[], $40::text[])
            AS l(id, fence, seq, at, capability, operation, target, duration_us, request_bytes, response_bytes, result,
            detail) USING (id, fence)
    ), kept AS (
        INSERT INTO task_call_bodies (task_id, fence, seq, request_body_bytes, response_body_bytes, request_body,
            response_body)
        SELECT c.id, c.fence, b.seq, b.request_body_bytes, b.response_body_bytes, b.request_body, b.response_body
        FROM changed c JOIN unnest($41::uuid[], $42::bigint[], $43::bigint[], $44::bigint[], $45::bigint[], $46::bytea[],
            $47::bytea[])
            AS b(id, fence, seq, request_body_bytes, response_body_bytes, request_body, response_body) USING (id, fence)
    )
    SELECT id, fence FROM changed";
    /// Attempts that this host has settled: the proof that an earlier call went through, whatever happened since.
    SETTLED = "SELECT a.task_id AS id, a.fence FROM task_attempts a
        JOIN unnest($2::uuid[], $3::bigint[]) AS i(id, fence) ON a.task_id = i.id AND a.fence = i.fence
        WHERE a.host = $1 AND a.ended <> 'host_lost'";
}

/// One line of an attempt and the claim it belongs to.
struct Line<'a, T> {
    id: TaskId,
    fence: Fence,
    position: i64,
    line: &'a T,
}

/// Lines of all attempts, each with its position among those of its own.
fn lines<'a, T>(outcomes: &[Outcome<'a>], of: impl Fn(&Outcome<'a>) -> &'a [T]) -> Vec<Line<'a, T>> {
    let mut all = Vec::new();
    for outcome in outcomes {
        let (id, fence) = (outcome.id, outcome.fence);
        all.extend(of(outcome).iter().zip(1..).map(|(line, position)| Line { id, fence, position, line }));
    }
    all
}

pub(super) async fn settle(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[Settlement],
) -> Result<Vec<SettleAnswer>, Fault> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| (batch[index].id, batch[index].fence));
    let sorted: Vec<&Settlement> = order.iter().map(|&index| &batch[index]).collect();

    let mut bisection = Bisection::new(sorted.len());
    while let Some(range) = bisection.next() {
        let result = settle_sorted(connection, host, &sorted[range.clone()]).await;
        if let Some((index, fault)) = bisection.tried(range, result)? {
            let instead = unstorable(sorted[index], &fault.reason());
            let instead = settle_sorted(connection, host, &[&instead]).await;
            bisection.answer(index, refused(instead)?);
        }
    }
    let mut answers: Vec<(usize, SettleAnswer)> = order.into_iter().zip(bisection.finish()?).collect();
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

async fn settle_sorted(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[&Settlement],
) -> Result<Vec<SettleAnswer>, Fault> {
    // The same settlement twice in a batch is one.
    let mut first = HashSet::new();
    let outcomes: Vec<Outcome<'_>> =
        batch.iter().filter(|s| first.insert((s.id, s.fence))).map(|s| Outcome::of(s)).collect::<Result<_, _>>()?;
    let calls: Vec<Line<'_, Call>> = lines(&outcomes, |o| o.calls);
    let bodies: Vec<&Line<'_, Call>> = calls.iter().filter(|c| plan::has_body(c.line)).collect();
    let lines: Vec<Line<'_, LogLine>> = lines(&outcomes, |o| o.logs);
    let rows = query(SETTLE)
        .bind(host)
        .bind(column(&outcomes, |o| o.id))
        .bind(column(&outcomes, |o| o.fence))
        .bind(column(&outcomes, |o| o.state.as_str()))
        .bind(column(&outcomes, |o| o.event.as_str()))
        .bind(column(&outcomes, |o| o.burns))
        .bind(column(&outcomes, |o| o.snoozed))
        .bind(column(&outcomes, |o| o.output))
        .bind(column(&outcomes, |o| o.failure.as_deref()))
        .bind(column(&outcomes, |o| o.after.and_then(|after| after.num_microseconds())))
        .bind(column(&outcomes, |o| o.waiting_code.map(WaitCode::as_str)))
        .bind(column(&outcomes, |o| o.waiting_detail.as_deref()))
        .bind(column(&outcomes, |o| o.version))
        .bind(column(&outcomes, |o| o.digest))
        .bind(column(&outcomes, |o| o.logs.len() as i64))
        .bind(column(&outcomes, |o| o.usage.as_str()))
        .bind(column(&outcomes, |o| o.detail.as_deref()))
        .bind(column(&outcomes, |o| o.outbox))
        .bind(column(&lines, |l| l.id))
        .bind(column(&lines, |l| l.fence))
        .bind(column(&lines, |l| l.position))
        .bind(column(&lines, |l| l.line.at))
        .bind(column(&lines, |l| l.line.stream))
        .bind(column(&lines, |l| l.line.level))
        .bind(column(&lines, |l| storable::text(&l.line.logger)))
        .bind(column(&lines, |l| storable::text(&l.line.message)))
        .bind(column(&lines, |l| l.line.cut))
        .bind(column(&outcomes, |o| o.child_lost))
        .bind(column(&calls, |c| c.id))
        .bind(column(&calls, |c| c.fence))
        .bind(column(&calls, |c| c.position))
        .bind(column(&calls, |c| c.line.at))
        .bind(column(&calls, |c| storable::text(&c.line.capability)))
        .bind(column(&calls, |c| storable::text(&c.line.operation)))
        .bind(column(&calls, |c| storable::text(&c.line.target)))
        .bind(column(&calls, |c| counted(c.line.duration_us)))
        .bind(column(&calls, |c| counted(c.line.request_bytes)))
        .bind(column(&calls, |c| counted(c.line.response_bytes)))
        .bind(column(&calls, |c| storable::text(&c.line.result)))
        .bind(column(&calls, |c| call_detail(c.line)))
        .bind(column(&bodies, |c| c.id))
        .bind(column(&bodies, |c| c.fence))
        .bind(column(&bodies, |c| c.position))
        .bind(column(&bodies, |c| plan::body_bytes(&c.line.request_body)))
        .bind(column(&bodies, |c| plan::body_bytes(&c.line.response_body)))
        .bind(column(&bodies, |c| plan::body(&c.line.request_body)))
        .bind(column(&bodies, |c| plan::body(&c.line.response_body)))
        .fetch_all(&mut *connection)
        .await?;
    let mut settled = HashSet::new();
    for row in &rows {
        settled.insert((need(row.id("id")?, "id")?, need(row.int("fence")?, "fence")?));
    }
    if settled.len() < outcomes.len() {
        let missing: Vec<&Outcome<'_>> = outcomes.iter().filter(|o| !settled.contains(&(o.id, o.fence))).collect();
        let rows = query(SETTLED)
            .bind(host)
            .bind(column(&missing, |o| o.id))
            .bind(column(&missing, |o| o.fence))
            .fetch_all(connection)
            .await?;
        for row in &rows {
            settled.insert((need(row.id("id")?, "id")?, need(row.int("fence")?, "fence")?));
        }
    }
    let answer = |s: &&Settlement| match settled.contains(&(s.id, s.fence)) {
        true => SettleAnswer::Settled,
        false => SettleAnswer::Fenced,
    };
    Ok(batch.iter().map(answer).collect())
}
