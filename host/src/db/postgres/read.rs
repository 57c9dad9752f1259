//! Reading.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, BODY_SHOWN};
use super::super::{
    AttemptRow, BATCH_BYTES, BENCH_LABEL, CallCursor, CallRow, DeadFilter, DeadRow, EventRow, Fields, LogRow,
    PAGE_BYTES, Page, Parked, ParkedLook, TaskFilter, TaskRow, lists, parked, rows, storable,
};
use crate::task::{FailureKind, State, TaskId};
use sqlx::{Connection, PgConnection, query};

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

/// Bytes of a task's row that count for a page.
macro_rules! bytes {
    () => {
        "CASE WHEN $1 THEN COALESCE(octet_length(t.input), 0)::bigint ELSE 0 END
            + CASE WHEN $2 THEN COALESCE(octet_length(t.output), 0)::bigint ELSE 0 END
            + COALESCE(octet_length(t.failure), 0) + octet_length(t.labels) AS bytes"
    };
}

/// The conditions of a list. An absent one is a constant when the statement is planned. Each names an index: see migration 10. `since` has
/// a condition for each index of ends, since one over both times would be an expression that no index has.
macro_rules! filters {
    () => {
        "($3::text IS NULL OR t.state = $3) AND ($4::text IS NULL OR t.plugin_name = $4)
            AND ($5::text IS NULL OR t.queue = $5)
            AND ($6::text IS NULL OR t.failure IS NOT NULL AND t.failure::jsonb ->> 'kind' = $6)
            AND ($7::timestamptz IS NULL OR t.state = 'completed' AND t.finished_at >= $7
                OR t.state IN ('failed', 'cancelled') AND t.finished_at >= $7
                OR t.state IN ('scheduled', 'pending', 'running', 'retrying') AND t.created_at >= $7)
            AND ($8::uuid IS NULL OR t.retry_of = $8)
            AND ($9::timestamptz IS NULL OR (t.created_at, t.id) < ($9, $10::uuid))"
    };
}

/// A list of tasks, from what finds them; `=>`: what stands before.
macro_rules! listed {
    (@with) => { "WITH " };
    (@with $before:literal) => { $before };
    ($($found:expr),+ $(=> $before:literal)?) => {
        concat!(
            listed!(@with $($before)?),
            "found AS (", $($found),+,
            "), page AS (SELECT id, created_at, row_number() OVER w AS n, sum(bytes) OVER w AS total FROM found
                WINDOW w AS (ORDER BY created_at DESC, id DESC)) ",
            task!(", (SELECT count(*) FROM found) AS found", "page p JOIN tasks t ON t.id = p.id",
                "WHERE p.n <= $11 AND (p.n = 1 OR p.total <= $12::bigint) ORDER BY p.n")
        )
    };
}

/// The conditions of the index for tasks of `agentry bench` that have ended, or have not.
macro_rules! benched {
    ($ended:literal) => {
        concat!(
            "t.labels <> '{}' AND t.labels::jsonb ->> 'agentry-bench' IS NOT NULL AND t.finished_at ",
            $ended,
            " AND t.labels::jsonb ->> 'agentry-bench' = $13"
        )
    };
}

