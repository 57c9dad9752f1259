//! Reading.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, BODY_SHOWN};
use super::super::{
    AttemptRow, BATCH_BYTES, CallCursor, CallRow, DeadFilter, DeadRow, EventRow, Fields, LogRow, PAGE_BYTES, Page,
    Parked, ParkedLook, TaskFilter, TaskRow, lists, parked, rows,
};
use crate::task::{FailureKind, State, TaskId};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection, query};

/// A task as it is shown; `?1` and `?2`: with input, with output.
macro_rules! task {
    ($more:literal, $from:literal, $rest:literal) => {
        concat!(
            "SELECT t.id, t.plugin, t.version, t.digest, t.queue, t.state, t.waiting_code, t.waiting_detail,
            t.waiting_since, t.failure, t.attempt, t.max_attempts, t.owner, t.labels, t.priority, t.created_at, t.run_at,
            t.started_at, t.finished_at, t.deadline, t.retry_of, t.traceparent, t.erased_at,
            CASE WHEN ?1 THEN t.input END AS input, CASE WHEN ?2 THEN t.output END AS output,
            o.task_id IS NOT NULL AS in_outbox, o.reason AS outbox_reason",
            $more,
            " FROM ",
            $from,
            " LEFT JOIN outbox o ON o.task_id = t.id AND t.state = 'pending' ",
            $rest
        )
    };
}

/// A page of a list of tasks, by a condition that leads to an index.
macro_rules! listed {
    ($leading:expr) => {
        concat!(
            "WITH found AS (SELECT t.id, t.created_at,
                CASE WHEN ?1 THEN COALESCE(octet_length(t.input), 0) ELSE 0 END
                + CASE WHEN ?2 THEN COALESCE(octet_length(t.output), 0) ELSE 0 END
                + COALESCE(octet_length(t.failure), 0) + octet_length(t.labels) AS bytes
            FROM tasks t WHERE (t.created_at, t.id) < (?8, ?14) AND ",
            $leading,
            " AND (?3 IS NULL OR t.state = ?3) AND (?4 IS NULL OR t.plugin_name = ?4) AND (?5 IS NULL OR t.queue = ?5)
            AND (?6 IS NULL OR EXISTS (SELECT 1 FROM json_each(t.labels) l WHERE l.key = ?6 AND l.value = ?7))
            AND (?10 IS NULL OR t.failure ->> '$.kind' = ?10)
            AND (?11 IS NULL OR COALESCE(t.finished_at, t.created_at) >= ?11)
            AND (?12 IS NULL OR t.retry_of = ?12) ORDER BY t.created_at DESC, t.id DESC LIMIT ?9 + 1
            ), page AS (SELECT id, created_at, row_number() OVER w AS n, sum(bytes) OVER w AS total FROM found
                WINDOW w AS (ORDER BY created_at DESC, id DESC)) ",
            task!(
                ", (SELECT count(*) FROM found) AS found",
                "page p JOIN tasks t ON t.id = p.id",
                "WHERE p.n <= ?9 AND (p.n = 1 OR p.total <= ?13) ORDER BY p.n"
            )
        )
    };
}

/// Tasks that ended since a time, and those that have not ended and were created since, each by its index.
macro_rules! since {
    ($since:literal) => {
        concat!(
            "SELECT id FROM tasks WHERE state = 'completed' AND finished_at >= ",
            $since,
            " UNION ALL SELECT id FROM tasks WHERE state IN ('failed', 'cancelled') AND finished_at >= ",
            $since,
            " UNION ALL SELECT id FROM tasks WHERE finished_at IS NULL AND created_at >= ",
            $since
        )
    };
}

