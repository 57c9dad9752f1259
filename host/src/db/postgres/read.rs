//! Reading.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, BODY_SHOWN};
use super::super::{
    AttemptRow, BATCH_BYTES, CallCursor, CallRow, DeadFilter, DeadRow, EventRow, Fields, LogRow, PAGE_BYTES, Page,
    Parked, TaskFilter, TaskRow, rows, storable,
};
use crate::task::{FailureKind, State, TaskId};
use sqlx::{PgConnection, query};

/// A task as it is shown; `$1` and `$2`: with input, with output.
macro_rules! task {
    ($more:literal, $from:literal, $rest:literal) => {
        concat!(
            "SELECT t.id, t.plugin, t.version, t.digest, t.queue, t.state, t.waiting_code, t.waiting_detail,
            t.waiting_since, t.failure, t.attempt, t.max_attempts, t.owner, t.labels, t.priority, t.created_at, t.run_at,
            t.started_at, t.finished_at, t.deadline, t.retry_of, t.traceparent, t.erased_at,
            CASE WHEN $1 THEN t.input END AS input, CASE WHEN $2 THEN t.output END AS output,
            o.task_id IS NOT NULL AS in_outbox, o.reason AS outbox_reason",
            $more,
            " FROM ",
            $from,
            " LEFT JOIN outbox o ON o.task_id = t.id AND t.state = 'pending' ",
            $rest
        )
    };
}

