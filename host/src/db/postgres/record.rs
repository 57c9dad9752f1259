//! Recording a first attempt that ran without a claim: birth, run and end of a whole batch in one statement.

use super::super::bisect::bisected;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::Recorded;
use super::super::{RecordAnswer, Recording, storable};
use super::transition::column;
use crate::task::{HostId, TaskId, WaitCode, settle::LogLine};
use sqlx::{PgConnection, query};
use std::collections::HashSet;

/// The row of a task that had none. The large columns are unnested once, and only here.
macro_rules! born {
    () => {
        "WITH written AS (
            INSERT INTO tasks (id, plugin, plugin_name, queue, state, version, digest, input, output, fingerprint, failure,
                max_attempts, burnt, attempt, snoozes, fence, owner, priority, labels, options, reply_to, correlation_id,
                traceparent, run_at, waiting_code, waiting_detail, created_at, started_at, finished_at, waiting_since,
                last_seq, log_seq)
            SELECT i.id, i.plugin, i.plugin_name, i.queue, i.state, i.version, i.digest, i.input, i.output, i.fingerprint,
                i.failure, i.max_attempts, i.burnt, 1, i.snoozes, 1, $1, i.priority, i.labels, i.options, i.reply_to,
                i.correlation_id, i.traceparent, statement_timestamp() + i.after_us * interval '1 microsecond',
                i.waiting_code, i.waiting_detail, statement_timestamp() - i.ran_us * interval '1 microsecond',
                statement_timestamp() - i.ran_us * interval '1 microsecond',
                CASE WHEN i.state IN ('completed', 'failed', 'cancelled') THEN statement_timestamp() END,
                CASE WHEN i.state IN ('scheduled', 'pending', 'retrying') THEN statement_timestamp() END, 2, i.lines
            FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bytea[],
                $20::text[], $21::text[], $22::text[], $23::bigint[], $24::text[], $25::text[], $26::text[], $27::text[],
                $28::text[], $29::text[])
                AS i(id, state, version, digest, failure, waiting_code, waiting_detail, output, after_us, burnt, snoozes,
                ran_us, lines, max_attempts, fingerprint, plugin, plugin_name, queue, priority, labels, options, reply_to,
                correlation_id, traceparent, input)
            ON CONFLICT (id) DO NOTHING
            RETURNING id, version, digest, failure, started_at, last_seq, log_seq
        ), "
    };
}

/// The row of a task that a relay published and that waits for its first attempt. State and fence are compared in a way
/// that no index serves: rows are to be found by id.
macro_rules! relayed {
    () => {
        "WITH written AS (
            UPDATE tasks t SET state = i.state, version = i.version, digest = i.digest, output = i.output,
                failure = i.failure, max_attempts = i.max_attempts, burnt = i.burnt, attempt = 1, snoozes = i.snoozes,
                fence = 1, owner = $1, waiting_code = i.waiting_code, waiting_detail = i.waiting_detail,
                run_at = COALESCE(statement_timestamp() + i.after_us * interval '1 microsecond', t.run_at),
                started_at = GREATEST(t.created_at, statement_timestamp() - i.ran_us * interval '1 microsecond'),
                finished_at = CASE WHEN i.state IN ('completed', 'failed', 'cancelled') THEN statement_timestamp() END,
                waiting_since = CASE WHEN i.state IN ('scheduled', 'pending', 'retrying') THEN statement_timestamp() END,
                rescued_at = NULL, kill_at = NULL, last_seq = t.last_seq + 2, log_seq = t.log_seq + i.lines
            FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bytea[])
                AS i(id, state, version, digest, failure, waiting_code, waiting_detail, output, after_us, burnt, snoozes,
                ran_us, lines, max_attempts, fingerprint)
            WHERE t.id = i.id AND t.fence IS NOT DISTINCT FROM 0 AND t.state IS NOT DISTINCT FROM 'pending'
                AND t.waiting_code IS NULL AND NOT t.cancel_requested AND t.fingerprint IS NOT DISTINCT FROM i.fingerprint
                AND (t.deadline IS NULL OR t.deadline > statement_timestamp())
            RETURNING t.id, t.version, t.digest, t.failure, t.started_at, t.last_seq, t.log_seq
        ), "
    };
}

