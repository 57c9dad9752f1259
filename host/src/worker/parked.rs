//! Parked tasks: what waits in the database for a host that can run it gets slots here, by priority, then age.
//!
//! For memory they wait in one line with what arrives, and are not only given what happens to be free: among many that arrive
//! and need little, one that is parked and needs much would wait for ever.

use super::candidate::{Candidate, consider};
use super::{Shared, batch};
use crate::db::{DbError, Halving};
use crate::registry::Resolved;
use crate::task::{Runnable, WaitCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the database is asked when nothing happened here that could matter: another host may have parked something.
const LOOK: Duration = Duration::from_secs(1);

/// Offer parked tasks until the worker closes.
pub async fn run(shared: Arc<Shared>, claims: mpsc::Sender<Candidate>) {
    let mut changes = shared.parts.catalog.changes();
    let mut watching = true;
    let mut size = Halving::new(batch::MOST);
    loop {
        match offer(&shared, &claims, size.size()).await {
            Ok(()) => size.ended(),
            Err(error) => {
                tracing::debug!(%error, "parked tasks could not be read");
                if error.is_timed_out() {
                    size.timed_out(size.size());
                }
            }
        }
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.room.freed().notified() => {}
            changed = changes.changed(), if watching => watching = changed.is_ok(),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn offer(shared: &Shared, claims: &mpsc::Sender<Candidate>, most: usize) -> Result<(), DbError> {
    let most = shared.room.free().min(most as u32);
    let plugins = with_room(shared);
    if most == 0 || plugins.is_empty() {
        return Ok(());
    }
    let lane = shared.room.free_lanes() > 0;
    // What asks for a version that is not here, however urgently, is not to stand before what can run.
    let mut not_here: Vec<String> = Vec::new();
    loop {
        let tasks = shared.parts.db.parked(&plugins, &not_here, lane, most).await?;
        let known = not_here.len();
        for task in tasks {
            let Some(slot) = shared.room.try_slot(&task.queue) else { continue };
            let plugin = task.message.plugin.to_string();
            let asked = Instant::now();
            let candidate = tokio::select! {
                biased;
                candidate = consider(shared, Arc::new(task.message), task.queue.into(), Some(0), slot) => candidate,
                () = shared.closing.cancelled() => return Ok(()),
            };
            // Still not for us: its row says why already.
            if candidate.ready.is_some() {
                let _ = claims.send(candidate).await;
            } else if !is_for_a_place(&candidate) && !not_here.contains(&plugin) {
                not_here.push(plugin);
            }
            if asked.elapsed() >= LOOK {
                // It had to wait for memory, and by now another may be more urgent than the next.
                return Ok(());
            }
        }
        // Fewer than asked for may be all that there is, or all that one answer has room for.
        if not_here.len() == known {
            return Ok(());
        }
    }
}

/// It waits for others of its plugin to end, and not for its plugin.
fn is_for_a_place(candidate: &Candidate) -> bool {
    matches!(candidate.arrival.runnable, Runnable::NotHere { code: WaitCode::NoSlot, .. })
}

/// Names of plugins that are served here and not at their limit.
fn with_room(shared: &Shared) -> Vec<String> {
    let catalog = &shared.parts.catalog;
    let mut names: Vec<String> =
        catalog.served().plugins.iter().filter_map(|p| p.split('@').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names.retain(|name| match name.parse().map(|plugin| catalog.resolve(&plugin)) {
        Ok(Resolved::Ready(runner)) => shared.room.has_place(name, runner.concurrency()),
        _ => true,
    });
    names
}
