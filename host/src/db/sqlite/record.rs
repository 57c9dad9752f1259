//! Recording a first attempt that ran without a claim: birth, run and end of a batch in one transaction.

use super::super::bisect::Bisection;
use super::super::fault::Fault;
use super::super::plan::{self, Recorded, Write};
use super::super::{RecordAnswer, Recording};
use super::settle::settle_one;
use super::transition::{begin, give_birth, one, write};
use crate::task::{HostId, decide};
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

pub(super) async fn record(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Recording],
) -> Result<Vec<RecordAnswer>, Fault> {
    let mut bisection = Bisection::new(batch.len());
    while let Some(range) = bisection.next() {
        let result = record_all(connection, host, &batch[range.clone()]).await;
        if let Some((index, fault)) = bisection.tried(range, result)? {
            bisection.answer(index, RecordAnswer::Refused(fault.reason()));
        }
    }
    bisection.finish()
}

async fn record_all(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Recording],
) -> Result<Vec<RecordAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut answers = Vec::with_capacity(batch.len());
    for recording in batch {
        answers.push(record_one(&mut tx, host, recording, now).await?);
    }
    tx.commit().await?;
    Ok(answers)
}

async fn record_one(
    connection: &mut SqliteConnection,
    host: HostId,
    recording: &Recording,
    now: DateTime<Utc>,
) -> Result<RecordAnswer, Fault> {
    let Recording { arrival, settlement, ran } = recording;
    let row = Recorded::of(recording, host)?;
    let began = now - plan::bounded(*ran);
    match one(connection, settlement.id, now).await? {
        None => {
            if !give_birth(connection, &row.birth, began).await? {
                return Err(Fault::Defect("a row came within a transaction that writes alone".into()));
            }
        }
        Some(locked) if plan::awaits_first_attempt(&locked, arrival, now) => {
            let decision = decide(Some(&locked.row), arrival, host, now);
            let Some(change) = Write::of_decision(&locked, &decision, arrival, host)? else {
                return Ok(RecordAnswer::Exists);
            };
            write(connection, &change, began).await?;
        }
        Some(_) => return Ok(RecordAnswer::Exists),
    }
    settle_one(connection, host, settlement, now).await?;
    Ok(RecordAnswer::Recorded)
}