/// The history of what was written.
macro_rules! told {
    () => {
        "said AS (
            SELECT * FROM unnest($2::uuid[], $17::text[], $18::text[], $19::text[]) AS e(id, event, detail, usage)
        ), told AS (
            INSERT INTO task_events (task_id, seq, at, event, attempt, fence, host, digest, detail)
            SELECT w.id, w.last_seq - 1 + s.step, CASE s.step WHEN 0 THEN w.started_at ELSE statement_timestamp() END,
                CASE s.step WHEN 0 THEN 'running' ELSE e.event END, 1, 1, $1, w.digest,
                CASE s.step WHEN 1 THEN e.detail END
            FROM written w JOIN said e USING (id) CROSS JOIN (VALUES (0), (1)) AS s(step)
        ), attempted AS (
            INSERT INTO task_attempts (task_id, fence, attempt, host, build, version, digest, started_at, finished_at, ended,
                failure, usage)
            SELECT w.id, 1, 1, $1, (SELECT build FROM hosts WHERE id = $1), w.version, w.digest, w.started_at,
                statement_timestamp(), e.event, w.failure, e.usage
            FROM written w JOIN said e USING (id)
        )"
    };
}

/// Log lines; their columns are the last nine parameters.
macro_rules! logged {
    ($id:literal, $line:literal, $at:literal, $stream:literal, $level:literal, $logger:literal, $message:literal, $cut:literal) => {
        concat!(
            ", logged AS (
            INSERT INTO task_logs (task_id, seq, at, attempt, stream, level, logger, message, cut)
            SELECT w.id, w.log_seq - l.lines + l.line, l.at, 1, l.stream, l.level, l.logger, l.message, l.cut
            FROM written w JOIN (SELECT l.*, count(*) OVER (PARTITION BY l.id) AS lines FROM unnest(",
            $id,
            "::uuid[], ",
            $line,
            "::bigint[], ",
            $at,
            "::timestamptz[], ",
            $stream,
            "::text[], ",
            $level,
            "::text[], ",
            $logger,
            "::text[], ",
            $message,
            "::text[], ",
            $cut,
            "::boolean[]) AS l(id, line, at, stream, level, logger, message, cut)) l USING (id)
        )"
        )
    };
}

macro_rules! written {
    () => {
        " SELECT id FROM written"
    };
}

statements! {
    RECORD = concat!(born!(), told!(), written!());
    RECORD_LOGGED = concat!(
        born!(), told!(), logged!("$30", "$31", "$32", "$33", "$34", "$35", "$36", "$37"), written!());
    RECORD_RELAYED = concat!(relayed!(), told!(), written!());
    RECORD_RELAYED_LOGGED = concat!(
        relayed!(), told!(), logged!("$20", "$21", "$22", "$23", "$24", "$25", "$26", "$27"), written!());
}

pub(super) async fn record(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[Recording],
) -> Result<Vec<RecordAnswer>, Fault> {
    // In the order of ids, as every statement that locks several rows; those with a row apart.
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&index| (batch[index].arrival.relayed.is_some(), batch[index].settlement.id));
    let sorted: Vec<&Recording> = order.iter().map(|&index| &batch[index]).collect();
    let middle = sorted.iter().take_while(|r| r.arrival.relayed.is_none()).count();

    let mut answers = Vec::with_capacity(batch.len());
    for (part, relayed) in [(&sorted[..middle], false), (&sorted[middle..], true)] {
        answers.extend(bisected!(
            part.len(),
            |range| record_sorted(connection, host, &part[range], relayed).await,
            RecordAnswer::Refused
        )?);
    }
    let mut answers: Vec<(usize, RecordAnswer)> = order.into_iter().zip(answers).collect();
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// One log line, and its task.
struct Line<'a> {
    id: TaskId,
    position: i64,
    line: &'a LogLine,
}

