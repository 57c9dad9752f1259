//! The tables, and how a row is born and changed.

use super::super::fault::Fault;
use super::super::plan::{Birth, Locked, Write, bounded};
use super::super::{AttemptRow, CallRow, DeadLetter, EventRow, HostRow, LogRow, OutboxReason, Place};
use super::stores::Entry;
use crate::task::{Event, Fence, HostId, State, TaskId, TaskMessage, WaitCode, claim};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything.
#[derive(Default)]
pub struct Tables {
    /// By id.
    pub tasks: BTreeMap<TaskId, Task>,
    /// By task, in order.
    pub events: BTreeMap<TaskId, Vec<EventRow>>,
    /// By task, in order.
    pub logs: BTreeMap<TaskId, Vec<LogRow>>,
    /// By task, in order.
    pub calls: BTreeMap<TaskId, Vec<CallRow>>,
    /// Ended ones, by task and claim.
    pub attempts: BTreeMap<(TaskId, Fence), AttemptRow>,
    /// By id.
    pub hosts: BTreeMap<HostId, Host>,
    /// By task.
    pub outbox: BTreeMap<TaskId, Out>,
    /// By id.
    pub dead: BTreeMap<i64, Letter>,
    /// Plugins that keep something.
    pub(super) stores: BTreeSet<String>,
    pub(super) buckets: BTreeMap<(Place, String), (i64, Vec<u8>)>,
    /// Oldest first.
    pub(super) memories: Vec<Entry>,
    pub(super) spending: BTreeMap<(String, NaiveDate, &'static str), i64>,
    pub(super) task_spending: BTreeMap<(TaskId, &'static str), TaskSpending>,
    pub(super) steered: super::steering::Steered,
    /// What somebody did to a row that had ended (I2). Nothing ever should.
    pub touched_after_the_end: BTreeSet<TaskId>,
    pub(super) refused: BTreeSet<String>,
    pub(super) last_letter: i64,
    pub(super) last_key: i64,
    pub(super) last_token: u128,
}

/// A row of `task_spending`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskSpending {
    pub used: i64,
    pub fence: Fence,
    pub of_run: i64,
    pub refunded: i64,
}

/// A row of `tasks`; see `migrations/`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "columns: see migrations/")]
pub struct Task {
    pub id: TaskId,
    pub plugin: String,
    pub plugin_name: String,
    pub queue: String,
    pub state: State,
    pub version: Option<String>,
    pub digest: Option<String>,
    pub input: Option<String>,
    pub output: Option<String>,
    pub fingerprint: Option<Vec<u8>>,
    pub failure: Option<String>,
    pub max_attempts: u32,
    pub attempt: u32,
    pub burnt: u32,
    pub fence: Fence,
    pub owner: Option<HostId>,
    pub kill_at: Option<DateTime<Utc>>,
    pub host_losses: u32,
    pub child_losses: u32,
    pub snoozes: u32,
    pub priority: u8,
    pub labels: String,
    pub options: String,
    pub reply_to: Option<String>,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
    pub run_at: Option<DateTime<Utc>>,
    pub deadline: Option<DateTime<Utc>>,
    pub retry_of: Option<TaskId>,
    pub cancel_requested: bool,
    pub waiting_code: Option<WaitCode>,
    pub waiting_detail: Option<String>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub rescued_at: Option<DateTime<Utc>>,
    pub erased_at: Option<DateTime<Utc>>,
    pub last_seq: i64,
    pub log_seq: i64,
}

/// A row of `hosts`.
pub struct Host {
    /// What is shown.
    pub row: HostRow,
    /// Its lease did not lapse: somebody ended it.
    pub ended: bool,
}

/// A row of `outbox`.
#[derive(Clone, Debug)]
pub struct Out {
    pub created_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub token: Option<uuid::Uuid>,
    pub reason: Option<OutboxReason>,
    pub deferred: u32,
}

/// A row of `dead_letters`.
pub struct Letter {
    pub at: DateTime<Utc>,
    pub letter: DeadLetter,
    pub hash: [u8; 32],
    pub redrives: i64,
    pub redriven_as: Option<TaskId>,
    pub redriven_at: Option<DateTime<Utc>>,
    pub erased_at: Option<DateTime<Utc>>,
    /// To be published, not before; `None`: published.
    pub publish_at: Option<DateTime<Utc>>,
}

impl Task {
    /// It waits, in one of three ways.
    pub fn waits(&self) -> bool {
        matches!(self.state, State::Scheduled | State::Pending | State::Retrying)
    }

