//! The undertaker: a parked task is hopeless if and only if it has waited for the grace period, in which a rolling deployment
//! may bring or repair its plugin, and no host has served that for as long. It ends as `failed(unknown_plugin)` with the names that
//! are known, or as `failed(plugin_broken)` with the cause.

use super::{BATCH, Parts, sweep};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(1);

/// Fail what is hopeless, until told to end.
pub async fn run(parts: Parts, grace: Duration, closing: CancellationToken) {
    let bury = async || {
        let failed = parts.db.fail_unknown(grace, BATCH).await?;
        parts.metrics.swept("undertaker", failed);
        if failed > 0 {
            tracing::warn!(failed, "tasks failed: no live host serves their plugins");
        }
        Ok(failed)
    };
    sweep("undertaker", LOOK, &closing, bury).await;
}