statements! {
    TASK = task!("", "tasks t", "WHERE t.id = $3");
    TASKS = listed!("SELECT t.id, t.created_at, ", bytes!(), " FROM tasks t WHERE ", filters!(),
        " ORDER BY t.created_at DESC, t.id DESC LIMIT $11::bigint + 1");
    /// A label that few tasks carry is found by the index of labels, and its tasks are sorted. The tasks of a common one are found among
    /// the newest: no index has an order by time within each label. Which it is, is counted first, up to a bound.
    TASKS_LABELLED = listed!("SELECT * FROM ((SELECT t.id, t.created_at, ", bytes!(), " FROM few f JOIN tasks t ON t.id = f.id
            WHERE (SELECT count(*) FROM few) <= $16::bigint AND ", filters!(),
        " ORDER BY t.created_at DESC, t.id DESC LIMIT $11::bigint + 1) UNION ALL (SELECT t.id, t.created_at, ", bytes!(), " FROM tasks t
            WHERE (SELECT count(*) FROM few) > $16::bigint AND t.labels <> '{}' AND t.labels::jsonb ->> $13 = $14 AND ", filters!(),
        " ORDER BY t.created_at DESC, t.id DESC LIMIT $11::bigint + 1)) both_ways ORDER BY created_at DESC, id DESC LIMIT $11::bigint + 1"
        => r#"WITH few AS MATERIALIZED (SELECT id FROM tasks WHERE labels <> '{}' AND labels !~ '^\{"agentry-bench":"[0-9a-f]{32}"\}$'
            AND labels::jsonb @> ($15::text)::jsonb LIMIT $16::bigint + 1), "#);
    /// A run of `agentry bench`, by the indexes of its label.
    TASKS_OF_BENCH = listed!("SELECT * FROM ((SELECT t.id, t.created_at, ", bytes!(), " FROM tasks t WHERE ",
        benched!("IS NOT NULL"), " AND ", filters!(),
        " ORDER BY t.created_at DESC, t.id DESC LIMIT $11::bigint + 1) UNION ALL (SELECT t.id, t.created_at, ", bytes!(), " FROM tasks t WHERE ",
        benched!("IS NULL"), " AND ", filters!(),
        " ORDER BY t.created_at DESC, t.id DESC LIMIT $11::bigint + 1)) both_ways ORDER BY created_at DESC, id DESC LIMIT $11::bigint + 1");
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
                AND ($9::uuid IS NULL OR task_id = $9)
            ORDER BY id DESC LIMIT $4::bigint + 1"),
        "SELECT d.id, d.at, d.reason, d.detail, d.queue, d.task_id, d.plugin, substring(d.body FROM 1 FOR $5) AS body,
            octet_length(d.body)::bigint AS body_bytes, d.properties, d.redriven_at, d.redriven_as, d.erased_at,
            (SELECT count(*) FROM found) AS found
        FROM page p JOIN dead_letters d ON d.id = p.id
        WHERE p.n <= $4 AND (p.n = 1 OR p.total <= $8::bigint) ORDER BY p.id DESC"
    );
    /// Each plugin's first rows by the index, then the first of all; the payload is read for those alone. Behind a position the rows of its
    /// priority and those of lower ones are found apart: one condition for both would read every row before it.
    PARKED = "WITH first AS (
        SELECT p.id, p.priority, p.created_at FROM unnest($1::text[]) AS name CROSS JOIN LATERAL (
            SELECT b.id, b.priority, b.created_at FROM (
                (SELECT t.id, t.priority, t.created_at FROM tasks t
                WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL AND t.plugin_name = name
                    AND ($3 OR t.waiting_code <> 'isolation') AND t.plugin <> ALL($4) AND t.queue <> ALL($9)
                    AND t.priority = $6::bigint AND (t.created_at, t.id) > ($7, $8)
                ORDER BY t.priority DESC, t.created_at, t.id LIMIT $2)
                UNION ALL
                (SELECT t.id, t.priority, t.created_at FROM tasks t
                WHERE t.state = 'pending' AND t.waiting_code IS NOT NULL AND t.plugin_name = name
                    AND ($3 OR t.waiting_code <> 'isolation') AND t.plugin <> ALL($4) AND t.queue <> ALL($9)
                    AND ($6::bigint IS NULL OR t.priority < $6)
                ORDER BY t.priority DESC, t.created_at, t.id LIMIT $2)) AS b
            ORDER BY b.priority DESC, b.created_at, b.id LIMIT $2) AS p
        ORDER BY p.priority DESC, p.created_at, p.id LIMIT $2
    ), page AS (
        SELECT f.id, row_number() OVER w AS n, sum(COALESCE(octet_length(t.input), 0)) OVER w AS total
        FROM first f JOIN tasks t ON t.id = f.id WHERE t.fingerprint IS NOT NULL
        WINDOW w AS (ORDER BY f.priority DESC, f.created_at, f.id)
    )
    SELECT t.id, t.queue, t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent,
        t.priority, t.created_at, (SELECT count(*) FROM page) AS found
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
    let is_bench = |(key, _): &(String, String)| key == BENCH_LABEL;
    let statement = query(match &filter.label {
        None => TASKS,
        Some(label) if is_bench(label) => TASKS_OF_BENCH,
        Some(_) => TASKS_LABELLED,
    })
    .bind(fields.input)
    .bind(fields.output)
    .bind(filter.state.map(State::as_str))
    .bind(filter.plugin.as_deref().map(storable::text))
    .bind(filter.queue.as_deref().map(storable::text))
    .bind(filter.kind.map(FailureKind::as_str))
    .bind(filter.since)
    .bind(filter.retry_of)
    .bind(filter.before.map(|before| before.created_at))
    .bind(filter.before.map(|before| before.id))
    .bind(i64::from(filter.limit))
    .bind(PAGE_BYTES);
    let statement = match &filter.label {
        None => statement,
        Some(label) if is_bench(label) => statement.bind(storable::text(&label.1)),
        Some((key, value)) => {
            let label = storable::json(&serde_json::json!({ key: value }));
            statement.bind(storable::text(key)).bind(storable::text(value)).bind(label).bind(plan::FEW)
        }
    };
    let rows = statement.fetch_all(connection).await?;
    rows::page(&rows, rows::task)
}

/// The tasks that fit one of several filters.
pub(super) async fn tasks_of_any(
    connection: &mut PgConnection,
    any: &[TaskFilter],
    fields: Fields,
) -> Result<Page<TaskRow>, Fault> {
    if let [filter] = any {
        return tasks(connection, filter, fields).await;
    }
    let mut tx = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let mut pages = Vec::with_capacity(any.len());
    for filter in any {
        pages.push(tasks(&mut tx, filter, Fields::default()).await?);
    }
    let (mut page, mut bytes) = (lists::merge(pages, lists::limit(any)), 0);
    let filled = if fields == Fields::default() { 0 } else { page.rows.len() };
    for at in 0..filled {
        let row = task(&mut tx, page.rows[at].id, fields).await?;
        if !lists::put(&mut page, at, row, &mut bytes) {
            break;
        }
    }
    tx.commit().await?;
    Ok(page)
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

pub(super) async fn parked(connection: &mut PgConnection, look: &ParkedLook) -> Result<Parked, Fault> {
    let rows = query(PARKED)
        .bind(&look.plugins)
        .bind(i64::from(look.limit))
        .bind(look.lane)
        .bind(&look.except)
        .bind(plan::counted(BATCH_BYTES))
        .bind(look.after.map(|after| after.priority.0))
        .bind(look.after.map(|after| after.created_at))
        .bind(look.after.map(|after| after.id))
        .bind(&look.except_queues)
        .fetch_all(connection)
        .await?;
    parked::read(&rows, look.limit)
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
        .bind(filter.task)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::dead)
}