    /// The message that it was made from; `None`: it was unusable, or erased.
    pub(super) fn message(&self) -> Result<Option<TaskMessage>, Fault> {
        let (Some(input), Some(fingerprint)) = (&self.input, &self.fingerprint) else { return Ok(None) };
        let defect = |what: &str| Fault::Row(format!("{what} does not read back"));
        Ok(Some(TaskMessage {
            id: self.id,
            id_given: true,
            plugin: self.plugin.parse().map_err(|_| defect("plugin"))?,
            input: input.as_str().into(),
            options: serde_json::from_str(&self.options).map_err(|_| defect("options"))?,
            fingerprint: fingerprint.clone().try_into().map_err(|_| defect("fingerprint"))?,
            reply_to: self.reply_to.clone(),
            correlation_id: self.correlation_id.clone(),
            traceparent: self.traceparent.clone(),
        }))
    }
}

pub(super) fn value(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

/// Above nothing.
fn some<T: PartialOrd + Default>(number: T) -> Option<T> {
    (number > T::default()).then_some(number)
}

/// The hard deadline of an attempt that begins now.
fn kill_at(allowed: Option<i64>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    allowed.map(|micros| now + TimeDelta::microseconds(micros))
}

impl Tables {
    /// The lease of a host reaches into the future.
    pub fn is_alive(&self, host: HostId, now: DateTime<Utc>) -> bool {
        self.hosts.get(&host).is_some_and(|host| host.row.lease_until > now)
    }

    /// A row as a claim or a sweep sees it.
    pub(super) fn locked(&self, id: TaskId, now: DateTime<Utc>) -> Option<Locked> {
        let task = self.tasks.get(&id)?;
        let owner = task.owner.and_then(|owner| self.hosts.get(&owner));
        Some(Locked {
            id,
            row: claim::Row {
                state: task.state,
                fence: task.fence,
                owner: task.owner,
                owner_alive: owner.is_some_and(|host| host.row.lease_until > now),
                run_at: task.run_at,
                deadline: task.deadline,
                cancel_requested: task.cancel_requested,
                fingerprint: task.fingerprint.clone(),
                burnt: task.burnt,
                max_attempts: task.max_attempts,
                host_losses: task.host_losses,
                child_losses: task.child_losses,
                snoozes: task.snoozes,
                parked: task.waiting_code.filter(|_| task.state == State::Pending),
            },
            plugin: task.plugin.clone(),
            attempt: task.attempt,
            version: task.version.clone(),
            digest: task.digest.clone(),
            started_at: task.started_at,
            created_at: Some(task.created_at),
            overdue: is_overdue(task, now),
            owner_may_live: owner.is_some_and(|host| host.row.lease_until > now || !host.ended),
            last_seq: task.last_seq,
        })
    }

    /// Insert a row; answers whether there was none.
    pub(super) fn give_birth(&mut self, birth: &Birth<'_>, now: DateTime<Utc>) -> Result<bool, Fault> {
        if self.refused.contains(&*birth.plugin_name) {
            return Err(Fault::Data("refused".into()));
        }
        if self.tasks.contains_key(&birth.id) {
            return Ok(false);
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let task = Task {
            id: birth.id,
            plugin: birth.plugin.clone().into_owned(),
            plugin_name: birth.plugin_name.clone().into_owned(),
            queue: birth.queue.clone().into_owned(),
            state: birth.state,
            version: owned(birth.version),
            digest: owned(birth.digest),
            input: owned(birth.input),
            output: None,
            fingerprint: birth.fingerprint.map(<[u8]>::to_vec),
            failure: birth.failure.clone(),
            max_attempts: birth.max_attempts,
            attempt: birth.attempt,
            burnt: 0,
            fence: birth.fence,
            owner: birth.owner,
            kill_at: kill_at(birth.allowed, now),
            host_losses: 0,
            child_losses: 0,
            snoozes: 0,
            priority: birth.priority,
            labels: birth.labels.clone(),
            options: birth.options.clone(),
            reply_to: owned(birth.reply_to),
            correlation_id: owned(birth.correlation_id),
            traceparent: owned(birth.traceparent),
            run_at: birth.run_at,
            deadline: birth.deadline,
            retry_of: birth.retry_of,
            cancel_requested: false,
            waiting_code: birth.waiting_code,
            waiting_detail: birth.waiting_detail.clone(),
            waiting_since: None,
            created_at: now,
            started_at: (birth.state == State::Running).then_some(now),
            finished_at: None,
            rescued_at: None,
            erased_at: None,
            last_seq: 0,
            log_seq: 0,
        };
        self.tasks.insert(birth.id, task);
        self.enter(birth.id, now);
        self.tell(birth.id, birth.event, birth.host, birth.detail.as_deref(), now);
        if birth.outbox {
            self.enqueue(birth.id, now);
        }
        Ok(true)
    }

    /// Change a row that was read in this transaction.
    pub(super) fn write(&mut self, write: &Write, now: DateTime<Utc>) -> Result<(), Fault> {
        if write.lost {
            self.lose(write.id, now);
        }
        let Some(task) = self.tasks.get_mut(&write.id) else {
            return Err(Fault::Defect("a row was read and is gone".into()));
        };
        if task.state.is_terminal() {
            self.touched_after_the_end.insert(write.id);
        }
        task.state = write.state;
        task.fence = write.fence;
        task.owner = write.owner;
        task.attempt = write.attempt;
        task.max_attempts = write.max_attempts;
        task.host_losses = write.host_losses;
        task.version.clone_from(&write.version);
        task.digest.clone_from(&write.digest);
        if write.failure.is_some() {
            task.failure.clone_from(&write.failure);
        }
        task.waiting_code = write.waiting_code;
        task.waiting_detail.clone_from(&write.waiting_detail);
        if write.state == State::Running {
            task.started_at = Some(now);
        }
        task.kill_at = kill_at(write.allowed, now);
        self.enter(write.id, now);
        self.tell(write.id, write.event, write.host, write.detail.as_deref(), now);
        if write.outbox {
            self.enqueue(write.id, now);
        } else if write.state.is_terminal() {
            self.outbox.remove(&write.id);
        }
        Ok(())
    }

    /// The times that follow from the state that a row is in now.
    pub(super) fn enter(&mut self, id: TaskId, now: DateTime<Utc>) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.finished_at = task.state.is_terminal().then_some(now);
            task.waiting_since = task.waits().then_some(now);
            task.rescued_at = None;
        }
    }

    /// Write the next event of a task, as its row stands now.
    pub(super) fn tell(
        &mut self,
        id: TaskId,
        event: Event,
        host: Option<HostId>,
        detail: Option<&str>,
        now: DateTime<Utc>,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.last_seq += 1;
        let row = EventRow {
            seq: task.last_seq,
            at: now,
            event,
            attempt: some(task.attempt),
            fence: some(task.fence),
            host,
            digest: task.digest.clone(),
            detail: value(detail),
        };
        self.events.entry(id).or_default().push(row);
    }

    /// The attempt of a lost owner ends here, with nobody alive to tell of it.
    fn lose(&mut self, id: TaskId, now: DateTime<Utc>) {
        let Some(task) = self.tasks.get(&id) else { return };
        let Some(owner) = task.owner else { return };
        let row = AttemptRow {
            attempt: task.attempt,
            fence: task.fence,
            host: owner,
            build: self.hosts.get(&owner).map(|host| host.row.record.build.clone()),
            version: task.version.clone(),
            digest: task.digest.clone(),
            started_at: task.started_at.unwrap_or(now),
            finished_at: now,
            ended: "host_lost".into(),
            failure: None,
            usage: None,
            called_us: None,
        };
        self.attempts.insert((id, task.fence), row);
    }

    /// Put a task into the outbox, due now; a row that is there already is made anew.
    pub(super) fn enqueue(&mut self, id: TaskId, now: DateTime<Utc>) {
        let created_at = self.outbox.get(&id).map_or(now, |out| out.created_at);
        self.outbox.insert(id, Out { created_at, due_at: now, token: None, reason: None, deferred: 0 });
    }

    /// Rows for which this holds, smallest first, at most so many.
    pub(super) fn pick<K: Ord>(
        &self,
        limit: u32,
        which: impl Fn(&Task) -> bool,
        order: impl Fn(&Task) -> K,
    ) -> Vec<TaskId> {
        let mut picked: Vec<&Task> = self.tasks.values().filter(|task| which(task)).collect();
        picked.sort_by_key(|task| order(task));
        picked.iter().take(limit as usize).map(|task| task.id).collect()
    }

    pub(super) fn ago(now: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
        now - bounded(duration)
    }
}

/// An attempt that is past its hard deadline.
pub(super) fn is_overdue(task: &Task, now: DateTime<Utc>) -> bool {
    task.state == State::Running && task.kill_at.is_some_and(|at| Some(at) > task.started_at && at <= now)
}
