//! The way to the database: calls are late, refused, done later than their time-out, or done and not heard of.

use super::super::swarm::Without;
use super::{Life, Wire};
use crate::db::memory::MemoryDb;
use crate::db::*;
use crate::task::claim::Kept;
use crate::task::{Arrival, Decision, Event, FailureKind, HostId, Runnable, Settlement, State, TaskId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The bound of every operation, as `database.timeout_seconds` is.
const BOUND: Duration = Duration::from_secs(2);

impl Wire {
    /// One call. It goes on at the database when its caller has given it up, or is dead.
    async fn call<T, F>(self: &Arc<Self>, call: impl FnOnce(MemoryDb) -> F + Send + 'static) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbError>> + Send,
    {
        self.alive().await;
        let (wire, world) = (self.clone(), self.world.clone());
        let (there, back) = (world.delay(), world.delay());
        let (refused, lost) = (world.happens(world.swarm.refused), world.happens(world.swarm.lost));
        let gone = |why: &str| DbError::Unavailable(why.to_owned());
        let work = tokio::spawn(async move {
            tokio::time::sleep(there).await;
            if refused || !wire.has_database() {
                return Err(gone("refused"));
            }
            let answer = call(wire.world.db.clone()).await;
            tokio::time::sleep(back).await;
            if lost || !wire.has_database() {
                wire.world.count("a database answer was lost");
                return Err(gone("the answer was lost"));
            }
            answer
        });
        let answer = match tokio::time::timeout(BOUND, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(broken)) => std::panic::resume_unwind(broken.into_panic()),
            Err(_) => {
                self.world.count("a database call timed out");
                Err(gone("timed out"))
            }
        };
        self.alive().await;
        answer
    }

    /// Which row of the claim table an answer came from.
    fn claimed(&self, before: Option<(State, Option<HostId>)>, arrival: &Arrival, answer: &ClaimAnswer) {
        let waiting = matches!(before, Some((State::Scheduled | State::Pending | State::Retrying, _)));
        let running = matches!(before, Some((State::Running, _)));
        let alone = |claimed: &Claimed| claimed.standing.isolated;
        let name = match answer {
            ClaimAnswer::Run(claimed) if running && alone(claimed) => "owner lost: taken over, alone",
            ClaimAnswer::Run(_) if running => "owner lost: taken over",
            ClaimAnswer::Run(claimed) if waiting && alone(claimed) => "waiting: run alone",
            ClaimAnswer::Run(_) if waiting => "waiting: run",
            ClaimAnswer::Run(_) => "none: run",
            ClaimAnswer::Mine(_) => "running here: re-attached or run",
            ClaimAnswer::Conflict => "another message: conflict",
            ClaimAnswer::Refused(_) => "refused",
            ClaimAnswer::Done(Decision::Schedule) => "none: scheduled",
            ClaimAnswer::Done(Decision::Park { .. }) if running => "owner lost: parked",
            ClaimAnswer::Done(Decision::Park { code, .. }) if *code == crate::task::WaitCode::Isolation => {
                "waiting: parked for the lane"
            }
            ClaimAnswer::Done(Decision::Park { .. }) if waiting => "waiting: parked",
            ClaimAnswer::Done(Decision::Park { .. }) => "none: parked",
            ClaimAnswer::Done(Decision::End { event: Event::Cancelled, .. }) => "owner lost: cancelled",
            ClaimAnswer::Done(Decision::End { failure, .. }) => {
                let expired = failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Expired);
                match (expired, matches!(arrival.runnable, Runnable::Never { .. })) {
                    (true, false) if before.is_none() => "none: expired",
                    (true, false) => "waiting: expired",
                    _ => "given up by the broker",
                }
            }
            ClaimAnswer::Done(Decision::Keep(Kept::Terminal)) => "terminal: duplicate",
            ClaimAnswer::Done(Decision::Keep(Kept::NotDue)) => "waiting: not due",
            ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere)) => "running elsewhere: left alone",
            ClaimAnswer::Done(Decision::Keep(Kept::AlreadyParked)) => "waiting: parked already",
            ClaimAnswer::Done(_) => "decided otherwise",
        };
        self.step(name, &arrival.message.id);
    }
}

/// Chances to die at a record: there are fewer of them than of settlements.
const DEATHS: usize = 6;

/// See [`Wire`].
pub struct WireDb(pub Arc<Wire>);

