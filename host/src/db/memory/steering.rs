//! Brakes of operators, and the record of what operators changed.

use super::super::plan::{BrakeRow, audit_of, bounded};
use super::super::*;
use super::MemoryDb;
use super::tables::Tables;
use crate::task::State;
use std::collections::BTreeMap;

/// Rows of `brakes` with the number of their change, and of `audit`, oldest first.
#[derive(Default)]
pub struct Steered {
    brakes: BTreeMap<(BrakeKind, String), (BrakeRow, i64)>,
    audit: Vec<AuditRow>,
    last: i64,
}

impl Steered {
    fn brakes(&self) -> Brakes {
        let held = self.brakes.iter().filter(|(_, (row, _))| row.released_at.is_none());
        let held = held.map(|((kind, target), (row, _))| Brake {
            kind: *kind,
            target: target.clone(),
            by: row.actor.clone(),
            reason: row.reason.clone(),
            since: row.set_at,
        });
        Brakes { change: self.brakes.values().map(|(_, change)| *change).max().unwrap_or(0), held: held.collect() }
    }

    pub fn brakes_len(&self) -> usize {
        self.brakes.len()
    }

    pub fn audit_len(&self) -> usize {
        self.audit.len()
    }

    fn record(&mut self, entry: AuditEntry, now: DateTime<Utc>) {
        self.last += 1;
        let AuditEntry { actor, action, target, count, reason } = entry;
        let reason = reason.map(|reason| storable::text(&reason).into_owned());
        self.audit.push(AuditRow { id: self.last, at: now, actor, action, target, count, reason });
    }

    /// Whether a task was under a brake at any time since then.
    pub fn braked_since(&self, queue: &str, plugin_name: &str, since: DateTime<Utc>) -> bool {
        self.brakes.iter().any(|((kind, target), (row, _))| {
            let its = match kind {
                BrakeKind::Queue => target == queue,
                BrakeKind::Plugin => target.split('@').next() == Some(plugin_name),
                BrakeKind::Host => false,
            };
            its && row.released_at.is_none_or(|at| at > since)
        })
    }
}

impl Tables {
    fn set_brake(&mut self, change: &BrakeChange, now: DateTime<Utc>) -> BrakeAnswer {
        let key = (change.kind, storable::text(&change.target).into_owned());
        let steered = &mut self.steered;
        let after = BrakeRow::after(steered.brakes.get(&key).map(|(row, _)| row), change, now);
        let changed = after.is_some();
        if let Some(after) = after {
            let number = steered.brakes().change + 1;
            steered.brakes.insert(key, (after, number));
            steered.record(audit_of(change), now);
        }
        BrakeAnswer { changed, brakes: steered.brakes() }
    }

    fn audited(&self, filter: &AuditFilter) -> Page<AuditRow> {
        let fits = |row: &&AuditRow| {
            filter.action.as_ref().is_none_or(|action| row.action == *action)
                && filter.actor.as_ref().is_none_or(|actor| row.actor == *actor)
                && filter.since.is_none_or(|since| row.at >= since)
                && filter.before.is_none_or(|before| row.id < before)
        };
        let mut rows: Vec<AuditRow> =
            self.steered.audit.iter().rev().filter(fits).take(filter.limit as usize + 1).cloned().collect();
        let more = rows.len() > filter.limit as usize;
        rows.truncate(filter.limit as usize);
        Page { rows, more }
    }

    fn prune_audit(&mut self, keep: Duration, limit: u32, now: DateTime<Utc>) -> u64 {
        let before = now - bounded(keep);
        let last = self.steered.brakes().change;
        self.steered.brakes.retain(|_, (row, change)| *change == last || row.released_at.is_none_or(|at| at >= before));
        let old = self.steered.audit.iter().take_while(|row| row.at < before).count().min(limit as usize);
        self.steered.audit.drain(..old);
        old as u64
    }

    fn waiting_of(&self, limit: u32) -> WaitingByQueue {
        let mut queues = BTreeMap::<String, i64>::new();
        let waits = |state| matches!(state, State::Scheduled | State::Pending | State::Retrying);
        let counted = self.tasks.values().filter(|task| waits(task.state)).take(limit as usize);
        counted.for_each(|task| *queues.entry(task.queue.clone()).or_default() += 1);
        let more = queues.values().sum::<i64>() >= i64::from(limit);
        WaitingByQueue { queues: queues.into_iter().collect(), more }
    }
}

#[async_trait]
impl Steering for MemoryDb {
    async fn news(&self, host: HostId) -> Result<News, DbError> {
        self.at_once(|tables, _| Ok(News { to_end: tables.asked_to_end(host), brakes: tables.steered.brakes() }))
    }
    async fn set_brake(&self, change: &BrakeChange) -> Result<BrakeAnswer, DbError> {
        self.at_once(|tables, now| Ok(tables.set_brake(change, now)))
    }
    async fn audit(&self, entry: &AuditEntry) -> Result<(), DbError> {
        self.at_once(|tables, now| {
            tables.steered.record(entry.clone(), now);
            Ok(())
        })
    }
    async fn audited(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, DbError> {
        self.at_once(|tables, _| Ok(tables.audited(filter)))
    }
    async fn prune_audit(&self, keep: Duration, limit: u32) -> Result<u64, DbError> {
        self.at_once(|tables, now| Ok(tables.prune_audit(keep, limit, now)))
    }
    async fn waiting(&self, limit: u32) -> Result<WaitingByQueue, DbError> {
        self.at_once(|tables, _| Ok(tables.waiting_of(limit)))
    }
}
