//! Rows read back into what they mean, alike from both databases.

use super::cells::{Cells, need, parsed};
use super::fault::Fault;
use super::plan::{BODY_SHOWN, Former, Locked};
use super::schema::Applied;
use super::{
    AskedTask, AttemptRow, CallRow, DeadRow, EventRow, HostRecord, HostRow, KeyRow, LabelledTasks, LogRow, MemoryRow,
    OutboxRow, Page, Redrive, TableSize, TaskRow, UnpublishedLetter, Unread,
};
use crate::task::{Event, Failure, State, TaskId, TaskMessage, WaitCode, Waiting, claim};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A page of a list; its column `found` is the number of rows that were found, which is one more than asked for if there are
/// as many.
pub(super) fn page<R: Cells, T>(rows: &[R], read: impl Fn(&R) -> Result<T, Fault>) -> Result<Page<T>, Fault> {
    let found = rows.first().map(|row| need(row.int("found")?, "found")).transpose()?.unwrap_or_default();
    let rows = rows.iter().map(read).collect::<Result<Vec<T>, Fault>>()?;
    Ok(Page { more: found > rows.len() as i64, rows })
}

/// Columns: `value`, `ended`, `unfinished`, `last_at`.
pub(super) fn labelled(row: &impl Cells) -> Result<LabelledTasks, Fault> {
    Ok(LabelledTasks {
        value: need(row.text("value")?, "value")?,
        ended: need(row.int("ended")?, "ended")?.unsigned_abs(),
        unfinished: need(row.int("unfinished")?, "unfinished")?.unsigned_abs(),
        last_at: need(row.time("last_at")?, "last_at")?,
    })
}

/// The rows that this build can read. The others are left as they are: a newer build may know them.
pub(super) fn readable<R, T>(rows: &[R], read: impl Fn(&R) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let mut read_rows = Vec::with_capacity(rows.len());
    for row in rows {
        match read(row) {
            Ok(row) => read_rows.push(row),
            Err(fault @ Fault::Row(_)) => tracing::debug!(reason = fault.reason(), "a task is left alone"),
            Err(fault) => return Err(fault),
        }
    }
    Ok(read_rows)
}

/// Columns: those of `LOCKED`. Whether the owner is alive is read afterwards.
pub(super) fn locked(row: &impl Cells) -> Result<Locked, Fault> {
    try_locked(row).map_err(Fault::of_row)
}

fn try_locked(row: &impl Cells) -> Result<Locked, Fault> {
    let state = state(row)?;
    let code = wait_code(row)?;
    Ok(Locked {
        id: need(row.id("id")?, "id")?,
        row: claim::Row {
            state,
            fence: need(row.int("fence")?, "fence")?,
            owner: row.id("owner")?,
            owner_alive: false,
            run_at: row.time("run_at")?,
            deadline: row.time("deadline")?,
            cancel_requested: row.flag("cancel_requested")?,
            fingerprint: row.bytes("fingerprint")?,
            burnt: row.count("burnt")?,
            max_attempts: row.count("max_attempts")?,
            host_losses: row.count("host_losses")?,
            child_losses: row.count("child_losses")?,
            snoozes: row.count("snoozes")?,
            parked: code.filter(|_| state == State::Pending),
        },
        plugin: need(row.text("plugin")?, "plugin")?,
        attempt: row.count("attempt")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        started_at: row.time("started_at")?,
        created_at: None,
        overdue: row.flag("overdue")?,
        owner_may_live: false,
        last_seq: need(row.int("last_seq")?, "last_seq")?,
    })
}

/// The message that a row was made from; its fingerprint is the stored one.
pub(super) fn message(row: &impl Cells) -> Result<TaskMessage, Fault> {
    try_message(row).map_err(Fault::of_row)
}

