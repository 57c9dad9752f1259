//! Hosts, the outbox, and what must happen even if nobody asks.

use super::super::fault::Fault;
use super::super::plan::{self, Known, Locked, Write, bounded};
use super::super::rows;
use super::super::{
    HostRecord, HostRow, OutboxBatch, OutboxReason, OutboxRow, OutboxTake, Parked, ParkedCursor, ParkedLook,
    ParkedTask, Prunable, PrunePlan, Renewal, Retention, storable,
};
use super::tables::{Host, Tables, is_overdue};
use crate::task::{HostId, State, TaskId, WaitCode, claim};
use chrono::{DateTime, Utc};
use std::time::Duration;

impl Tables {
    pub(super) fn renew(&mut self, host: &HostRecord, ttl: Duration, now: DateTime<Utc>) -> Result<Renewal, Fault> {
        let known = self.hosts.get(&host.id);
        let valid = known.is_some_and(|host| host.row.lease_until >= now);
        let started_at = known.map_or(now, |host| host.row.started_at);
        let record = HostRecord {
            name: storable::text(&host.name).into_owned(),
            build: storable::text(&host.build).into_owned(),
            ..host.clone()
        };
        let row = HostRow { record, started_at, renewed_at: now, lease_until: now + bounded(ttl), alive: false };
        self.hosts.insert(host.id, Host { row, ended: false });
        Ok(Renewal { lapsed: !valid })
    }

    pub(super) fn asked_to_end(&self, host: HostId) -> Vec<TaskId> {
        let asked = |t: &&super::Task| t.owner == Some(host) && t.state == State::Running && t.cancel_requested;
        self.tasks.values().filter(asked).map(|t| t.id).collect()
    }

    pub(super) fn end_lease(&mut self, host: HostId, now: DateTime<Utc>) {
        if let Some(host) = self.hosts.get_mut(&host) {
            host.row.lease_until = host.row.lease_until.min(now);
            host.ended = true;
        }
    }

