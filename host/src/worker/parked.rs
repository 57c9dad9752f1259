//! Parked tasks: tasks that wait in the database for a host that can run them. They are offered slots by priority, then age.
//!
//! They wait for slots, memory and turns in one line with deliveries. While the broker has a backlog no slot is ever free without
//! waiting.

use super::candidate::{Candidate, consider};
use super::{Shared, batch};
use crate::db::{DbError, Halving, ParkedCursor, ParkedLook, Unread};
use crate::registry::Resolved;
use crate::task::{Runnable, TaskId, WaitCode};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the database is asked when nothing happened here that could matter: another host may have parked something.
const LOOK: Duration = Duration::from_secs(1);

/// Time after which a task is offered again if it was not claimed. Until then its row may be read as parked during its claim.
const AGAIN: Duration = LOOK;
/// Pause while offered tasks are being claimed. After it, the tasks behind them are read.
const CLAIMED: Duration = Duration::from_millis(20);
/// Tasks that are read at least. The first ones may belong to queues without a free slot, or to versions that are not here.
const LEAST: usize = 16;
/// Pages of one round behind the first, if none of those before has a task for a slot that is free.
const PAGES: usize = 8;

/// Time for which a task is not offered again that the database refused to this build. Another build may run it meanwhile.
const REFUSED: Duration = Duration::from_secs(60);

/// Parked tasks that the database refused, and when.
#[derive(Default)]
pub struct Refused(Mutex<HashMap<TaskId, Instant>>);

impl Refused {
    /// This one is refused.
    pub fn add(&self, id: TaskId) {
        self.lock().insert(id, Instant::now());
    }

    fn has(&self, id: TaskId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Forget those that may be offered again.
    fn forget(&self) {
        self.lock().retain(|_, at| at.elapsed() < REFUSED);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // whole at every instruction
    }
}

/// State of earlier rounds.
#[derive(Default)]
struct Known {
    /// Tasks that were sent to be claimed, and when.
    on_their_way: HashMap<TaskId, Instant>,
    /// Tasks whose rows this build cannot read. Each is logged once.
    unread: HashSet<TaskId>,
    /// Where the next round goes on, behind its first page: as many tasks as one round reads may stand before one that can run.
    behind: Option<ParkedCursor>,
}

/// Result of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    /// At least one task was sent to be claimed. More may be parked, with room for them.
    Some,
    /// Only tasks that are being claimed already.
    Known,
    /// No task that can run here.
    None,
}

/// Offer parked tasks until the worker closes.
pub async fn run(shared: Arc<Shared>, claims: mpsc::Sender<Candidate>) {
    let mut changes = shared.parts.catalog.changes();
    let mut brakes = shared.parts.brakes.changes();
    let mut watching = true;
    let mut known = Known::default();
    let mut size = Halving::new(batch::MOST);
    loop {
        known.on_their_way.retain(|_, at: &mut Instant| at.elapsed() < AGAIN);
        shared.refused.forget();
        let pause = match offer(&shared, &claims, size.size(), &mut known).await {
            Ok(offered) => {
                size.ended();
                match offered {
                    Offered::Some if !shared.closing.is_cancelled() => continue,
                    Offered::Known => CLAIMED,
                    Offered::Some | Offered::None => LOOK,
                }
            }
            Err(error) => {
                tracing::debug!(%error, "parked tasks could not be read");
                if error.is_timed_out() {
                    size.timed_out(size.size());
                }
                LOOK
            }
        };
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.room.freed().notified() => {}
            changed = changes.changed(), if watching => watching = changed.is_ok(),
            Ok(()) = brakes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn offer(
    shared: &Shared,
    claims: &mpsc::Sender<Candidate>,
    most: usize,
    known: &mut Known,
) -> Result<Offered, DbError> {
    if with_room(shared).is_empty() {
        return Ok(Offered::None);
    }
    let first = tokio::select! {
        biased;
        slot = shared.room.any_slot() => slot,
        () = shared.closing.cancelled() => return Ok(Offered::None),
    };
    let mut slot = Some(first);
    let Some(except_queues) = shared.stopped_queues() else { return Ok(Offered::None) };
    let wanted = (shared.room.free() as usize + 1).max(LEAST) + known.on_their_way.len();
    let limit = |rows: usize| u32::try_from(rows.min(most)).unwrap_or(u32::MAX);
    let lane = shared.room.free_lanes() > 0;
    let mut look = ParkedLook { lane, limit: limit(wanted), except_queues, ..ParkedLook::default() };
    let (mut offered, mut pages) = (Offered::None, 0);
    loop {
        // A plugin may have reached its limit meanwhile.
        look.plugins = with_room(shared);
        let parked = shared.parts.db.parked(&look).await?;
        for Unread { id, reason } in parked.unread {
            if known.unread.insert(id) {
                tracing::error!(task = %id, reason, "a parked task is left to another build");
            }
        }
        // What asks for a version that is not here, however urgently, is not to stand before what can run.
        let (excepted, mut sent) = (look.except.len(), false);
        for task in parked.tasks {
            if shared.refused.has(task.message.id) {
                continue;
            }
            if known.on_their_way.contains_key(&task.message.id) {
                if offered == Offered::None {
                    offered = Offered::Known;
                }
                continue;
            }
            let Some(any) = slot.take().or_else(|| shared.room.try_any_slot()) else { return Ok(offered) };
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
                () = shared.closing.cancelled() => return Ok(Offered::None),
            };
            if shared.stopped(&candidate.arrival.queue).is_some() {
                return Ok(offered); // It waited for memory meanwhile.
            }
            // Still not for us: its row says why already.
            if candidate.ready.is_some() {
                known.on_their_way.insert(id, Instant::now());
                (offered, sent) = (Offered::Some, true);
                let _ = claims.send(candidate).await;
            } else if !is_for_a_place(&candidate) && !look.except.contains(&plugin) {
                look.except.push(plugin);
            }
            if asked.elapsed() >= LOOK {
                // It had to wait for memory, and by now another may be more urgent than the next.
                return Ok(offered);
            }
        }
        if look.except.len() > excepted {
            continue; // The same page without those.
        }
        // The others are not for a slot that is left: they are being claimed, cannot be used, or wait for a slot of their queue.
        let Some(last) = parked.last else {
            known.behind = None;
            return Ok(offered);
        };
        look.after = Some(last);
        if !sent {
            look.after = look.after.max(known.behind.filter(|_| pages == 0));
            known.behind = look.after;
        }
        if pages == PAGES {
            return Ok(offered);
        }
        (look.limit, pages) = (limit(batch::MOST), pages + 1);
    }
}

/// It waits for others of its plugin to end, and not for its plugin.
fn is_for_a_place(candidate: &Candidate) -> bool {
    matches!(candidate.arrival.runnable, Runnable::NotHere { code: WaitCode::NoSlot, .. })
}

/// Names of plugins that are served here, not disabled and not at their limit.
fn with_room(shared: &Shared) -> Vec<String> {
    let catalog = &shared.parts.catalog;
    let mut names: Vec<String> =
        catalog.served().plugins.iter().filter_map(|p| p.split('@').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    let brakes = shared.parts.brakes.now();
    names.retain(|name| brakes.plugin(name).is_none());
    names.retain(|name| match name.parse().map(|plugin| catalog.resolve(&plugin)) {
        Ok(Resolved::Ready(runner)) => shared.room.has_place(name, runner.concurrency()),
        _ => true,
    });
    names
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;
