//! Work that brakes keep from beginning here: deliveries and parked tasks of a paused queue, tasks of a disabled plugin, and everything on a host
//! that is drained. What runs goes on.

use super::Shared;
use super::candidate::{Candidate, not_here};
use crate::broker::{Delivery, Flow};
use crate::db::Brake;
use crate::task::{PluginRef, Runnable, WaitCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the deliveries of a paused queue stay in hand before they go back. A short pause returns none, and each return counts against the
/// delivery limit. By its end every host has heard of the brake, so that none of them is handed over again elsewhere.
pub const HELD: Duration = Duration::from_secs(3);

/// The reason why tasks of a queue do not begin here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The queue is paused, everywhere.
    Paused,
    /// This host is drained: other hosts run what it has not begun.
    Drained,
}

/// Outcome of a delivery whose queue was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The queue goes on.
    Released,
    /// It is to go back to the broker.
    GoesBack,
    /// The subscription is to end.
    Ended,
}

impl Shared {
    /// The reason why tasks of the queue do not begin here; `None`: they do.
    pub fn stopped(&self, queue: &str) -> Option<Stop> {
        let brakes = &self.parts.brakes;
        if !brakes.any() {
            return None;
        }
        let now = brakes.now();
        match now.host(self.config.host) {
            Some(_) => Some(Stop::Drained),
            None => now.queue(queue).map(|_| Stop::Paused),
        }
    }

    /// Returns once tasks of the queue do not begin here.
    pub async fn until_stopped(&self, queue: &str) {
        let mut changes = self.parts.brakes.changes();
        while self.stopped(queue).is_none() {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The brake of a plugin; of those of single versions, that of `version`.
    pub fn disabled(&self, plugin: &PluginRef, version: Option<&str>) -> Option<Brake> {
        if !self.parts.brakes.any() {
            return None;
        }
        let now = self.parts.brakes.now();
        let brake = match version {
            Some(version) => now.version(&plugin.name, version),
            None => now.plugin(&plugin.name),
        };
        brake.cloned()
    }

    /// Names of queues whose tasks do not begin here; `None`: those of no queue do.
    pub fn stopped_queues(&self) -> Option<Vec<String>> {
        let now = self.parts.brakes.now();
        if now.host(self.config.host).is_some() {
            return None;
        }
        let queues = now.held.iter().filter(|brake| brake.kind == crate::db::BrakeKind::Queue);
        Some(queues.map(|brake| brake.target.clone()).collect())
    }
}

/// A task of a disabled plugin: it waits in the database.
pub fn of_disabled(plugin: &PluginRef, brake: &Brake) -> Runnable {
    let detail = json!({
        "plugin": &*plugin.name, "disabled": true,
        "brake": {"kind": brake.kind, "target": brake.target, "by": brake.by, "reason": brake.reason, "since": brake.since},
    });
    not_here(WaitCode::Paused, detail)
}

/// Waits with a delivery of a queue that is stopped, for as long as its subscription holds what it has.
pub async fn held(shared: &Shared, queue: &str, mut flow: watch::Receiver<Flow>, end: &CancellationToken) -> Held {
    let mut changes = shared.parts.brakes.changes();
    loop {
        changes.mark_unchanged();
        match (shared.stopped(queue), *flow.borrow_and_update()) {
            (None, _) => return Held::Released,
            (Some(_), Flow::GiveBack) => return Held::GoesBack,
            // Whoever steers it follows the brakes a moment later. Given back before, it would come here again.
            (Some(_), Flow::Go | Flow::Hold) => {}
        }
        tokio::select! {
            biased;
            () = end.cancelled() => return Held::Ended,
            changed = changes.changed() => if changed.is_err() { return Held::Ended },
            changed = flow.changed() => if changed.is_err() { return Held::Ended },
        }
    }
}

/// Takes out of a batch that is to be claimed what a brake stopped after it was received, and returns the rest. What runs already without a
/// claim, and what this host may have claimed before, is left in it.
pub async fn sorted_out(shared: &Shared, batch: Vec<Candidate>) -> Vec<Candidate> {
    if !shared.parts.brakes.any() {
        return batch;
    }
    let (mut rest, mut back) = (Vec::with_capacity(batch.len()), Vec::new());
    for mut candidate in batch {
        let begins = candidate.ready.is_some() && candidate.unclaimed.is_none() && !candidate.second_look;
        if begins && shared.stopped(&candidate.arrival.queue).is_some() {
            back.extend(candidate.delivery.map(|delivery: Delivery| delivery.receipt));
            continue;
        }
        let plugin = &candidate.arrival.message.plugin;
        let version: Option<Arc<str>> = candidate.ready.as_ref().map(|ready| ready.runner.version().clone());
        if begins && let Some(brake) = shared.disabled(plugin, version.as_deref()) {
            candidate.arrival.runnable = of_disabled(plugin, &brake);
            candidate.ready = None;
        }
        rest.push(candidate);
    }
    if !back.is_empty() {
        shared.parts.broker.give_back(back).await;
    }
    rest
}

#[cfg(test)]
#[path = "stops_tests.rs"]
mod tests;
