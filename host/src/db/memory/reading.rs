//! Reading.

use super::super::fault::Fault;
use super::super::plan::BODY_SHOWN;
use super::super::{
    AttemptRow, CallCursor, CallRow, DeadFilter, DeadRow, EventRow, Fields, LogRow, PAGE_BYTES, Page, TaskFilter,
    TaskRow, WaitingNow, WaitingTask, lists,
};
use super::tables::{Tables, Task, value};
use crate::db::OutboxReason;
use crate::task::{Failure, State, TaskId, WaitCode, Waiting};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

impl Tables {
    pub(super) fn row(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, Fault> {
        self.tasks.get(&id).map(|task| self.shown(task, fields)).transpose()
    }

    /// The tasks that fit one of several filters.
    pub(super) fn rows_of_any(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, Fault> {
        if let [filter] = any {
            return self.rows(filter, fields);
        }
        let pages = any.iter().map(|filter| self.rows(filter, Fields::default())).collect::<Result<Vec<_>, Fault>>()?;
        let (mut page, mut bytes) = (lists::merge(pages, lists::limit(any)), 0);
        let filled = if fields == Fields::default() { 0 } else { page.rows.len() };
        for at in 0..filled {
            let row = self.row(page.rows[at].id, fields)?;
            if !lists::put(&mut page, at, row, &mut bytes) {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn rows(&self, filter: &TaskFilter, fields: Fields) -> Result<Page<TaskRow>, Fault> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let mut newest_first: Vec<_> = self.tasks.values().collect();
        newest_first.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
        let rows = newest_first.into_iter().map(|task| (task, self.shown(task, fields)));
        let mut found = Vec::new();
        for (task, row) in rows {
            let row = row?;
            let kind = task.failure.as_deref().and_then(failure).map(|failure| failure.kind);
            let fits = filter.state.is_none_or(|state| state == task.state)
                && (is(&filter.plugin, &task.plugin_name))
                && is(&filter.queue, &task.queue)
                && filter.label.as_ref().is_none_or(|(key, value)| row.labels.get(key) == Some(value))
                && filter.kind.is_none_or(|wanted| kind == Some(wanted))
                && filter.since.is_none_or(|since| task.finished_at.unwrap_or(task.created_at) >= since)
                && filter.retry_of.is_none_or(|of| task.retry_of == Some(of))
                && filter.before.is_none_or(|at| (task.created_at, task.id) < (at.created_at, at.id));
            if fits {
                found.push(row);
            }
        }
        let bytes = |row: &TaskRow| bytes_of(row.input.as_deref()) + bytes_of(row.output.as_deref());
        Ok(page(found.into_iter(), filter.limit, bytes))
    }

    fn shown(&self, task: &Task, fields: Fields) -> Result<TaskRow, Fault> {
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&task.labels).map_err(|e| Fault::Defect(format!("labels: {e}")))?;
        Ok(TaskRow {
            id: task.id,
            plugin: task.plugin.clone(),
            version: task.version.clone(),
            digest: task.digest.clone(),
            queue: task.queue.clone(),
            state: task.state,
            waiting_for: self.waiting(task),
            input: task.input.clone().filter(|_| fields.input),
            output: task.output.clone().filter(|_| fields.output && task.erased_at.is_none()),
            failure: task.failure.as_deref().and_then(failure),
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            host: task.owner,
            labels,
            priority: task.priority,
            created_at: task.created_at,
            run_at: task.run_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            deadline: task.deadline,
            retry_of: task.retry_of,
            traceparent: task.traceparent.clone(),
            erased_at: task.erased_at,
        })
    }

    /// Why it waits: what it is parked for, or its time, or its outbox row; otherwise it is in its queue.
    pub(super) fn waiting_now(&self, now: DateTime<Utc>) -> WaitingNow {
        let pending = self.tasks.values().filter(|task| task.state == State::Pending);
        let tasks = pending.filter_map(|task| {
            let Waiting { code, since, .. } = self.waiting(task)?;
            Some(WaitingTask { id: task.id, queue: task.queue.clone(), code, since })
        });
        let outbox_due = self.outbox.values().map(|out| out.due_at).min();
        WaitingNow { now, tasks: tasks.collect(), outbox: self.outbox.len() as u64, outbox_due }
    }

    fn waiting(&self, task: &Task) -> Option<Waiting> {
        if !task.waits() {
            return None;
        }
        let code = task.waiting_code.unwrap_or_else(|| match (task.state, self.outbox.get(&task.id)) {
            (State::Scheduled, _) => WaitCode::Scheduled,
            (State::Retrying, _) => WaitCode::Backoff,
            (_, None) => WaitCode::Queued,
            (_, Some(out)) if out.reason == Some(OutboxReason::Unroutable) => WaitCode::Unroutable,
            _ => WaitCode::NotPublished,
        });
        Some(Waiting {
            code,
            message: code.message().to_owned(),
            since: task.waiting_since?,
            until: task.run_at.filter(|_| task.state != State::Pending),
            detail: value(task.waiting_detail.as_deref()),
        })
    }

    pub(super) fn terminal(&self, ids: &[TaskId]) -> Vec<TaskId> {
        let ended = |id: &&TaskId| self.tasks.get(id).is_some_and(|task| task.state.is_terminal());
        ids.iter().filter(ended).copied().collect()
    }

    pub(super) fn events_after(&self, id: TaskId, after: i64, limit: u32) -> Page<EventRow> {
        let events = self.events.get(&id).into_iter().flatten();
        page(events.filter(|event| event.seq > after).cloned(), limit, |event| event.detail.to_string().len())
    }

    pub(super) fn logs_after(&self, id: TaskId, after: i64, limit: u32) -> Page<LogRow> {
        let lines = self.logs.get(&id).into_iter().flatten();
        page(lines.filter(|line| line.seq > after).cloned(), limit, |line| line.logger.len() + line.message.len())
    }

    pub(super) fn calls_after(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Page<CallRow> {
        let calls = self.calls.get(&id).into_iter().flatten();
        let after = |call: &&CallRow| (call.fence, call.seq) > (after.fence, after.seq);
        let read = calls.filter(after).cloned().map(|mut row| {
            if !bodies {
                (row.request_body, row.response_body) = (None, None);
            }
            row
        });
        page(read, limit, |row| [&row.request_body, &row.response_body].into_iter().flatten().map(Vec::len).sum())
    }

    pub(super) fn attempts_of(&self, id: TaskId) -> Vec<AttemptRow> {
        self.attempts.iter().filter(|((task, _), _)| *task == id).map(|(_, row)| row.clone()).collect()
    }

    pub(super) fn dead_letters(&self, filter: &DeadFilter) -> Page<DeadRow> {
        let fits = |(id, row): &(&i64, &super::tables::Letter)| {
            filter.task.is_none_or(|id| row.letter.task_id == Some(id))
                && filter.reason.as_ref().is_none_or(|reason| *reason == row.letter.reason)
                && filter.queue.as_ref().is_none_or(|queue| *queue == row.letter.queue)
                && filter.since.is_none_or(|since| row.at >= since)
                && (!filter.waiting || row.redriven_at.is_none() && row.erased_at.is_none())
                && filter.before.is_none_or(|before| **id < before)
        };
        let newest_first = self.dead.iter().rev().filter(fits);
        let shown = newest_first.map(|(id, row)| {
            let body = &row.letter.body;
            let cut = body.len().min(BODY_SHOWN as usize);
            let mut text = String::from_utf8_lossy(&body[..cut]).into_owned();
            if cut < body.len() && text.ends_with(char::REPLACEMENT_CHARACTER) {
                text.pop();
            }
            DeadRow {
                id: *id,
                at: row.at,
                reason: row.letter.reason.clone(),
                detail: row.letter.detail.clone(),
                queue: row.letter.queue.clone(),
                task_id: row.letter.task_id,
                plugin: row.letter.plugin.clone(),
                body: text,
                body_bytes: body.len() as i64,
                properties: row.letter.properties.clone(),
                redriven_at: row.redriven_at,
                redriven_as: row.redriven_as,
                erased_at: row.erased_at,
            }
        });
        page(shown, filter.limit, |row: &DeadRow| row.body.len() + row.detail.len() + row.properties.to_string().len())
    }
}

/// The beginning of a list.
fn page<T>(rows: impl Iterator<Item = T>, limit: u32, bytes: impl Fn(&T) -> usize) -> Page<T> {
    let mut page = Page { rows: Vec::new(), more: false };
    let mut total = 0;
    for row in rows {
        total += bytes(&row);
        if page.rows.len() == limit as usize || total > PAGE_BYTES as usize && !page.rows.is_empty() {
            page.more = true;
            break;
        }
        page.rows.push(row);
    }
    page
}

fn bytes_of(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

fn failure(text: &str) -> Option<Failure> {
    serde_json::from_str(text).ok()
}