fn try_message(row: &impl Cells) -> Result<TaskMessage, Fault> {
    let fingerprint = need(row.bytes("fingerprint")?, "fingerprint")?;
    Ok(TaskMessage {
        id: need(row.id("id")?, "id")?,
        id_given: true,
        plugin: parsed(row.text("plugin")?, "plugin", |text| text.parse().ok())?,
        input: need(row.text("input")?, "input")?.into(),
        options: json(row.text("options")?, "options")?,
        fingerprint: fingerprint
            .try_into()
            .map_err(|bytes: Vec<u8>| Fault::Defect(format!("a fingerprint of {} bytes", bytes.len())))?,
        reply_to: row.text("reply_to")?,
        correlation_id: row.text("correlation_id")?,
        traceparent: row.text("traceparent")?,
    })
}

/// A task whose row cannot be read; any other fault is returned.
pub(super) fn unread(id: TaskId, fault: Fault) -> Result<Unread, Fault> {
    match fault {
        Fault::Row(_) => Ok(Unread { id, reason: fault.reason() }),
        other => Err(other),
    }
}

pub(super) fn outbox(row: &impl Cells) -> Result<OutboxRow, Fault> {
    Ok(OutboxRow {
        id: need(row.id("id")?, "id")?,
        queue: need(row.text("queue")?, "queue")?,
        fence: need(row.int("fence")?, "fence")?,
        message: message(row)?,
        deferred: row.count("deferred")?,
    })
}

pub(super) fn host(row: &impl Cells) -> Result<HostRow, Fault> {
    Ok(HostRow {
        record: HostRecord {
            id: need(row.id("id")?, "id")?,
            name: need(row.text("name")?, "name")?,
            build: need(row.text("build")?, "build")?,
            settings_digest: need(row.text("settings_digest")?, "settings_digest")?,
            queues: json(row.text("queues")?, "queues")?,
            plugins: json(row.text("plugins")?, "plugins")?,
            broken_plugins: json(row.text("broken_plugins")?, "broken_plugins")?,
            slots: row.count("slots")?,
            busy: row.count("busy")?,
            brakes: row.int("brakes")?,
        },
        started_at: need(row.time("started_at")?, "started_at")?,
        renewed_at: need(row.time("renewed_at")?, "renewed_at")?,
        lease_until: need(row.time("lease_until")?, "lease_until")?,
        alive: row.flag("alive")?,
    })
}

/// Columns: those of `TASK`, with the outbox row of a pending task.
pub(super) fn task(row: &impl Cells) -> Result<TaskRow, Fault> {
    let erased_at = row.time("erased_at")?;
    let erased = erased_at.is_some();
    Ok(TaskRow {
        id: need(row.id("id")?, "id")?,
        plugin: need(row.text("plugin")?, "plugin")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        queue: need(row.text("queue")?, "queue")?,
        state: state(row)?,
        waiting_for: waiting(row)?,
        input: row.text("input")?,
        // What stands there in its place is no output.
        output: row.text("output")?.filter(|_| !erased),
        failure: failure(row)?,
        attempt: row.count("attempt")?,
        max_attempts: row.count("max_attempts")?,
        host: row.id("owner")?,
        labels: json(row.text("labels")?, "labels")?,
        priority: u8::try_from(row.count("priority")?).unwrap_or(u8::MAX),
        created_at: need(row.time("created_at")?, "created_at")?,
        run_at: row.time("run_at")?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        deadline: row.time("deadline")?,
        retry_of: row.id("retry_of")?,
        traceparent: row.text("traceparent")?,
        erased_at,
    })
}

/// What a task was asked; columns: those of a message, with `state` and `erased_at`.
pub(super) fn asked(row: &impl Cells) -> Result<AskedTask, Fault> {
    let usable = row.text("input")?.is_some() && row.bytes("fingerprint")?.is_some();
    Ok(AskedTask {
        state: state(row)?,
        queue: need(row.text("queue")?, "queue")?,
        message: usable.then(|| message(row)).transpose()?,
        erased_at: row.time("erased_at")?,
    })
}

/// A letter to be redriven under `id`.
pub(super) fn redrive(row: &impl Cells, id: TaskId) -> Result<Redrive, Fault> {
    Ok(Redrive {
        letter: need(row.int("id")?, "id")?,
        id,
        queue: need(row.text("queue")?, "queue")?,
        body: need(row.bytes("body")?, "body")?,
        properties: value(row.text("properties")?),
    })
}

