//! Parked tasks: what waits in the database for a host that can run it gets slots here, by priority, then age.
//!
//! For slots, memory and turns they wait in one line with what arrives, and are not only given what happens to be free: while the
//! broker has a backlog nothing ever is.

use super::candidate::{Candidate, consider};
use super::{Shared, batch};
use crate::db::{DbError, Halving};
use crate::registry::Resolved;
use crate::task::{Runnable, TaskId, WaitCode};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the database is asked when nothing happened here that could matter: another host may have parked something.
const LOOK: Duration = Duration::from_secs(1);

/// How soon a task is offered again whose claim came to nothing. Until then its row may still say that it is parked although it
/// is on its way.
const AGAIN: Duration = LOOK;
/// Tasks that are read at least, since the first may be of queues or versions that get nothing now.
const LEAST: u32 = 16;

/// Offer parked tasks until the worker closes.
pub async fn run(shared: Arc<Shared>, claims: mpsc::Sender<Candidate>) {
    let mut changes = shared.parts.catalog.changes();
    let mut watching = true;
    let mut offered = HashMap::new();
    let mut size = Halving::new(batch::MOST);
    loop {
        offered.retain(|_, at: &mut Instant| at.elapsed() < AGAIN);
        match offer(&shared, &claims, size.size(), &mut offered).await {
            Ok(sent) => {
                size.ended();
                // There may be more, and room for it.
                if sent && !shared.closing.is_cancelled() {
                    continue;
                }
            }
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

/// Whether one was sent on its way.
async fn offer(
    shared: &Shared,
    claims: &mpsc::Sender<Candidate>,
    most: usize,
    offered: &mut HashMap<TaskId, Instant>,
) -> Result<bool, DbError> {
    let plugins = with_room(shared);
    if plugins.is_empty() {
        return Ok(false);
    }
    let first = tokio::select! {
        biased;
        slot = shared.room.any_slot() => slot,
        () = shared.closing.cancelled() => return Ok(false),
    };
    let mut slot = Some(first);
    let most = (shared.room.free() + 1).max(LEAST).min(most as u32);
    let lane = shared.room.free_lanes() > 0;
    let mut sent = false;
    // What asks for a version that is not here, however urgently, is not to stand before what can run.
    let mut not_here: Vec<String> = Vec::new();
    loop {
        let tasks = shared.parts.db.parked(&plugins, &not_here, lane, most).await?;
        let known = not_here.len();
        for task in tasks {
            if offered.contains_key(&task.message.id) {
                continue;
            }
            let Some(any) = slot.take().or_else(|| shared.room.try_any_slot()) else { return Ok(sent) };
            let own = match shared.room.for_queue(any, &task.queue) {
                Ok(own) => own,
                Err(any) => {
                    slot = Some(any);
                    continue;
                }
            };
            let (id, plugin) = (task.message.id, task.message.plugin.to_string());
            let asked = Instant::now();
            let candidate = tokio::select! {
                biased;
                candidate = consider(shared, Arc::new(task.message), task.queue.into(), Some(0), own) => candidate,
                () = shared.closing.cancelled() => return Ok(false),
            };
            // Still not for us: its row says why already.
            if candidate.ready.is_some() {
                offered.insert(id, Instant::now());
                sent = true;
                let _ = claims.send(candidate).await;
            } else if !is_for_a_place(&candidate) && !not_here.contains(&plugin) {
                not_here.push(plugin);
            }
            if asked.elapsed() >= LOOK {
                // It had to wait for memory, and by now another may be more urgent than the next.
                return Ok(sent);
            }
        }
        // Fewer than asked for may be all that there is, or all that one answer has room for.
        if not_here.len() == known {
            return Ok(sent);
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