statements! {
    TASK = task!("", "tasks t", "WHERE t.id = $3");
    TASKS = concat!(
        page!("id", "id DESC", "SELECT t.id, CASE WHEN $1 THEN COALESCE(octet_length(t.input), 0)::bigint ELSE 0 END
            + CASE WHEN $2 THEN COALESCE(octet_length(t.output), 0)::bigint ELSE 0 END
            + COALESCE(octet_length(t.failure), 0) + octet_length(t.labels) AS bytes
            FROM tasks t WHERE ($3::text IS NULL OR t.state = $3) AND ($4::text IS NULL OR t.plugin_name = $4 OR t.plugin = $4)
            AND ($5::text IS NULL OR t.queue = $5) AND ($6::text IS NULL OR t.labels::jsonb ->> $6 = $7)
            AND ($8::uuid IS NULL OR t.id < $8) AND ($10::text IS NULL OR t.failure::jsonb ->> 'kind' = $10)
            AND ($11::timestamptz IS NULL OR COALESCE(t.finished_at, t.created_at) >= $11)
            AND ($12::uuid IS NULL OR t.retry_of = $12) ORDER BY t.id DESC LIMIT $9::bigint + 1"),
        task!(", (SELECT count(*) FROM found) AS found", "page p JOIN tasks t ON t.id = p.id",
            "WHERE p.n <= $9 AND (p.n = 1 OR p.total <= $13::bigint) ORDER BY p.id DESC")
    );
    TERMINAL = "SELECT id FROM tasks WHERE id = ANY($1) AND state IN ('completed', 'failed', 'cancelled')";
    EVENTS = concat!(
        page!("seq", "seq", "SELECT seq, COALESCE(octet_length(detail), 0) AS bytes FROM task_events
            WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3::bigint + 1"),
        "SELECT seq, at, event, attempt, fence, host, digest, detail, (SELECT count(*) FROM found) AS found
        FROM task_events WHERE task_id = $1 AND seq > $2
        ORDER BY seq LIMIT (SELECT count(*) FROM page WHERE n <= $3 AND (n = 1 OR total <= $4::bigint))"
    );
    LOGS = concat!(
        page!("seq", "seq", "SELECT seq, octet_length(logger) + octet_length(message) AS bytes FROM task_logs
            WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3::bigint + 1"),
        "SELECT seq, at, attempt, stream, level, logger, message, cut, (SELECT count(*) FROM found) AS found
        FROM task_logs WHERE task_id = $1 AND seq > $2
        ORDER BY seq LIMIT (SELECT count(*) FROM page WHERE n <= $3 AND (n = 1 OR total <= $4::bigint))"
    );
    CALLS = concat!(
        page!("fence, seq", "fence, seq", "SELECT c.fence, c.seq, octet_length(c.target)::bigint + COALESCE(octet_length(c.detail), 0)
            + CASE WHEN $5 THEN COALESCE(octet_length(b.request_body), 0) + COALESCE(octet_length(b.response_body), 0)
                ELSE 0 END AS bytes
            FROM task_calls c
            LEFT JOIN task_call_bodies b ON b.task_id = c.task_id AND b.fence = c.fence AND b.seq = c.seq
            WHERE c.task_id = $1 AND (c.fence, c.seq) > ($2, $3) ORDER BY c.fence, c.seq LIMIT $4::bigint + 1"),
        "SELECT c.fence, c.seq, c.at, c.attempt, c.capability, c.operation, c.target, c.duration_us, c.request_bytes,
            c.response_bytes, c.result, c.detail, b.request_body_bytes, b.response_body_bytes,
            CASE WHEN $5 THEN b.request_body END AS request_body,
            CASE WHEN $5 THEN b.response_body END AS response_body, (SELECT count(*) FROM found) AS found
        FROM task_calls c LEFT JOIN task_call_bodies b ON b.task_id = c.task_id AND b.fence = c.fence AND b.seq = c.seq
        WHERE c.task_id = $1 AND (c.fence, c.seq) > ($2, $3)
        ORDER BY c.fence, c.seq LIMIT (SELECT count(*) FROM page WHERE n <= $4 AND (n = 1 OR total <= $6::bigint))"
    );
    ATTEMPTS = "SELECT a.attempt, a.fence, a.host, a.build, a.version, a.digest, a.started_at, a.finished_at, a.ended,
            a.failure, a.usage, (SELECT CAST(sum(c.duration_us) AS bigint) FROM task_calls c
                WHERE c.task_id = a.task_id AND c.fence = a.fence) AS called_us
        FROM task_attempts a WHERE a.task_id = $1 ORDER BY a.fence";
    DEAD = concat!(
        page!("id", "id DESC", "SELECT id, LEAST(octet_length(body), $5)::bigint + octet_length(detail)
                + octet_length(properties) AS bytes FROM dead_letters
            WHERE ($1::text IS NULL OR reason = $1) AND ($2::text IS NULL OR queue = $2) AND ($3::bigint IS NULL OR id < $3)
                AND ($6::timestamptz IS NULL OR at >= $6) AND (NOT $7 OR redriven_at IS NULL AND erased_at IS NULL)
            ORDER BY id DESC LIMIT $4::bigint + 1"),
        "SELECT d.id, d.at, d.reason, d.detail, d.queue, d.task_id, d.plugin, substring(d.body FROM 1 FOR $5) AS body,
            octet_length(d.body)::bigint AS body_bytes, d.properties, d.redriven_at, d.redriven_as, d.erased_at,
            (SELECT count(*) FROM found) AS found
        FROM page p JOIN dead_letters d ON d.id = p.id
        WHERE p.n <= $4 AND (p.n = 1 OR p.total <= $8::bigint) ORDER BY p.id DESC"
    );
    /// Each plugin's first rows by the index, then the first of all; the payload is read for those alone.
    PARKED = "WITH first AS (
        SELECT p.id, p.priority, p.created_at FROM unnest($1::text[]) AS name CROSS JOIN LATERAL (
            SELECT t.id, t.priority, t.created_at FROM tasks t
            WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL AND t.plugin_name = name
                AND ($3 OR t.waiting_code <> 'isolation') AND t.plugin <> ALL($4)
            ORDER BY t.priority DESC, t.created_at, t.id LIMIT $2) AS p
        ORDER BY p.priority DESC, p.created_at, p.id LIMIT $2
    ), page AS (
        SELECT f.id, row_number() OVER w AS n, sum(COALESCE(octet_length(t.input), 0)) OVER w AS total
        FROM first f JOIN tasks t ON t.id = f.id WHERE t.fingerprint IS NOT NULL
        WINDOW w AS (ORDER BY f.priority DESC, f.created_at, f.id)
    )
    SELECT t.id, t.queue, t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent
    FROM page p JOIN tasks t ON t.id = p.id WHERE p.n = 1 OR p.total <= $5::bigint ORDER BY p.n";
}

pub(super) async fn task(connection: &mut PgConnection, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, Fault> {
    let row = query(TASK).bind(fields.input).bind(fields.output).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(rows::task).transpose()
}

pub(super) async fn tasks(
    connection: &mut PgConnection,
    filter: &TaskFilter,
    fields: Fields,
) -> Result<Page<TaskRow>, Fault> {
    let (key, value) = filter.label.as_ref().map(|(key, value)| (key.as_str(), value.as_str())).unzip();
    let rows = query(TASKS)
        .bind(fields.input)
        .bind(fields.output)
        .bind(filter.state.map(State::as_str))
        .bind(filter.plugin.as_deref().map(storable::text))
        .bind(filter.queue.as_deref().map(storable::text))
        .bind(key.map(storable::text))
        .bind(value.map(storable::text))
        .bind(filter.before)
        .bind(i64::from(filter.limit))
        .bind(filter.kind.map(FailureKind::as_str))
        .bind(filter.since)
        .bind(filter.retry_of)
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::task)
}

pub(super) async fn terminal(connection: &mut PgConnection, ids: &[TaskId]) -> Result<Vec<TaskId>, Fault> {
    let rows = query(TERMINAL).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.id("id")?, "id")).collect()
}

pub(super) async fn events(
    connection: &mut PgConnection,
    id: TaskId,
    after: i64,
    limit: u32,
) -> Result<Page<EventRow>, Fault> {
    let rows = query(EVENTS).bind(id).bind(after).bind(i64::from(limit)).bind(PAGE_BYTES).fetch_all(connection).await?;
    rows::page(&rows, rows::event)
}

pub(super) async fn logs(
    connection: &mut PgConnection,
    id: TaskId,
    after: i64,
    limit: u32,
) -> Result<Page<LogRow>, Fault> {
    let rows = query(LOGS).bind(id).bind(after).bind(i64::from(limit)).bind(PAGE_BYTES).fetch_all(connection).await?;
    rows::page(&rows, rows::log)
}

pub(super) async fn calls(
    connection: &mut PgConnection,
    id: TaskId,
    after: CallCursor,
    limit: u32,
    bodies: bool,
) -> Result<Page<CallRow>, Fault> {
    let rows = query(CALLS)
        .bind(id)
        .bind(after.fence)
        .bind(after.seq)
        .bind(i64::from(limit))
        .bind(bodies)
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::call)
}

pub(super) async fn attempts(connection: &mut PgConnection, id: TaskId) -> Result<Vec<AttemptRow>, Fault> {
    let rows = query(ATTEMPTS).bind(id).fetch_all(connection).await?;
    rows.iter().map(rows::attempt).collect()
}

pub(super) async fn parked(
    connection: &mut PgConnection,
    plugins: &[String],
    except: &[String],
    lane: bool,
    limit: u32,
) -> Result<Parked, Fault> {
    let rows = query(PARKED).bind(plugins).bind(i64::from(limit)).bind(lane).bind(except);
    let rows = rows.bind(plan::counted(BATCH_BYTES)).fetch_all(connection).await?;
    rows::parked(&rows)
}

pub(super) async fn dead_letters(connection: &mut PgConnection, filter: &DeadFilter) -> Result<Page<DeadRow>, Fault> {
    let rows = query(DEAD)
        .bind(filter.reason.as_deref().map(storable::text))
        .bind(filter.queue.as_deref().map(storable::text))
        .bind(filter.before)
        .bind(i64::from(filter.limit))
        .bind(i32::try_from(BODY_SHOWN).unwrap_or(i32::MAX))
        .bind(filter.since)
        .bind(filter.waiting)
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::dead)
}