/// A letter that is to be published.
pub(super) fn unpublished(row: &impl Cells) -> Result<UnpublishedLetter, Fault> {
    Ok(UnpublishedLetter {
        id: need(row.int("id")?, "id")?,
        reason: need(row.text("reason")?, "reason")?,
        detail: need(row.text("detail")?, "detail")?,
        body: need(row.bytes("body")?, "body")?,
        properties: value(row.text("properties")?),
    })
}

/// A migration that was applied.
pub(super) fn applied(row: &impl Cells) -> Result<Applied, Fault> {
    Ok(Applied {
        version: need(row.int("version")?, "version")?,
        name: need(row.text("name")?, "name")?,
        checksum: need(row.text("checksum")?, "checksum")?,
        min_build: need(row.text("min_build")?, "min_build")?,
    })
}

pub(super) fn size(row: &impl Cells) -> Result<TableSize, Fault> {
    Ok(TableSize {
        table: need(row.text("name")?, "name")?,
        rows: need(row.int("row_count")?, "row_count")?,
        bytes: need(row.int("bytes")?, "bytes")?,
        dead: row.int("dead")?,
    })
}

/// Why it waits: what it is parked for, or its time, or its outbox row; otherwise it is in its queue.
pub(super) fn waiting(row: &impl Cells) -> Result<Option<Waiting>, Fault> {
    let state = state(row)?;
    let code = match (state, wait_code(row)?) {
        (State::Running | State::Completed | State::Failed | State::Cancelled, _) => return Ok(None),
        (_, Some(code)) => code,
        (State::Scheduled, None) => WaitCode::Scheduled,
        (State::Retrying, None) => WaitCode::Backoff,
        (State::Pending, None) if !row.flag("in_outbox")? => WaitCode::Queued,
        (State::Pending, None) => match row.text("outbox_reason")?.as_deref() {
            Some("unroutable") => WaitCode::Unroutable,
            _ => WaitCode::NotPublished,
        },
    };
    Ok(Some(Waiting {
        code,
        message: code.message().to_owned(),
        since: need(row.time("waiting_since")?, "waiting_since")?,
        until: if state == State::Pending { None } else { row.time("run_at")? },
        detail: value(row.text("waiting_detail")?),
    }))
}

pub(super) fn event(row: &impl Cells) -> Result<EventRow, Fault> {
    Ok(EventRow {
        seq: need(row.int("seq")?, "seq")?,
        at: need(row.time("at")?, "at")?,
        event: parsed(row.text("event")?, "event", Event::parse)?,
        attempt: row.int("attempt")?.map(|_| row.count("attempt")).transpose()?,
        fence: row.int("fence")?,
        host: row.id("host")?,
        digest: row.text("digest")?,
        detail: value(row.text("detail")?),
    })
}

pub(super) fn log(row: &impl Cells) -> Result<LogRow, Fault> {
    Ok(LogRow {
        seq: need(row.int("seq")?, "seq")?,
        at: need(row.time("at")?, "at")?,
        attempt: row.count("attempt")?,
        stream: need(row.text("stream")?, "stream")?,
        level: need(row.text("level")?, "level")?,
        logger: need(row.text("logger")?, "logger")?,
        message: need(row.text("message")?, "message")?,
        cut: row.flag("cut")?,
    })
}

pub(super) fn call(row: &impl Cells) -> Result<CallRow, Fault> {
    Ok(CallRow {
        fence: need(row.int("fence")?, "fence")?,
        seq: need(row.int("seq")?, "seq")?,
        at: need(row.time("at")?, "at")?,
        attempt: row.count("attempt")?,
        capability: need(row.text("capability")?, "capability")?,
        operation: need(row.text("operation")?, "operation")?,
        target: need(row.text("target")?, "target")?,
        duration_us: need(row.int("duration_us")?, "duration_us")?,
        request_bytes: need(row.int("request_bytes")?, "request_bytes")?,
        response_bytes: need(row.int("response_bytes")?, "response_bytes")?,
        result: need(row.text("result")?, "result")?,
        detail: value(row.text("detail")?),
        request_body_bytes: row.int("request_body_bytes")?,
        response_body_bytes: row.int("response_body_bytes")?,
        request_body: row.bytes("request_body")?,
        response_body: row.bytes("response_body")?,
    })
}

