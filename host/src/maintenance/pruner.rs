//! The pruner: a terminal task is past its time if and only if it ended longer ago than `retention.*` keeps its state.

use super::{BATCH, Parts, sweep};
use crate::db::{Db, DbError, Halving, Retention};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Small batches, often: one large delete would hold locks and bloat the table.
const LOOK: Duration = Duration::from_secs(60);

/// Deletes one batch, a smaller one if it does not end in time.
async fn prune(db: &dyn Db, keep: &Retention) -> Result<u64, DbError> {
    let mut batch = Halving::new(BATCH as usize);
    loop {
        match db.prune(keep, batch.size() as u32).await {
            Err(error) if error.is_timed_out() && batch.timed_out(batch.size()) => {
                tracing::debug!(%error, next = batch.size(), "a deletion did not end in time; trying fewer tasks");
            }
            result => return result,
        }
    }
}

/// Delete what is past its time, until told to end.
pub async fn run(parts: Parts, keep: Retention, closing: CancellationToken) {
    let prune = async || {
        let pruned = prune(&*parts.db, &keep).await?;
        if pruned > 0 {
            tracing::info!(pruned, "deleted what is kept no longer");
        }
        // A batch may be small because its tasks have many lines: the last one is that which deletes nothing.
        Ok(if pruned > 0 { u64::from(BATCH) } else { 0 })
    };
    sweep("pruner", LOOK, &closing, prune).await;
}
