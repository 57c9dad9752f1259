//! Claiming, settling, submitting, cancelling.

use super::super::fault::Fault;
use super::super::plan::{self, Birth, Outcome, Recorded, Submission, Write, unstorable};
use super::super::{
    AttemptRow, CallRow, CancelAnswer, ClaimAnswer, Claimant, LogRow, NewTask, RecordAnswer, Recording, SettleAnswer,
    Submitted, Unusable, UnusableAnswer, storable,
};
use super::tables::Tables;
use crate::task::settle::Call;
use crate::task::{Arrival, Event, Fence, HostId, Settlement, State, TaskId, decide};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::time::Duration;

impl Tables {
    pub(super) fn claim(&mut self, me: Claimant, arrival: &Arrival, now: DateTime<Utc>) -> Result<ClaimAnswer, Fault> {
        match self.try_claim(me, arrival, now) {
            Err(fault) if fault.is_about_data() => Ok(ClaimAnswer::Refused(fault.reason())),
            other => other,
        }
    }

    fn try_claim(&mut self, me: Claimant, arrival: &Arrival, now: DateTime<Utc>) -> Result<ClaimAnswer, Fault> {
        let (decision, birth) = Birth::of_arrival(arrival, me.host, now)?;
        if self.give_birth(&birth, now)? {
            return Ok(plan::born(decision, arrival, now));
        }
        let Some(mut locked) = self.locked(arrival.message.id, now) else {
            return Err(Fault::Defect("a row was in the way and is not there".into()));
        };
        locked.row.owner_alive = locked.owner_alive(me.steady);
        let decision = decide(Some(&locked.row), arrival, me.host, now);
        let change = Write::of_decision(&locked, &decision, arrival, me.host)?;
        if let Some(change) = &change {
            self.write(change, now)?;
        }
        Ok(plan::answer(&locked, decision, change.as_ref(), now))
    }

    pub(super) fn park_unusable(
        &mut self,
        me: Claimant,
        task: &Unusable,
        again: Duration,
        now: DateTime<Utc>,
    ) -> Result<UnusableAnswer, Fault> {
        let Some(mut locked) = self.locked(task.id, now) else { return Ok(UnusableAnswer::Unknown) };
        locked.row.owner_alive = locked.owner_alive(me.steady);
        let parked = Write::of_unusable(&locked, task, me.host, now);
        match parked.and_then(|change| change.map(|change| self.write(&change, now)).transpose()) {
            Err(fault) if fault.is_about_data() => {
                self.enqueue(task.id, now + plan::bounded(again));
                Ok(UnusableAnswer::Later(fault.reason()))
            }
            other => other.map(|_| UnusableAnswer::Kept),
        }
    }

    pub(super) fn settle(
        &mut self,
        host: HostId,
        settlement: &Settlement,
        now: DateTime<Utc>,
    ) -> Result<SettleAnswer, Fault> {
        match self.try_settle(host, settlement, now) {
            Err(fault) if fault.is_about_data() => {
                let instead = unstorable(settlement, &fault.reason());
                plan::refused(self.try_settle(host, &instead, now).map(|answer| vec![answer]))
            }
            other => other,
        }
    }

    fn try_settle(&mut self, host: HostId, settlement: &Settlement, now: DateTime<Utc>) -> Result<SettleAnswer, Fault> {
        let outcome = Outcome::of(settlement)?;
        if outcome.logs.iter().any(|line| self.refused.contains(&line.logger)) {
            return Err(Fault::Data("refused".into()));
        }
        let key = (outcome.id, outcome.fence);
        let row = self.tasks.get_mut(&outcome.id);
        let Some(task) = row.filter(|t| t.state == State::Running && t.fence == outcome.fence && t.owner == Some(host))
        else {
            let settled = self.attempts.get(&key).is_some_and(|a| a.host == host && a.ended != "host_lost");
            return Ok(if settled { SettleAnswer::Settled } else { SettleAnswer::Fenced });
        };
        task.state = outcome.state;
        task.output = outcome.output.map(str::to_owned);
        task.failure = match outcome.state {
            State::Completed => None,
            _ => outcome.failure.clone().or(task.failure.take()),
        };
        if outcome.burns {
            task.burnt = task.attempt;
        }
        task.snoozes += u32::from(outcome.snoozed);
        task.child_losses += u32::from(outcome.child_lost);
        if let Some(after) = outcome.after {
            task.run_at = Some(now + after);
        }
        task.waiting_code = outcome.waiting_code;
        task.waiting_detail.clone_from(&outcome.waiting_detail);
        (task.version, task.digest) = (Some(outcome.version.to_owned()), Some(outcome.digest.to_owned()));
        let (attempt, logged) = (task.attempt, task.log_seq);
        task.log_seq += outcome.logs.len() as i64;
        let row = AttemptRow {
            attempt,
            fence: outcome.fence,
            host,
            build: self.hosts.get(&host).map(|host| host.row.record.build.clone()),
            version: task.version.clone(),
            digest: task.digest.clone(),
            started_at: task.started_at.unwrap_or(now),
            finished_at: now,
            ended: outcome.event.as_str().into(),
            failure: settlement.ended.failure().cloned(),
            usage: Some(settlement.usage),
            called_us: outcome.calls.iter().map(|call| plan::counted(call.duration_us)).reduce(|a, b| a + b),
        };
        self.attempts.insert(key, row);
        self.enter(outcome.id, now);
        self.tell(outcome.id, outcome.event, Some(host), outcome.detail.as_deref(), now);
        let lines = outcome.logs.iter().zip(1..).map(|(line, n)| LogRow {
            seq: logged + n,
            at: line.at,
            attempt,
            stream: line.stream.into(),
            level: line.level.into(),
            logger: storable::text(&line.logger).into_owned(),
            message: storable::text(&line.message).into_owned(),
            cut: line.cut,
        });
        self.logs.entry(outcome.id).or_default().extend(lines);
        let calls = outcome.calls.iter().zip(1..).map(|(call, seq)| called(call, outcome.fence, seq, attempt));
        self.calls.entry(outcome.id).or_default().extend(calls);
        if outcome.outbox {
            self.enqueue(outcome.id, now);
        }
        Ok(SettleAnswer::Settled)
    }