statements! {
    TASK = task!("", "tasks t", "WHERE t.id = ?3");
    /// Tasks in the order of their creation. SQLite chooses a plan before it knows the parameters: a condition that may be absent
    /// names no index. So each of the others leads with one that is there.
    TASKS = listed!("TRUE");
    TASKS_OF_STATE = listed!("t.state = ?3 AND t.state IN ('scheduled', 'pending', 'retrying', 'failed', 'cancelled')");
    TASKS_RUNNING = listed!("t.id IN (SELECT id FROM tasks WHERE state = 'running')");
    TASKS_OF_PLUGIN = listed!("t.plugin_name = ?4");
    TASKS_OF_QUEUE = listed!("t.queue = ?5 AND t.queue <> 'default'");
    TASKS_LABELLED = listed!("t.labels <> '{}'");
    TASKS_OF_KIND = listed!("t.failure IS NOT NULL AND t.failure ->> '$.kind' = ?10");
    TASKS_OF_RETRIES = listed!("t.retry_of = ?12");
    TASKS_SINCE = listed!(concat!("t.id IN (", since!("?11"), ")"));
    /// Counts tasks since a time, up to a bound: only few of them are sorted.
    SINCE = concat!("SELECT count(*) AS found FROM (", since!("?1"), " LIMIT ?2)");
    TERMINAL = "SELECT id FROM tasks WHERE id IN (SELECT value FROM json_each(?1))
        AND state IN ('completed', 'failed', 'cancelled')";
    EVENTS = concat!(
        page!("seq", "seq", "SELECT seq, COALESCE(octet_length(detail), 0) AS bytes FROM task_events
            WHERE task_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3 + 1"),
        "SELECT seq, at, event, attempt, fence, host, digest, detail, (SELECT count(*) FROM found) AS found
        FROM task_events WHERE task_id = ?1 AND seq > ?2
        ORDER BY seq LIMIT (SELECT count(*) FROM page WHERE n <= ?3 AND (n = 1 OR total <= ?4))"
    );
    LOGS = concat!(
        page!("seq", "seq", "SELECT seq, octet_length(logger) + octet_length(message) AS bytes FROM task_logs
            WHERE task_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3 + 1"),
        "SELECT seq, at, attempt, stream, level, logger, message, cut, (SELECT count(*) FROM found) AS found
        FROM task_logs WHERE task_id = ?1 AND seq > ?2
        ORDER BY seq LIMIT (SELECT count(*) FROM page WHERE n <= ?3 AND (n = 1 OR total <= ?4))"
    );
    CALLS = concat!(
        page!("fence, seq", "fence, seq", "SELECT c.fence, c.seq, octet_length(c.target) + COALESCE(octet_length(c.detail), 0)
            + CASE WHEN ?5 THEN COALESCE(octet_length(b.request_body), 0) + COALESCE(octet_length(b.response_body), 0)
                ELSE 0 END AS bytes
            FROM task_calls c
            LEFT JOIN task_call_bodies b ON b.task_id = c.task_id AND b.fence = c.fence AND b.seq = c.seq
            WHERE c.task_id = ?1 AND (c.fence, c.seq) > (?2, ?3) ORDER BY c.fence, c.seq LIMIT ?4 + 1"),
        "SELECT c.fence, c.seq, c.at, c.attempt, c.capability, c.operation, c.target, c.duration_us, c.request_bytes,
            c.response_bytes, c.result, c.detail, b.request_body_bytes, b.response_body_bytes,
            CASE WHEN ?5 THEN b.request_body END AS request_body,
            CASE WHEN ?5 THEN b.response_body END AS response_body, (SELECT count(*) FROM found) AS found
        FROM task_calls c LEFT JOIN task_call_bodies b ON b.task_id = c.task_id AND b.fence = c.fence AND b.seq = c.seq
        WHERE c.task_id = ?1 AND (c.fence, c.seq) > (?2, ?3)
        ORDER BY c.fence, c.seq LIMIT (SELECT count(*) FROM page WHERE n <= ?4 AND (n = 1 OR total <= ?6))"
    );
    ATTEMPTS = "SELECT a.attempt, a.fence, a.host, a.build, a.version, a.digest, a.started_at, a.finished_at, a.ended,
            a.failure, a.usage, (SELECT CAST(sum(c.duration_us) AS bigint) FROM task_calls c
                WHERE c.task_id = a.task_id AND c.fence = a.fence) AS called_us
        FROM task_attempts a WHERE a.task_id = ?1 ORDER BY a.fence";
    DEAD = concat!(
        page!("id", "id DESC", "SELECT id, MIN(length(body), ?5) + octet_length(detail) + octet_length(properties) AS bytes
            FROM dead_letters
            WHERE (?1 IS NULL OR reason = ?1) AND (?2 IS NULL OR queue = ?2) AND id < COALESCE(?3, 9223372036854775807)
                AND (?6 IS NULL OR at >= ?6) AND (NOT ?7 OR redriven_at IS NULL AND erased_at IS NULL)
            ORDER BY id DESC LIMIT ?4 + 1"),
        "SELECT d.id, d.at, d.reason, d.detail, d.queue, d.task_id, d.plugin, COALESCE(substr(d.body, 1, ?5), x'') AS body,
            length(d.body) AS body_bytes, d.properties, d.redriven_at, d.redriven_as, d.erased_at,
            (SELECT count(*) FROM found) AS found
        FROM page p JOIN dead_letters d ON d.id = p.id
        WHERE p.n <= ?4 AND (p.n = 1 OR p.total <= ?8) ORDER BY p.id DESC"
    );
    /// SQLite plans before it knows the parameters: with the others this one would use no index.
    DEAD_OF_TASK = concat!(
        page!("id", "id DESC", "SELECT id, MIN(length(body), ?5) + octet_length(detail) + octet_length(properties) AS bytes
            FROM dead_letters
            WHERE task_id = ?9 AND (?1 IS NULL OR reason = ?1) AND (?2 IS NULL OR queue = ?2)
                AND id < COALESCE(?3, 9223372036854775807) AND (?6 IS NULL OR at >= ?6) AND (NOT ?7 OR redriven_at IS NULL AND erased_at IS NULL)
            ORDER BY id DESC LIMIT ?4 + 1"),
        "SELECT d.id, d.at, d.reason, d.detail, d.queue, d.task_id, d.plugin, COALESCE(substr(d.body, 1, ?5), x'') AS body,
            length(d.body) AS body_bytes, d.properties, d.redriven_at, d.redriven_as, d.erased_at,
            (SELECT count(*) FROM found) AS found
        FROM page p JOIN dead_letters d ON d.id = p.id
        WHERE p.n <= ?4 AND (p.n = 1 OR p.total <= ?8) ORDER BY p.id DESC"
    );
    /// The index is named: SQLite takes that of all tasks of these plugins.
    PARKED = "WITH page AS (
        SELECT id, row_number() OVER w AS n, sum(bytes) OVER w AS total FROM (
            SELECT id, priority, created_at, COALESCE(octet_length(input), 0) AS bytes FROM tasks INDEXED BY tasks_parked
        WHERE state = 'pending' AND waiting_code IS NOT NULL AND plugin_name IN (SELECT value FROM json_each(?1))
            AND fingerprint IS NOT NULL AND (?3 OR waiting_code <> 'isolation')
            AND plugin NOT IN (SELECT value FROM json_each(?4)) AND queue NOT IN (SELECT value FROM json_each(?9))
            AND (?6 IS NULL OR priority < ?6 OR priority = ?6 AND (created_at, id) > (?7, ?8))
        ORDER BY priority DESC, created_at, id LIMIT ?2) WINDOW w AS (ORDER BY priority DESC, created_at, id)
    )
    SELECT t.id, t.queue, t.plugin, t.input, t.options, t.fingerprint, t.reply_to, t.correlation_id, t.traceparent,
        t.priority, t.created_at, (SELECT count(*) FROM page) AS found
    FROM page p JOIN tasks t ON t.id = p.id WHERE p.n = 1 OR p.total <= ?5 ORDER BY p.n";
}

pub(super) async fn task(
    connection: &mut SqliteConnection,
    id: TaskId,
    fields: Fields,
) -> Result<Option<TaskRow>, Fault> {
    let row =
        query(TASK).bind(fields.input).bind(fields.output).bind(id.hyphenated()).fetch_optional(connection).await?;
    row.as_ref().map(rows::task).transpose()
}

pub(super) async fn tasks(
    connection: &mut SqliteConnection,
    filter: &TaskFilter,
    fields: Fields,
) -> Result<Page<TaskRow>, Fault> {
    let (key, value) = filter.label.as_ref().map(|(key, value)| (key.as_str(), value.as_str())).unzip();
    let before = match filter.before {
        Some(before) => (stamp(before.created_at), before.id.hyphenated().to_string()),
        // Behind every stamp, and so before the newest.
        None => ("~".to_owned(), "~".to_owned()),
    };
    let rows = query(leading(connection, filter).await?)
        .bind(fields.input)
        .bind(fields.output)
        .bind(filter.state.map(State::as_str))
        .bind(filter.plugin.as_deref())
        .bind(filter.queue.as_deref())
        .bind(key)
        .bind(value)
        .bind(before.0)
        .bind(filter.limit)
        .bind(filter.kind.map(FailureKind::as_str))
        .bind(filter.since.map(stamp))
        .bind(filter.retry_of.map(|id| id.hyphenated()))
        .bind(PAGE_BYTES)
        .bind(before.1)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::task)
}

/// The tasks that fit one of several filters.
pub(super) async fn tasks_of_any(
    connection: &mut SqliteConnection,
    any: &[TaskFilter],
    fields: Fields,
) -> Result<Page<TaskRow>, Fault> {
    if let [filter] = any {
        return tasks(connection, filter, fields).await;
    }
    let mut tx = connection.begin().await?;
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

/// The statement that leads with the filter which leaves the fewest tasks, as far as filters tell.
async fn leading(connection: &mut SqliteConnection, filter: &TaskFilter) -> Result<&'static str, Fault> {
    Ok(match filter {
        TaskFilter { retry_of: Some(_), .. } => TASKS_OF_RETRIES,
        TaskFilter { kind: Some(_), .. } => TASKS_OF_KIND,
        TaskFilter { state: Some(State::Running), .. } => TASKS_RUNNING,
        TaskFilter { since: Some(since), .. } if few(connection, stamp(*since)).await? => TASKS_SINCE,
        TaskFilter { state: Some(state), .. } if *state != State::Completed => TASKS_OF_STATE,
        TaskFilter { queue: Some(queue), .. } if queue != "default" => TASKS_OF_QUEUE,
        TaskFilter { plugin: Some(_), .. } => TASKS_OF_PLUGIN,
        TaskFilter { label: Some(_), .. } => TASKS_LABELLED,
        _ => TASKS,
    })
}

async fn few(connection: &mut SqliteConnection, since: String) -> Result<bool, Fault> {
    let row = query(SINCE).bind(since).bind(plan::FEW + 1).fetch_one(connection).await?;
    Ok(need(row.int("found")?, "found")? <= plan::FEW)
}

pub(super) async fn terminal(connection: &mut SqliteConnection, ids: &[TaskId]) -> Result<Vec<TaskId>, Fault> {
    let ids: Value = ids.iter().map(|id| id.hyphenated().to_string()).collect();
    let rows = query(TERMINAL).bind(ids.to_string()).fetch_all(connection).await?;
    rows.iter().map(|row| need(row.id("id")?, "id")).collect()
}

pub(super) async fn events(
    connection: &mut SqliteConnection,
    id: TaskId,
    after: i64,
    limit: u32,
) -> Result<Page<EventRow>, Fault> {
    let rows =
        query(EVENTS).bind(id.hyphenated()).bind(after).bind(limit).bind(PAGE_BYTES).fetch_all(connection).await?;
    rows::page(&rows, rows::event)
}

pub(super) async fn logs(
    connection: &mut SqliteConnection,
    id: TaskId,
    after: i64,
    limit: u32,
) -> Result<Page<LogRow>, Fault> {
    let rows = query(LOGS).bind(id.hyphenated()).bind(after).bind(limit).bind(PAGE_BYTES).fetch_all(connection).await?;
    rows::page(&rows, rows::log)
}

pub(super) async fn calls(
    connection: &mut SqliteConnection,
    id: TaskId,
    after: CallCursor,
    limit: u32,
    bodies: bool,
) -> Result<Page<CallRow>, Fault> {
    let rows = query(CALLS)
        .bind(id.hyphenated())
        .bind(after.fence)
        .bind(after.seq)
        .bind(limit)
        .bind(bodies)
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, rows::call)
}

pub(super) async fn attempts(connection: &mut SqliteConnection, id: TaskId) -> Result<Vec<AttemptRow>, Fault> {
    let rows = query(ATTEMPTS).bind(id.hyphenated()).fetch_all(connection).await?;
    rows.iter().map(rows::attempt).collect()
}

pub(super) async fn parked(connection: &mut SqliteConnection, look: &ParkedLook) -> Result<Parked, Fault> {
    let list = |names: &[String]| Value::from(names).to_string();
    let rows = query(PARKED)
        .bind(list(&look.plugins))
        .bind(look.limit)
        .bind(look.lane)
        .bind(list(&look.except))
        .bind(plan::counted(BATCH_BYTES))
        .bind(look.after.map(|after| after.priority.0))
        .bind(look.after.map(|after| stamp(after.created_at)))
        .bind(look.after.map(|after| after.id.hyphenated()))
        .bind(list(&look.except_queues))
        .fetch_all(connection)
        .await?;
    parked::read(&rows, look.limit)
}

pub(super) async fn dead_letters(
    connection: &mut SqliteConnection,
    filter: &DeadFilter,
) -> Result<Page<DeadRow>, Fault> {
    let mut statement = query(if filter.task.is_some() { DEAD_OF_TASK } else { DEAD })
        .bind(filter.reason.as_deref())
        .bind(filter.queue.as_deref())
        .bind(filter.before)
        .bind(filter.limit)
        .bind(BODY_SHOWN)
        .bind(filter.since.map(stamp))
        .bind(filter.waiting)
        .bind(PAGE_BYTES);
    if let Some(id) = filter.task {
        statement = statement.bind(id.hyphenated());
    }
    let rows = statement.fetch_all(connection).await?;
    rows::page(&rows, rows::dead)
}