async fn record_sorted(
    connection: &mut PgConnection,
    host: HostId,
    batch: &[&Recording],
    relayed: bool,
) -> Result<Vec<RecordAnswer>, Fault> {
    let rows: Vec<Recorded<'_>> = batch.iter().map(|r| Recorded::of(r, host)).collect::<Result<_, _>>()?;
    let lines: Vec<Line<'_>> = rows
        .iter()
        .flat_map(|r| r.outcome.logs.iter().zip(1..).map(|(line, position)| Line { id: r.birth.id, position, line }))
        .collect();
    let text = match (relayed, lines.is_empty()) {
        (false, true) => RECORD,
        (false, false) => RECORD_LOGGED,
        (true, true) => RECORD_RELAYED,
        (true, false) => RECORD_RELAYED_LOGGED,
    };
    let mut statement = query(text)
        .bind(host)
        .bind(column(&rows, |r| r.birth.id))
        .bind(column(&rows, |r| r.outcome.state.as_str()))
        .bind(column(&rows, |r| r.outcome.version))
        .bind(column(&rows, |r| r.outcome.digest))
        .bind(column(&rows, |r| r.outcome.failure.as_deref()))
        .bind(column(&rows, |r| r.outcome.waiting_code.map(WaitCode::as_str)))
        .bind(column(&rows, |r| r.outcome.waiting_detail.as_deref()))
        .bind(column(&rows, |r| r.outcome.output))
        .bind(column(&rows, |r| r.outcome.after.and_then(|after| after.num_microseconds())))
        .bind(column(&rows, |r| i64::from(r.outcome.burns)))
        .bind(column(&rows, |r| i64::from(r.outcome.snoozed)))
        .bind(column(&rows, |r| r.ran_us))
        .bind(column(&rows, |r| r.outcome.logs.len() as i64))
        .bind(column(&rows, |r| i64::from(r.birth.max_attempts)))
        .bind(column(&rows, |r| r.birth.fingerprint))
        .bind(column(&rows, |r| r.outcome.event.as_str()))
        .bind(column(&rows, |r| r.outcome.detail.as_deref()))
        .bind(column(&rows, |r| r.outcome.usage.as_str()));
    if !relayed {
        statement = statement
            .bind(column(&rows, |r| &*r.birth.plugin))
            .bind(column(&rows, |r| &*r.birth.plugin_name))
            .bind(column(&rows, |r| &*r.birth.queue))
            .bind(column(&rows, |r| i64::from(r.birth.priority)))
            .bind(column(&rows, |r| r.birth.labels.as_str()))
            .bind(column(&rows, |r| r.birth.options.as_str()))
            .bind(column(&rows, |r| r.birth.reply_to))
            .bind(column(&rows, |r| r.birth.correlation_id))
            .bind(column(&rows, |r| r.birth.traceparent))
            .bind(column(&rows, |r| r.birth.input));
    }
    if !lines.is_empty() {
        statement = statement
            .bind(column(&lines, |l| l.id))
            .bind(column(&lines, |l| l.position))
            .bind(column(&lines, |l| l.line.at))
            .bind(column(&lines, |l| l.line.stream))
            .bind(column(&lines, |l| l.line.level))
            .bind(column(&lines, |l| storable::text(&l.line.logger)))
            .bind(column(&lines, |l| storable::text(&l.line.message)))
            .bind(column(&lines, |l| l.line.cut));
    }
    let mut written = HashSet::new();
    for row in statement.fetch_all(connection).await? {
        written.insert(need(row.id("id")?, "id")?);
    }
    let answer = |r: &&Recording| match written.contains(&r.settlement.id) {
        true => RecordAnswer::Recorded,
        false => RecordAnswer::Exists,
    };
    Ok(batch.iter().map(answer).collect())
}
