//! Smart batches: flush at once when idle, gather while a flush is in flight. No tick, no minimum.

use super::Shared;
use crate::db::DbError;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most entries of one flush. Larger batches gain nothing on Postgres and hold locks longer.
pub const MOST: usize = 256;

/// The next batch: everything that has gathered, at least one. `None`: the senders are gone and all is flushed.
pub async fn next<T>(from: &mut mpsc::Receiver<T>) -> Option<Vec<T>> {
    let mut batch = Vec::new();
    (from.recv_many(&mut batch, MOST).await > 0).then_some(batch)
}

/// Call the database until it answers, with growing pauses. `None`: a shutdown could not wait any longer.
///
/// Nothing is lost meanwhile: deliveries stay unacknowledged, ends stay in memory. Readiness tells why.
pub async fn until_answered<T, F>(shared: &Shared, what: &'static str, call: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        if let Some(answer) = told(shared, what, call().await) {
            return Some(answer);
        }
        let jittered = pause.mul_f64(0.5 + (shared.parts.chance)() / 2.0);
        tokio::select! {
            biased;
            () = tokio::time::sleep(jittered) => {}
            () = shared.hurry.cancelled() => return None,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
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
