//! The pruner: a terminal task is past its time if and only if it ended longer ago than `retention.*` keeps its state.

use super::{BATCH, Parts, sweep};
use crate::db::Retention;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Small batches, often: one large delete would hold locks and bloat the table.
const LOOK: Duration = Duration::from_secs(60);

/// Delete what is past its time, until told to end.
pub async fn run(parts: Parts, keep: Retention, closing: CancellationToken) {
    let prune = async || {
        let pruned = parts.db.prune(&keep, BATCH).await?;
        if pruned > 0 {
            tracing::info!(pruned, "deleted what is kept no longer");
        }
        Ok(pruned)
    };
    sweep("pruner", LOOK, &closing, prune).await;
}
