//! What operators ask for.

use super::super::fault::Fault;
use super::super::plan::{self, Birth, redrive_id};
use super::super::{
    AskedTask, CallRow, EraseAnswer, Label, LabelledDeletion, LabelledTasks, NewTask, Redrive, RedriveAnswer,
    RetryAnswer, TableSize,
};
use super::tables::Tables;
use crate::task::{Failure, TaskId};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Tables {
    pub(super) fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, Fault> {
        let Some(task) = self.tasks.get(&id) else { return Ok(None) };
        let (state, queue) = (task.state, task.queue.clone());
        Ok(Some(AskedTask { state, queue, message: task.message()?, erased_at: task.erased_at }))
    }

    pub(super) fn retry(&mut self, task: &NewTask, once: bool, now: DateTime<Utc>) -> Result<RetryAnswer, Fault> {
        let of = task.retry_of.ok_or_else(|| Fault::Defect("a retry of nothing".into()))?;
        let Some(old) = self.tasks.get(&of) else { return Ok(RetryAnswer::Unknown) };
        if let Some(same) = self.tasks.get(&task.message.id) {
            return Ok(if same.retry_of == Some(of) { RetryAnswer::Exists } else { RetryAnswer::Conflict });
        }
        if !old.state.is_terminal() {
            return Ok(RetryAnswer::NotEnded(old.state));
        }
        let retries = self.tasks.values().filter(|task| task.retry_of == Some(of));
        if let Some(latest) = retries.max_by_key(|task| (task.created_at, task.id))
            && (once || !latest.state.is_terminal())
        {
            return Ok(RetryAnswer::Retried(latest.id, latest.state));
        }
        if old.input.is_none() {
            return Ok(RetryAnswer::Erased);
        }
        self.give_birth(&Birth::of_submission(task, now)?, now)?;
        Ok(RetryAnswer::Created)
    }

    pub(super) fn erase(&mut self, id: TaskId, now: DateTime<Utc>) -> Result<EraseAnswer, Fault> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(EraseAnswer::Unknown) };
        if !task.state.is_terminal() {
            return Ok(EraseAnswer::NotEnded(task.state));
        }
        if let Some(at) = task.erased_at {
            return Ok(EraseAnswer::Erased(at));
        }
        task.failure = task.failure.as_deref().map(plan::erased).transpose()?;
        (task.input, task.erased_at) = (None, Some(now));
        for ((of, _), attempt) in &mut self.attempts {
            if *of == id
                && let Some(failure) = &mut attempt.failure
            {
                *failure = Failure { message: "erased".into(), detail: Value::Null, ..failure.clone() };
            }
        }
        self.events.entry(id).or_default().iter_mut().for_each(|event| event.detail = Value::Null);
        self.logs.remove(&id);
        for call in self.calls.entry(id).or_default() {
            (call.target, call.detail) = ("erased".into(), Value::Null);
            (call.request_body_bytes, call.response_body_bytes) = (None, None);
            (call.request_body, call.response_body) = (None, None);
        }
        let its = |row: &&mut super::tables::Letter| row.letter.task_id == Some(id) || row.redriven_as == Some(id);
        for row in self.dead.values_mut().filter(its) {
            (row.letter.body, row.letter.properties) = (Vec::new().into(), json!({}));
            (row.letter.detail, row.erased_at, row.publish_at) = ("erased".into(), Some(now), None);
        }
        Ok(EraseAnswer::Erased(now))
    }

    pub(super) fn labelled(&self, key: &str, limit: u32) -> Vec<LabelledTasks> {
        let mut values = BTreeMap::<String, LabelledTasks>::new();
        for task in self.tasks.values() {
            let Some(value) = labels_of(task).remove(key) else { continue };
            let at = task.finished_at.unwrap_or(task.created_at);
            let none = || LabelledTasks { value: value.clone(), ended: 0, unfinished: 0, last_at: at };
            let counted = values.entry(value.clone()).or_insert_with(none);
            *if task.state.is_terminal() { &mut counted.ended } else { &mut counted.unfinished } += 1;
            counted.last_at = counted.last_at.max(at);
        }
        let mut values: Vec<_> = values.into_values().collect();
        values.sort_by_key(|counted| std::cmp::Reverse(counted.last_at));
        values.truncate(limit as usize);
        values
    }

    pub(super) fn delete_labelled(&mut self, label: &Label, limit: u32) -> LabelledDeletion {
        let carries = |task: &super::Task| labels_of(task).get(&label.key) == Some(&label.value);
        let newest = |task: &super::Task| std::cmp::Reverse((task.created_at, task.id));
        let ended = self.pick(limit, |task| task.state.is_terminal() && carries(task), newest);
        ended.iter().for_each(|id| self.forget(*id));
        let unfinished = self.pick(limit, |task| !task.state.is_terminal() && carries(task), newest);
        LabelledDeletion { deleted: ended.len() as u64, unfinished }
    }

    pub(super) fn begin_redrive(&mut self, letter: i64, again: bool) -> RedriveAnswer {
        let Some(row) = self.dead.get_mut(&letter) else { return RedriveAnswer::Unknown };
        if row.erased_at.is_some() {
            return RedriveAnswer::Erased;
        }
        if let (Some(_), Some(id), false) = (row.redriven_at, row.redriven_as, again) {
            return RedriveAnswer::Redriven(id);
        }
        let id = redrive_id(letter, row.redrives, &row.hash);
        (row.redriven_as, row.redriven_at) = (Some(id), None);
        RedriveAnswer::Begun(Redrive {
            letter,
            id,
            queue: row.letter.queue.clone(),
            body: row.letter.body.to_vec(),
            properties: row.letter.properties.clone(),
        })
    }

    pub(super) fn end_redrive(&mut self, letter: i64, id: TaskId, now: DateTime<Utc>) {
        if let Some(row) = self.dead.get_mut(&letter)
            && row.redriven_as == Some(id)
            && row.redriven_at.is_none()
        {
            row.redriven_at = Some(now);
            row.redrives += 1;
        }
    }

    pub(super) fn sizes(&self) -> Vec<TableSize> {
        let inner = |counts: Vec<usize>| counts.iter().sum::<usize>();
        let counted = [
            ("tasks", self.tasks.len()),
            ("task_events", inner(self.events.values().map(Vec::len).collect())),
            ("task_attempts", self.attempts.len()),
            ("task_logs", inner(self.logs.values().map(Vec::len).collect())),
            ("outbox", self.outbox.len()),
            ("hosts", self.hosts.len()),
            ("dead_letters", self.dead.len()),
            ("task_calls", inner(self.calls.values().map(Vec::len).collect())),
            ("task_call_bodies", self.calls.values().flatten().filter(|call| has_body(call)).count()),
            ("stores", self.stores.len()),
            ("buckets", self.buckets.len()),
            ("memories", self.memories.len()),
            ("spending", self.spending.len()),
            ("task_spending", self.task_spending.len()),
            ("brakes", self.steered.brakes_len()),
            ("audit", self.steered.audit_len()),
        ];
        // It has no files; a row, and the table itself, counts for a hundred bytes.
        let size = |(table, rows): (&str, usize)| TableSize {
            table: table.into(),
            rows: rows as i64,
            bytes: (rows as i64 + 1) * 100,
            dead: None,
        };
        let mut sizes: Vec<TableSize> = counted.into_iter().map(size).collect();
        sizes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.table.cmp(&b.table)));
        sizes
    }
}

fn has_body(call: &CallRow) -> bool {
    call.request_body.is_some() || call.response_body.is_some()
}

fn labels_of(task: &super::Task) -> BTreeMap<String, String> {
    serde_json::from_str(&task.labels).unwrap_or_default()
}