#[async_trait]
impl Db for WireDb {
    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError> {
        let wire = self.0.clone();
        // It is sent at this moment: a lease that has lapsed here has lapsed for every other host.
        let now = wire.world.now();
        if wire.life() == Life::Runs
            && wire.world.db.look().hosts.get(&me.host).is_none_or(|host| host.row.lease_until <= now)
        {
            wire.world.wrong(format!("I6: claimed under a lapsed lease by {}", me.host));
        }
        batch.iter().for_each(|arrival| wire.step("s2 claim", &arrival.message.id));
        wire.die_at("s2 crash");
        let batch = batch.to_vec();
        let at_work = wire.clone();
        let answer = wire.call(async move |db| {
            let mut answers = Vec::with_capacity(batch.len());
            for arrival in &batch {
                // One at a time, so that it is known what each of them found.
                let before = db.look().tasks.get(&arrival.message.id).map(|task| (task.state, task.owner));
                let answer = db.claim(me, std::slice::from_ref(arrival)).await?.remove(0);
                at_work.claimed(before, arrival, &answer);
                at_work.step("s3 claimed", &arrival.message.id);
                answers.push(match answer {
                    ClaimAnswer::Mine(claimed) if at_work.world.swarm.without == Without::Reattach => {
                        ClaimAnswer::Run(claimed)
                    }
                    answer => answer,
                });
            }
            Ok(answers)
        });
        let answer = answer.await;
        wire.die_at("s3 crash");
        wire.alive().await;
        answer
    }

    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError> {
        let wire = self.0.clone();
        batch.iter().for_each(|settlement| wire.step("s5 settle", &settlement.id));
        wire.die_at("s5 crash");
        wire.stall();
        if wire.wedged.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let batch = batch.to_vec();
        let at_work = wire.clone();
        let answer = wire.call(async move |db| {
            let mut answers = Vec::with_capacity(batch.len());
            for mut settlement in batch {
                let mut by = host;
                if at_work.world.swarm.without == Without::Fence
                    && let Some(task) = db.look().tasks.get(&settlement.id)
                {
                    (settlement.fence, by) = (task.fence, task.owner.unwrap_or(host));
                }
                let answer = db.settle(by, std::slice::from_ref(&settlement)).await?.remove(0);
                let fenced = answer == SettleAnswer::Fenced;
                at_work.step(if fenced { "s6 fenced" } else { "s6 settled" }, &settlement.id);
                answers.push(answer);
            }
            Ok(answers)
        });
        let answer = answer.await;
        wire.die_at("s6 crash");
        wire.alive().await;
        answer
    }

    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        let wire = self.0.clone();
        batch.iter().for_each(|recording| wire.step("s5 record", &recording.settlement.id));
        (0..DEATHS).for_each(|_| wire.die_at("s5 record crash"));
        wire.stall();
        if wire.wedged.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let batch = batch.to_vec();
        let at_work = wire.clone();
        let answer = wire.call(async move |db| {
            let mut answers = Vec::with_capacity(batch.len());
            for recording in &batch {
                let answer = db.record(host, std::slice::from_ref(recording)).await?.remove(0);
                let name = match (&answer, recording.arrival.relayed) {
                    (RecordAnswer::Recorded, None) => "s6 recorded",
                    (RecordAnswer::Recorded, Some(_)) => "s6 recorded: relayed",
                    _ => "s6 not recorded: there is a row",
                };
                at_work.step(name, &recording.settlement.id);
                answers.push(answer);
            }
            Ok(answers)
        });
        let answer = answer.await;
        (0..DEATHS).for_each(|_| wire.die_at("s6 record crash"));
        wire.alive().await;
        answer
    }

    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError> {
        let letters = letters.to_vec();
        self.0.call(async move |db| db.record_dead(&letters).await).await
    }
    async fn park_unusable(
        &self,
        me: Claimant,
        tasks: &[Unusable],
        again: Duration,
    ) -> Result<Vec<UnusableAnswer>, DbError> {
        let tasks = tasks.to_vec();
        self.0.call(async move |db| db.park_unusable(me, &tasks, again).await).await
    }
    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError> {
        let queue = queue.to_owned();
        self.0.call(async move |db| db.take_letters(&queue, limit, hold).await).await
    }
    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.0.call(async move |db| db.letters_published(&ids).await).await
    }
    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.0.call(async move |db| db.defer_letters(&ids, delay).await).await
    }
    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError> {
        let host = host.clone();
        self.0.call(async move |db| db.register_host(&host, ttl).await).await
    }
    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError> {
        let host = host.clone();
        self.0.call(async move |db| db.renew_lease(&host, ttl).await).await
    }
    async fn end_lease(&self, host: HostId) -> Result<(), DbError> {
        self.0.call(async move |db| db.end_lease(host).await).await
    }
    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        let batch = batch.to_vec();
        self.0.call(async move |db| db.submit(&batch).await).await
    }
    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.0.call(async move |db| db.cancel(id).await).await
    }
    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        let world = self.0.world.clone();
        self.0.call(async move |db| db.wake_due(limit).await.inspect(|n| world.steps("woken", *n))).await
    }
    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        let world = self.0.world.clone();
        self.0.call(async move |db| db.fail_expired(limit).await.inspect(|n| world.steps("expired", *n))).await
    }
    async fn rescue(&self, steady: bool, again: Duration, thorough: bool, limit: u32) -> Result<u64, DbError> {
        let world = self.0.world.clone();
        let rescue = async move |db: MemoryDb| {
            db.rescue(steady, again, thorough, limit).await.inspect(|n| world.steps("rescued", *n))
        };
        self.0.call(rescue).await
    }
    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        let world = self.0.world.clone();
        self.0.call(async move |db| db.fail_unknown(grace, limit).await.inspect(|n| world.steps("unknown", *n))).await
    }
    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError> {
        let look = look.clone();
        self.0.call(async move |db| db.parked(&look).await).await
    }
    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.0.call(async move |db| db.hold_outbox(token, &ids, ttl).await).await
    }
    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError> {
        let (world, take) = (self.0.world.clone(), take.clone());
        let taken = async move |db: MemoryDb| {
            db.take_outbox(&take).await.inspect(|batch| world.steps("relay took", batch.rows.len() as u64))
        };
        self.0.call(taken).await
    }
    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.0.world.steps("relay dropped", ids.len() as u64);
        self.0.call(async move |db| db.drop_outbox(token, &ids).await).await
    }
    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError> {
        let ids = ids.to_vec();
        self.0.world.steps("relay deferred", ids.len() as u64);
        self.0.call(async move |db| db.defer_outbox(token, &ids, reason, delay).await).await
    }

    // What is on no task's way in a simulation.

    async fn migrate(&self) -> Result<Migrated, DbError> {
        self.0.world.db.migrate().await
    }
    async fn check_schema(&self) -> Result<SchemaVersion, DbError> {
        self.0.world.db.check_schema().await
    }
    async fn ping(&self) -> Result<DateTime<Utc>, DbError> {
        self.0.world.db.ping().await
    }
    async fn hosts(&self) -> Result<Vec<HostRow>, DbError> {
        self.0.world.db.hosts().await
    }
    async fn prune(&self, _: &Retention, _: u32) -> Result<u64, DbError> {
        Ok(0) // everything is looked at in the end
    }
    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError> {
        self.0.world.db.asked(id).await
    }
    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        self.0.world.db.retry(task, once).await
    }
    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.0.world.db.erase(id).await
    }
    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError> {
        self.0.world.db.labelled(key, limit).await
    }
    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError> {
        self.0.world.db.delete_labelled(label, limit).await
    }
    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError> {
        self.0.world.db.begin_redrive(letter, again).await
    }
    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError> {
        self.0.world.db.end_redrive(letter, id).await
    }
    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError> {
        self.0.world.db.prunable(keep).await
    }
    async fn sizes(&self) -> Result<Vec<TableSize>, DbError> {
        self.0.world.db.sizes().await
    }
    fn stores(&self) -> &dyn Stores {
        self.0.world.db.stores()
    }
    fn steering(&self) -> &dyn Steering {
        self
    }
    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.0.world.db.task(id, fields).await
    }
    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError> {
        self.0.world.db.tasks(any, fields).await
    }
    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        self.0.world.db.terminal(ids).await
    }
    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError> {
        self.0.world.db.events(id, after, limit).await
    }
    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError> {
        self.0.world.db.logs(id, after, limit).await
    }
    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError> {
        self.0.world.db.calls(id, after, limit, bodies).await
    }
    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.0.world.db.attempts(id).await
    }
    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError> {
        self.0.world.db.dead_letters(filter).await
    }
}

#[async_trait]
impl Steering for WireDb {
    async fn news(&self, host: HostId) -> Result<News, DbError> {
        self.0.call(async move |db| db.news(host).await).await
    }

    // Operators do nothing in a simulation.

    async fn set_brake(&self, change: &BrakeChange) -> Result<BrakeAnswer, DbError> {
        self.0.world.db.set_brake(change).await
    }
    async fn audit(&self, entry: &AuditEntry) -> Result<(), DbError> {
        self.0.world.db.audit(entry).await
    }
    async fn audited(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, DbError> {
        self.0.world.db.audited(filter).await
    }
    async fn prune_audit(&self, _: Duration, _: u32) -> Result<u64, DbError> {
        Ok(0)
    }
    async fn waiting(&self, limit: u32) -> Result<WaitingByQueue, DbError> {
        Steering::waiting(&self.0.world.db, limit).await
    }
}