    pub(super) fn record(
        &mut self,
        host: HostId,
        recording: &Recording,
        now: DateTime<Utc>,
    ) -> Result<RecordAnswer, Fault> {
        match self.try_record(host, recording, now) {
            Err(fault) if fault.is_about_data() => Ok(RecordAnswer::Refused(fault.reason())),
            other => other,
        }
    }

    fn try_record(&mut self, host: HostId, recording: &Recording, now: DateTime<Utc>) -> Result<RecordAnswer, Fault> {
        let Recording { arrival, settlement, ran } = recording;
        let row = Recorded::of(recording, host)?;
        if row.outcome.logs.iter().any(|line| self.refused.contains(&line.logger)) {
            return Err(Fault::Data("refused".into()));
        }
        let began = now - plan::bounded(*ran);
        match self.locked(settlement.id, now) {
            None => drop(self.give_birth(&row.birth, began)?),
            Some(locked) if plan::awaits_first_attempt(&locked, arrival, now) => {
                let decision = decide(Some(&locked.row), arrival, host, now);
                let Some(change) = Write::of_decision(&locked, &decision, arrival, host)? else {
                    return Ok(RecordAnswer::Exists);
                };
                // It cannot have begun before it was submitted, whatever the host's clock says of how long it ran.
                let born = self.tasks.get(&settlement.id).map_or(began, |task| task.created_at);
                self.write(&change, began.max(born))?;
            }
            Some(_) => return Ok(RecordAnswer::Exists),
        }
        self.try_settle(host, settlement, now)?;
        Ok(RecordAnswer::Recorded)
    }

    pub(super) fn submit(&mut self, batch: &[NewTask], now: DateTime<Utc>) -> Result<Vec<Submitted>, Fault> {
        let submission = Submission::of(batch);
        let mut births = Vec::new();
        let mut known = HashMap::new();
        for task in submission.firsts() {
            match self.tasks.get(&task.message.id) {
                Some(row) => drop(known.insert(row.id, row.fingerprint.clone())),
                None => births.push(Birth::of_submission(task, now)?),
            }
        }
        let answers = submission.answers(&known);
        if !answers.contains(&Submitted::Conflict) {
            for birth in births {
                self.give_birth(&birth, now)?;
            }
        }
        Ok(answers)
    }

    pub(super) fn cancel(&mut self, id: TaskId, now: DateTime<Utc>) -> Result<CancelAnswer, Fault> {
        let Some(locked) = self.locked(id, now) else { return Ok(CancelAnswer::Unknown) };
        match (locked.row.state, locked.row.owner) {
            (state, _) if state.is_terminal() => Ok(CancelAnswer::Terminal(state)),
            (State::Running, Some(owner)) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.cancel_requested = true;
                }
                Ok(CancelAnswer::Requested(owner))
            }
            _ => {
                self.write(&Write::of_event(&locked, Event::Cancelled, None)?, now)?;
                Ok(CancelAnswer::Cancelled)
            }
        }
    }
}

fn called(call: &Call, fence: Fence, seq: i64, attempt: u32) -> CallRow {
    let text = |text: &str| storable::text(text).into_owned();
    CallRow {
        fence,
        seq,
        at: call.at,
        attempt,
        capability: text(&call.capability),
        operation: text(&call.operation),
        target: text(&call.target),
        duration_us: plan::counted(call.duration_us),
        request_bytes: plan::counted(call.request_bytes),
        response_bytes: plan::counted(call.response_bytes),
        result: text(&call.result),
        detail: super::tables::value(plan::call_detail(call).as_deref()),
        request_body_bytes: plan::body_bytes(&call.request_body),
        response_body_bytes: plan::body_bytes(&call.response_body),
        request_body: plan::body(&call.request_body).map(<[u8]>::to_vec),
        response_body: plan::body(&call.response_body).map(<[u8]>::to_vec),
    }
}
