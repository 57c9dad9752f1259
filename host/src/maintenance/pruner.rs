//! The pruner: a terminal task is past its time if and only if it ended longer ago than `retention.*` keeps its state. Records of what operators
//! changed go after `retention.audit_days`.

use super::{BATCH, Parts, sweep};
use crate::db::{DbError, Halving, Retention};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Small batches, often: one large delete would hold locks and bloat the table.
const LOOK: Duration = Duration::from_secs(60);

/// The size of batches, which lasts from one sweep to the next.
struct Batches(Mutex<Halving>);

impl Batches {
    fn new() -> Batches {
        Batches(Mutex::new(Halving::new(BATCH as usize)))
    }

    fn size<T>(&self, change: impl FnOnce(&mut Halving) -> T) -> (T, u32) {
        let mut size = self.0.lock().unwrap_or_else(PoisonError::into_inner); // a number, whole at every instruction
        (change(&mut size), u32::try_from(size.size()).unwrap_or(BATCH))
    }

    /// Deletes one batch, a smaller one if it does not end in time. The size grows again once nothing is left: the batches of one backlog
    /// are alike, and a larger one would time out again.
    async fn prune<F>(&self, delete: impl Fn(u32) -> F) -> Result<u64, DbError>
    where
        F: Future<Output = Result<u64, DbError>>,
    {
        loop {
            let ((), size) = self.size(|_| ());
            match delete(size).await {
                Err(error) if error.is_timed_out() => {
                    let (smaller, next) = self.size(|halving| halving.timed_out(size as usize));
                    if !smaller {
                        return Err(error);
                    }
                    tracing::debug!(%error, next, "a deletion did not end in time; trying fewer tasks");
                }
                Ok(0) => {
                    self.size(Halving::ended);
                    return Ok(0);
                }
                result => return result,
            }
        }
    }
}

/// Delete what is past its time, until told to end.
pub async fn run(parts: Parts, keep: Retention, closing: CancellationToken) {
    let batches = Batches::new();
    let prune = async || {
        let pruned = batches.prune(|size| parts.db.prune(&keep, size)).await?;
        parts.metrics.swept("pruner", pruned);
        if pruned > 0 {
            tracing::info!(pruned, "deleted what is kept no longer");
        }
        let audited = parts.db.steering().prune_audit(keep.audit, BATCH).await?;
        let pruned = pruned.max(audited);
        // A batch may be small because its tasks have many lines: the last one is that which deletes nothing.
        Ok(if pruned > 0 { u64::from(BATCH) } else { 0 })
    };
    sweep("pruner", LOOK, &closing, prune).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn size_that_ends_in_time_is_kept_from_one_sweep_to_the_next() {
        let (batches, tried) = (Batches::new(), Mutex::new(Vec::new()));
        let sweep = async |left: u64| {
            let delete = |size: u32| {
                tried.lock().unwrap().push(size);
                let slow = DbError::TimedOut("it took too long".into());
                std::future::ready(if size > 100 { Err(slow) } else { Ok(left.min(size.into())) })
            };
            let pruned = batches.prune(delete).await.unwrap();
            (pruned, std::mem::take(&mut *tried.lock().unwrap()))
        };
        assert_eq!(sweep(1_000).await, (62, vec![500, 250, 125, 62]));
        assert_eq!(sweep(1_000).await, (62, vec![62]));
        assert_eq!(sweep(0).await, (0, vec![62]));
        assert_eq!(sweep(1_000).await, (62, vec![124, 62]));
    }
}
