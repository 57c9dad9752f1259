//! Smart batches: flush at once when idle, gather while a flush is in flight. No tick, no minimum.

use super::Shared;
use crate::db::{DbError, Halving};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most entries of one flush. Larger batches gain nothing on Postgres and hold locks longer.
pub const MOST: usize = 256;

/// The next batch: everything that has gathered, at least one. `None`: the senders are gone and all is flushed.
pub async fn next<T>(from: &mut mpsc::Receiver<T>) -> Option<Vec<T>> {
    let mut batch = Vec::new();
    (from.recv_many(&mut batch, MOST).await > 0).then_some(batch)
}

/// The same in parts that weigh no more than `most` each, but for a single one that does, in their order.
pub fn parts<T>(batch: Vec<T>, most: usize, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut left) = (Vec::<Vec<T>>::new(), 0);
    for one in batch {
        let weight = weight(&one);
        match parts.last_mut() {
            Some(part) if weight <= left => part.push(one),
            _ => {
                parts.push(vec![one]);
                left = most;
            }
        }
        left = left.saturating_sub(weight);
    }
    parts
}

/// Call the database for a batch of `len` until it answers, with growing pauses; the answers are in the order of the batch. `None`: a
/// shutdown could not wait any longer. A range that does not end in time is halved: as it is it would time out again and again.
///
/// Only what concerns all rows is waited for: an entry that the database refuses has an answer that says so. Nothing is lost
/// meanwhile: deliveries stay unacknowledged, ends stay in memory. Readiness tells why.
pub async fn all_answered<A, F>(
    shared: &Shared,
    what: &'static str,
    len: usize,
    call: impl Fn(Range<usize>) -> F,
) -> Option<Vec<A>>
where
    F: Future<Output = Result<Vec<A>, DbError>>,
{
    let mut size = Halving::new(len);
    let mut answers = Vec::with_capacity(len);
    let mut pause = Duration::from_millis(50);
    while answers.len() < len {
        let range = answers.len()..len.min(answers.len() + size.size());
        let entries = range.len();
        let result = call(range).await;
        if result.as_ref().is_err_and(DbError::is_timed_out) {
            size.timed_out(entries);
        }
        if let Some(some) = told(shared, what, result) {
            size.ended();
            answers.extend(some);
            continue;
        }
        let jittered = pause.mul_f64(0.5 + (shared.parts.chance)() / 2.0);
        tokio::select! {
            biased;
            () = tokio::time::sleep(jittered) => {}
            () = shared.hurry.cancelled() => return None,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    Some(answers)
}

/// Tell everybody whether the database answers: consumers are held while it does not, and readiness says why.
pub fn told<T>(shared: &Shared, what: &'static str, result: Result<T, DbError>) -> Option<T> {
    match result {
        Ok(answer) => {
            shared.database_trouble.send_if_modified(|trouble| {
                let was = trouble.take();
                if was.is_some() {
                    tracing::info!(what, "the database answers again");
                }
                was.is_some()
            });
            Some(answer)
        }
        Err(error) => {
            shared.database_trouble.send_if_modified(|trouble| {
                if trouble.is_none() {
                    tracing::error!(%error, what, "the database does not answer; everything waits for it");
                }
                let text = error.to_string();
                let news = trouble.as_deref() != Some(&text);
                *trouble = Some(text);
                news
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_where_it_becomes_too_heavy_and_nothing_is_lost() {
        let cut = |batch: &[usize]| parts(batch.to_vec(), 10, |weight| *weight);
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[4, 6, 1]), [vec![4, 6], vec![1]]);
        assert_eq!(cut(&[5, 6, 20, 1, 9, 1]), [vec![5], vec![6], vec![20], vec![1, 9], vec![1]]);
    }
}
