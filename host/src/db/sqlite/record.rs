//! Recording first attempts that ran without a claim: birth, run and end of a batch in one transaction, and a few statements.

use super::super::bisect::bisected;
use super::super::fault::Fault;
use super::super::plan::{self, Birth, Outcome, Recorded, Write};
use super::super::{RecordAnswer, Recording};
use super::outgoing::Outgoing;
use super::settle::settle_round;
use super::transition::{begin, insert_tasks, read_rows, write};
use crate::task::{HostId, decide};
use sqlx::SqliteConnection;

/// `batch`: of different tasks.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Recording],
    outgoing: &mut Outgoing,
) -> Result<Vec<RecordAnswer>, Fault> {
    bisected!(batch.len(), |range| record_all(connection, host, &batch[range], outgoing).await, RecordAnswer::Refused)
}

async fn record_all(
    connection: &mut SqliteConnection,
    host: HostId,
    batch: &[Recording],
    outgoing: &mut Outgoing,
) -> Result<Vec<RecordAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut sent = outgoing.begin();
    let mut rows = read_rows(&mut tx, batch.iter().map(|recording| recording.settlement.id), now).await?;
    let (mut births, mut writes): (Vec<Birth<'_>>, Vec<Write>) = Default::default();
    let mut outcomes: Vec<Outcome<'_>> = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for recording in batch {
        let Recording { arrival, settlement, ran } = recording;
        let Recorded { birth, outcome, .. } = Recorded::of(recording, host)?;
        let began = now - plan::bounded(*ran);
        match rows.remove(&settlement.id) {
            None => births.push(Birth { at: Some(began), ..birth }),
            Some(locked) if plan::awaits_first_attempt(&locked, arrival, now) => {
                let decision = decide(Some(&locked.row), arrival, host, now);
                let Some(change) = Write::of_decision(&locked, &decision, arrival, host)? else {
                    answers.push(RecordAnswer::Exists);
                    continue;
                };
                // It cannot have begun before it was submitted, however long the host believes that it ran.
                writes.push(Write { at: locked.created_at.map(|born| born.max(began)), ..change });
            }
            Some(_) => {
                answers.push(RecordAnswer::Exists);
                continue;
            }
        }
        outcomes.push(outcome);
        answers.push(RecordAnswer::Recorded);
    }
    insert_tasks(&mut tx, &births, now).await?;
    write(&mut tx, &writes, now).await?;
    settle_round(&mut tx, host, &outcomes.iter().collect::<Vec<_>>(), now, &mut sent).await?;
    tx.commit().await?;
    outgoing.end(sent);
    Ok(answers)
}