pub(super) fn key(row: &impl Cells) -> Result<KeyRow, Fault> {
    Ok(KeyRow { id: need(row.int("id")?, "id")?, key: need(row.text("key")?, "key")? })
}

/// Columns: those of an entry, with its score as a count, and the count that would be one.
pub(super) fn memory(row: &impl Cells) -> Result<MemoryRow, Fault> {
    let (score, whole) = (need(row.int("score")?, "score")?, need(row.int("whole")?, "whole")?);
    Ok(MemoryRow {
        id: need(row.id("id")?, "id")?,
        text: need(row.text("text")?, "text")?,
        metadata: need(row.text("metadata")?, "metadata")?,
        score: score as f64 / whole as f64,
        at: need(row.time("at")?, "at")?,
    })
}

/// A count of what was spent, with its kind and what was returned to the task.
pub(super) fn spent(row: &impl Cells) -> Result<(String, i64, i64), Fault> {
    let number = |column| need(row.int(column)?, column);
    Ok((need(row.text("kind")?, "kind")?, number("used")?, number("refunded")?))
}

/// What an earlier run of a task spent.
pub(super) fn former(row: &impl Cells) -> Result<Former, Fault> {
    Ok(Former {
        kind: need(row.text("kind")?, "kind")?,
        of_run: need(row.int("of_run")?, "of_run")?,
        refunded: need(row.int("refunded")?, "refunded")?,
        interrupted: row.flag("interrupted")?,
    })
}

pub(super) fn attempt(row: &impl Cells) -> Result<AttemptRow, Fault> {
    Ok(AttemptRow {
        attempt: row.count("attempt")?,
        fence: need(row.int("fence")?, "fence")?,
        host: need(row.id("host")?, "host")?,
        build: row.text("build")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        started_at: need(row.time("started_at")?, "started_at")?,
        finished_at: need(row.time("finished_at")?, "finished_at")?,
        ended: need(row.text("ended")?, "ended")?,
        failure: failure(row)?,
        usage: row.text("usage")?.map(|text| json(Some(text), "usage")).transpose()?,
        called_us: row.int("called_us")?,
    })
}

pub(super) fn dead(row: &impl Cells) -> Result<DeadRow, Fault> {
    let bytes = need(row.bytes("body")?, "body")?;
    let body_bytes = need(row.int("body_bytes")?, "body_bytes")?;
    let mut body = String::from_utf8_lossy(&bytes).into_owned();
    // The cut may have gone through a character.
    if body_bytes > BODY_SHOWN && body.ends_with(char::REPLACEMENT_CHARACTER) {
        body.pop();
    }
    Ok(DeadRow {
        id: need(row.int("id")?, "id")?,
        at: need(row.time("at")?, "at")?,
        reason: need(row.text("reason")?, "reason")?,
        detail: need(row.text("detail")?, "detail")?,
        queue: need(row.text("queue")?, "queue")?,
        task_id: row.id("task_id")?,
        plugin: row.text("plugin")?,
        body,
        body_bytes,
        properties: value(row.text("properties")?),
        redriven_at: row.time("redriven_at")?,
        redriven_as: row.id("redriven_as")?,
        erased_at: row.time("erased_at")?,
    })
}

pub(super) fn state(row: &impl Cells) -> Result<State, Fault> {
    parsed(row.text("state")?, "state", State::parse)
}

fn wait_code(row: &impl Cells) -> Result<Option<WaitCode>, Fault> {
    match row.text("waiting_code")? {
        None => Ok(None),
        text => parsed(text, "waiting_code", WaitCode::parse).map(Some),
    }
}

fn failure(row: &impl Cells) -> Result<Option<Failure>, Fault> {
    row.text("failure")?.map(|text| json(Some(text), "failure")).transpose()
}

fn json<T: DeserializeOwned>(text: Option<String>, column: &'static str) -> Result<T, Fault> {
    serde_json::from_str(&need(text, column)?).map_err(|e| Fault::Defect(format!("{column}: {e}")))
}

fn value(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}