    pub(super) fn hosts_at(&self, now: DateTime<Utc>) -> Vec<HostRow> {
        let shown = Tables::ago(now, plan::HOST_SHOWN);
        let alive = |row: &HostRow| HostRow { alive: row.lease_until > now, ..row.clone() };
        let mut rows: Vec<HostRow> =
            self.hosts.values().filter(|host| host.row.lease_until > shown).map(|host| alive(&host.row)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.started_at));
        rows
    }

    fn apply(
        &mut self,
        ids: &[TaskId],
        now: DateTime<Utc>,
        change: impl Fn(&Locked) -> Result<Write, Fault>,
    ) -> Result<u64, Fault> {
        for id in ids {
            if let Some(locked) = self.locked(*id, now) {
                self.write(&change(&locked)?, now)?;
            }
        }
        Ok(ids.len() as u64)
    }

    pub(super) fn wake_due(&mut self, limit: u32, now: DateTime<Utc>) -> Result<u64, Fault> {
        let due = |task: &super::Task| {
            matches!(task.state, State::Scheduled | State::Retrying) && task.run_at.is_some_and(|at| at <= now)
        };
        let ids = self.pick(limit, due, |task| task.run_at);
        self.apply(&ids, now, Write::wake)
    }

    pub(super) fn fail_expired(&mut self, limit: u32, now: DateTime<Utc>) -> Result<u64, Fault> {
        let ids = self.pick(limit, |t| t.waits() && t.deadline.is_some_and(|at| at <= now), |t| t.deadline);
        let fail = |locked: &Locked| Write::fail(locked, &claim::expiry(locked.row.deadline), None);
        let expired = self.apply(&ids, now, fail)?;
        let ids = self.pick(limit, |task| task.waits() && task.cancel_requested, |task| task.id);
        Ok(expired + self.apply(&ids, now, Write::cancel)?)
    }

    pub(super) fn fail_unknown(&mut self, grace: Duration, limit: u32, now: DateTime<Utc>) -> Result<u64, Fault> {
        let since = Tables::ago(now, grace);
        let known = Known::since(&self.hosts_at(now), since);
        let hopeless = |task: &super::Task| {
            task.state == State::Pending
                && matches!(task.waiting_code, Some(WaitCode::NoPlugin | WaitCode::PluginBroken))
                && task.waiting_since.is_some_and(|at| at <= since)
                && known.lacks(&task.plugin)
                && !self.steered.braked_since(&task.queue, &task.plugin_name, since)
        };
        let ids = self.pick(limit, hopeless, |task| task.id);
        let fail = |locked: &Locked| Write::fail(locked, &known.failure(&locked.plugin), None);
        self.apply(&ids, now, fail)
    }

    pub(super) fn rescue(&mut self, steady: bool, again: Duration, limit: u32, now: DateTime<Utc>) -> u64 {
        let again = Tables::ago(now, again);
        let lost = |task: &super::Task| {
            let gone = match task.owner.and_then(|owner| self.hosts.get(&owner)) {
                None => true,
                Some(host) => host.row.lease_until <= now && (host.ended || steady),
            };
            let overdue = steady && is_overdue(task, now);
            task.state == State::Running && (gone || overdue) && task.rescued_at.is_none_or(|at| at <= again)
        };
        let ids = self.pick(limit, lost, |task| task.id);
        for id in &ids {
            if let Some(task) = self.tasks.get_mut(id) {
                task.rescued_at = Some(now);
            }
            self.enqueue(*id, now);
        }
        ids.len() as u64
    }

    pub(super) fn parked(&self, look: &ParkedLook) -> Result<Parked, Fault> {
        let at = |task: &super::Task| ParkedCursor {
            priority: std::cmp::Reverse(task.priority.into()),
            created_at: task.created_at,
            id: task.id,
        };
        let fits = |task: &super::Task| {
            task.state == State::Pending
                && task.waiting_code.is_some_and(|code| look.lane || code != WaitCode::Isolation)
                && look.plugins.contains(&task.plugin_name)
                && !look.except.contains(&task.plugin)
                && !look.except_queues.contains(&task.queue)
                && task.fingerprint.is_some()
                && look.after.is_none_or(|after| at(task) > after)
        };
        let ids = self.pick(look.limit, fits, at);
        let last = ids.last().filter(|_| ids.len() >= look.limit as usize).and_then(|id| self.tasks.get(id));
        let mut parked = Parked { last: last.map(at), ..Parked::default() };
        for task in ids.iter().filter_map(|id| self.tasks.get(id)) {
            match task.message() {
                Ok(Some(message)) => parked.tasks.push(ParkedTask { message, queue: task.queue.clone() }),
                Ok(None) => return Err(Fault::Defect("a parked task without a message".into())),
                Err(fault) => parked.unread.push(rows::unread(task.id, fault)?),
            }
        }
        Ok(parked)
    }

    pub(super) fn take_outbox(&mut self, take: &OutboxTake, now: DateTime<Utc>) -> Result<OutboxBatch, Fault> {
        self.last_token += 1;
        let token = uuid::Uuid::from_u128(self.last_token);
        let due =
            self.outbox.iter().filter(|(_, out)| out.due_at <= now && take.from.is_none_or(|from| out.due_at >= from));
        let mut due: Vec<_> = due.map(|(id, out)| (out.due_at, *id)).collect();
        due.sort();
        due.truncate(take.limit as usize);
        let first_due = due.first().map(|(due_at, _)| *due_at);
        let mut more = due.len() >= take.limit as usize;
        let (mut rows, mut unread) = (Vec::with_capacity(due.len()), Vec::new());
        let (mut aside, mut bytes) = (0, 0);
        for (n, (_, id)) in due.into_iter().enumerate() {
            let task = self.tasks.get(&id).filter(|task| !task.state.is_terminal());
            let message = match task.map(|task| task.message()).transpose() {
                Ok(message) => message.flatten(),
                Err(fault) => {
                    unread.push(rows::unread(id, fault)?);
                    if let Some(out) = self.outbox.get_mut(&id) {
                        (out.token, out.due_at) = (Some(token), now + bounded(take.ttl));
                    }
                    continue;
                }
            };
            let (Some(task), Some(message), Some(out)) = (task, message, self.outbox.get_mut(&id)) else {
                self.outbox.remove(&id);
                continue;
            };
            if let Some((_, reason)) = take.aside.iter().find(|(queue, _)| *queue == task.queue) {
                (out.token, out.reason, out.due_at) = (None, Some(*reason), now + bounded(take.rest));
                aside += 1;
                continue;
            }
            bytes += message.input.len() as u64;
            if n > 0 && bytes > take.bytes {
                more = true;
                break;
            }
            (out.token, out.due_at) = (Some(token), now + bounded(take.ttl));
            let row = OutboxRow { id, queue: task.queue.clone(), fence: task.fence, message, deferred: out.deferred };
            rows.push((out.created_at, row));
        }
        rows.sort_by_key(|(created_at, row)| (*created_at, row.id));
        Ok(OutboxBatch { token, rows: rows.into_iter().map(|(_, row)| row).collect(), unread, aside, more, first_due })
    }

    pub(super) fn hold_outbox(&mut self, token: uuid::Uuid, ids: &[TaskId], until: DateTime<Utc>) {
        for id in ids {
            if let Some(out) = self.outbox.get_mut(id).filter(|out| out.token == Some(token)) {
                out.due_at = until;
            }
        }
    }

    pub(super) fn drop_outbox(&mut self, token: uuid::Uuid, ids: &[TaskId]) {
        for id in ids {
            if self.outbox.get(id).is_some_and(|out| out.token == Some(token)) {
                self.outbox.remove(id);
            }
        }
    }

    pub(super) fn defer_outbox(
        &mut self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        until: DateTime<Utc>,
    ) {
        for id in ids {
            if let Some(out) = self.outbox.get_mut(id).filter(|out| out.token == Some(token)) {
                (out.token, out.reason, out.due_at) = (None, Some(reason), until);
                out.deferred += 1;
            }
        }
    }

    pub(super) fn prune(&mut self, keep: &Retention, limit: u32, now: DateTime<Utc>) -> u64 {
        let mut left = limit;
        let mut pruned = 0;
        for (is_completed, kept) in [(true, keep.completed), (false, keep.failed)] {
            let before = Tables::ago(now, kept);
            let past = |task: &super::Task| {
                task.state.is_terminal()
                    && (task.state == State::Completed) == is_completed
                    && task.finished_at.is_some_and(|at| at < before)
                    && !(is_completed && self.repeats_one_that_stays(task))
            };
            for id in self.pick(left, past, |task| task.finished_at) {
                self.forget(id);
                left -= 1;
                pruned += 1;
            }
        }
        let before = Tables::ago(now, keep.dead);
        let mut old: Vec<_> =
            self.dead.iter().filter(|(_, row)| row.at < before).map(|(id, row)| (row.at, *id)).collect();
        old.sort();
        for (_, id) in old.into_iter().take(left as usize) {
            self.dead.remove(&id);
            pruned += 1;
        }
        let oldest = now.date_naive() - chrono::TimeDelta::days(plan::SPENDING_KEPT.into());
        self.spending.retain(|(_, day, _), _| *day >= oldest);
        let shown = Tables::ago(now, plan::HOST_SHOWN);
        let tasks = &self.tasks;
        self.hosts.retain(|id, host| {
            let runs = |task: &super::Task| task.owner == Some(*id) && task.state == State::Running;
            host.row.lease_until >= shown || tasks.values().any(runs)
        });
        pruned
    }

    /// Delete a task with everything that belongs to it.
    pub(super) fn forget(&mut self, id: TaskId) {
        self.tasks.remove(&id);
        self.events.remove(&id);
        self.logs.remove(&id);
        self.calls.remove(&id);
        self.task_spending.retain(|(task, _), _| *task != id);
        self.outbox.remove(&id);
        self.attempts.retain(|(task, _), _| *task != id);
    }

    fn repeats_one_that_stays(&self, task: &super::Task) -> bool {
        task.retry_of.is_some_and(|of| self.tasks.contains_key(&of))
    }

    pub(super) fn prunable(&self, keep: &Retention, now: DateTime<Utc>) -> PrunePlan {
        let count = |ends: Vec<DateTime<Utc>>, kept| {
            let before = Tables::ago(now, kept);
            let past: Vec<_> = ends.into_iter().filter(|at| *at < before).collect();
            Prunable { count: past.len() as i64, oldest: past.into_iter().min() }
        };
        let ends = |state| {
            let stays = |task: &super::Task| state == State::Completed && self.repeats_one_that_stays(task);
            let ended = self.tasks.values().filter(|task| task.state == state && !stays(task));
            ended.filter_map(|task| task.finished_at).collect::<Vec<_>>()
        };
        PrunePlan {
            completed: count(ends(State::Completed), keep.completed),
            failed: count(ends(State::Failed), keep.failed),
            cancelled: count(ends(State::Cancelled), keep.failed),
            dead: count(self.dead.values().map(|row| row.at).collect(), keep.dead),
        }
    }
}
