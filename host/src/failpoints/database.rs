//! The database with points.

use super::{after, before, redrives};
use crate::db::*;
use crate::task::{Arrival, HostId, Settlement, TaskId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Every call goes through; those on a task's way pass two points.
pub struct Faulty(pub Arc<dyn Db>);

/// A call between two points. A lost answer is an outage to whoever asked.
async fn between<T>(
    points: (&'static str, &'static str),
    subject: String,
    call: impl Future<Output = Result<T, DbError>>,
) -> Result<T, DbError> {
    let asked = before(points.0, &subject).await.map_err(DbError::Unavailable)?;
    let answer = call.await?;
    after(points.1, &subject, asked).await.map_err(DbError::Unavailable)?;
    Ok(answer)
}

/// The ids of a batch, and the plugins' names where they are known.
fn names<T>(batch: &[T], name: impl Fn(&T, &mut String)) -> String {
    let mut text = String::new();
    for one in batch {
        name(one, &mut text);
        text.push(' ');
    }
    text
}

fn id_of(id: &TaskId, text: &mut String) {
    let _ = write!(text, "{id}"); // writing to a text does not fail
}

#[async_trait]
impl Db for Faulty {
    async fn claim(&self, me: Claimant, batch: &[Arrival]) -> Result<Vec<ClaimAnswer>, DbError> {
        let subject = names(batch, |arrival, text| {
            let _ = write!(text, "{} {}", arrival.message.id, arrival.message.plugin.name);
        });
        between(("s2.claim", "s3.claimed"), subject, self.0.claim(me, batch)).await
    }
    async fn settle(&self, host: HostId, batch: &[Settlement]) -> Result<Vec<SettleAnswer>, DbError> {
        let subject = names(batch, |settlement, text| id_of(&settlement.id, text));
        between(("s5.settle", "s6.settled"), subject, self.0.settle(host, batch)).await
    }
    async fn record(&self, host: HostId, batch: &[Recording]) -> Result<Vec<RecordAnswer>, DbError> {
        let subject = names(batch, |recording, text| {
            let _ = write!(text, "{} {}", recording.settlement.id, recording.arrival.message.plugin.name);
        });
        between(("s5.record", "s6.recorded"), subject, self.0.record(host, batch)).await
    }
    async fn record_dead(&self, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, DbError> {
        let subject = names(letters, |letter, text| text.push_str(&letter.reason));
        between(("dead.record", "dead.recorded"), subject, self.0.record_dead(letters)).await
    }
    async fn submit(&self, batch: &[NewTask]) -> Result<Vec<Submitted>, DbError> {
        let subject = names(batch, |task, text| id_of(&task.message.id, text));
        between(("submit.before", "submit.after"), subject, self.0.submit(batch)).await
    }
    async fn wake_due(&self, limit: u32) -> Result<u64, DbError> {
        // Only where there is something: the sweep itself comes five times a second.
        let woken = self.0.wake_due(limit);
        seldom(("wake.before", "wake.after"), woken, |woken| *woken > 0).await
    }
    async fn rescue(&self, steady: bool, again: Duration, thorough: bool, limit: u32) -> Result<u64, DbError> {
        let rescued = self.0.rescue(steady, again, thorough, limit);
        seldom(("rescue.before", "rescue.after"), rescued, |rescued| *rescued > 0).await
    }
    async fn take_outbox(&self, take: &OutboxTake) -> Result<OutboxBatch, DbError> {
        seldom(("relay.take", "relay.taken"), self.0.take_outbox(take), |batch| !batch.rows.is_empty()).await
    }
    async fn drop_outbox(&self, token: uuid::Uuid, ids: &[TaskId]) -> Result<(), DbError> {
        let subject = names(ids, id_of);
        between(("relay.drop", "relay.dropped"), subject, self.0.drop_outbox(token, ids)).await
    }
    async fn labelled(&self, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, DbError> {
        self.0.labelled(key, limit).await
    }
    async fn delete_labelled(&self, label: &Label, limit: u32) -> Result<LabelledDeletion, DbError> {
        self.0.delete_labelled(label, limit).await
    }
    async fn begin_redrive(&self, letter: i64, again: bool) -> Result<RedriveAnswer, DbError> {
        let call = self.0.begin_redrive(letter, again);
        let answer = between(("redrive.begin", "redrive.begun"), letter.to_string(), call).await?;
        if let RedriveAnswer::Begun(redrive) = &answer {
            redrives().insert(redrive.id.to_string());
        }
        Ok(answer)
    }
    async fn end_redrive(&self, letter: i64, id: TaskId) -> Result<(), DbError> {
        between(("redrive.end", "redrive.ended"), id.to_string(), self.0.end_redrive(letter, id)).await
    }
    async fn renew_lease(&self, host: &HostRecord, ttl: Duration) -> Result<Renewal, DbError> {
        between(("lease.renew", "lease.renewed"), String::new(), self.0.renew_lease(host, ttl)).await
    }

    async fn park_unusable(
        &self,
        me: Claimant,
        tasks: &[Unusable],
        again: Duration,
    ) -> Result<Vec<UnusableAnswer>, DbError> {
        self.0.park_unusable(me, tasks, again).await
    }
    async fn take_letters(&self, queue: &str, limit: u32, hold: Duration) -> Result<Vec<UnpublishedLetter>, DbError> {
        self.0.take_letters(queue, limit, hold).await
    }
    async fn take_replies(&self, limit: u32, hold: Duration) -> Result<Vec<Reply>, DbError> {
        self.0.take_replies(limit, hold).await
    }
    async fn replied(&self, ids: &[TaskId]) -> Result<(), DbError> {
        self.0.replied(ids).await
    }
    async fn defer_replies(&self, ids: &[TaskId], delay: Duration) -> Result<(), DbError> {
        self.0.defer_replies(ids, delay).await
    }
    async fn letters_published(&self, ids: &[i64]) -> Result<(), DbError> {
        self.0.letters_published(ids).await
    }
    async fn defer_letters(&self, ids: &[i64], delay: Duration) -> Result<(), DbError> {
        self.0.defer_letters(ids, delay).await
    }
    async fn check_service(&self) -> Result<(), DbError> {
        self.0.check_service().await
    }
    async fn migrate(&self) -> Result<Migrated, DbError> {
        self.0.migrate().await
    }
    async fn check_schema(&self) -> Result<SchemaVersion, DbError> {
        self.0.check_schema().await
    }
    async fn ping(&self) -> Result<DateTime<Utc>, DbError> {
        self.0.ping().await
    }
    async fn register_host(&self, host: &HostRecord, ttl: Duration) -> Result<(), DbError> {
        self.0.register_host(host, ttl).await
    }
    async fn end_lease(&self, host: HostId) -> Result<(), DbError> {
        self.0.end_lease(host).await
    }
    async fn hosts(&self) -> Result<Vec<HostRow>, DbError> {
        self.0.hosts().await
    }
    async fn cancel(&self, id: TaskId) -> Result<CancelAnswer, DbError> {
        self.0.cancel(id).await
    }
    async fn fail_expired(&self, limit: u32) -> Result<u64, DbError> {
        self.0.fail_expired(limit).await
    }
    async fn fail_unknown(&self, grace: Duration, limit: u32) -> Result<u64, DbError> {
        self.0.fail_unknown(grace, limit).await
    }
    async fn waiting(&self, look: WaitingLook) -> Result<WaitingNow, DbError> {
        self.0.waiting(look).await
    }
    fn pools(&self) -> Vec<PoolFacts> {
        self.0.pools()
    }
    async fn parked(&self, look: &ParkedLook) -> Result<Parked, DbError> {
        self.0.parked(look).await
    }
    async fn hold_outbox(&self, token: uuid::Uuid, ids: &[TaskId], ttl: Duration) -> Result<(), DbError> {
        self.0.hold_outbox(token, ids, ttl).await
    }
    async fn defer_outbox(
        &self,
        token: uuid::Uuid,
        ids: &[TaskId],
        reason: OutboxReason,
        delay: Duration,
    ) -> Result<(), DbError> {
        self.0.defer_outbox(token, ids, reason, delay).await
    }
    async fn prune(&self, keep: &Retention, limit: u32) -> Result<u64, DbError> {
        self.0.prune(keep, limit).await
    }
    async fn asked(&self, id: TaskId) -> Result<Option<AskedTask>, DbError> {
        self.0.asked(id).await
    }
    async fn retry(&self, task: &NewTask, once: bool) -> Result<RetryAnswer, DbError> {
        self.0.retry(task, once).await
    }
    async fn erase(&self, id: TaskId) -> Result<EraseAnswer, DbError> {
        self.0.erase(id).await
    }
    async fn prunable(&self, keep: &Retention) -> Result<PrunePlan, DbError> {
        self.0.prunable(keep).await
    }
    async fn sizes(&self) -> Result<Vec<TableSize>, DbError> {
        self.0.sizes().await
    }
    fn stores(&self) -> &dyn Stores {
        self.0.stores()
    }
    fn steering(&self) -> &dyn Steering {
        self.0.steering()
    }
    async fn task(&self, id: TaskId, fields: Fields) -> Result<Option<TaskRow>, DbError> {
        self.0.task(id, fields).await
    }
    async fn tasks(&self, any: &[TaskFilter], fields: Fields) -> Result<Page<TaskRow>, DbError> {
        self.0.tasks(any, fields).await
    }
    async fn terminal(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, DbError> {
        self.0.terminal(ids).await
    }
    async fn events(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<EventRow>, DbError> {
        self.0.events(id, after, limit).await
    }
    async fn logs(&self, id: TaskId, after: i64, limit: u32) -> Result<Page<LogRow>, DbError> {
        self.0.logs(id, after, limit).await
    }
    async fn calls(&self, id: TaskId, after: CallCursor, limit: u32, bodies: bool) -> Result<Page<CallRow>, DbError> {
        self.0.calls(id, after, limit, bodies).await
    }
    async fn attempts(&self, id: TaskId) -> Result<Vec<AttemptRow>, DbError> {
        self.0.attempts(id).await
    }
    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Page<DeadRow>, DbError> {
        self.0.dead_letters(filter).await
    }
}

/// A sweep between two points. The one behind it is passed only by a sweep that found something; the one before it by all,
/// since nobody knows yet.
async fn seldom<T>(
    points: (&'static str, &'static str),
    call: impl Future<Output = Result<T, DbError>>,
    found: impl Fn(&T) -> bool,
) -> Result<T, DbError> {
    let asked = before(points.0, "").await.map_err(DbError::Unavailable)?;
    let answer = call.await?;
    if found(&answer) || asked.is_some() {
        after(points.1, "", asked).await.map_err(DbError::Unavailable)?;
    }
    Ok(answer)
}
