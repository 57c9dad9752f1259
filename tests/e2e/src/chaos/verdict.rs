//! What is true when all is at rest: the invariants, and what the faults cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Plan;
use super::load::Promised;
use super::report::{Found, Report, Struck};
use super::stage::Stage;
use crate::http::is_terminal;
use crate::invariants::{self, Ends, Event, Expected, World};

/// Stops the daemons and looks.
pub async fn reach(
    stage: Stage,
    plan: Plan,
    began: Instant,
    struck: Struck,
    promised: Promised,
    earlier: Ends,
) -> Report {
    let database = stage.site.database().await;
    invariants::nothing_on_its_way(&stage.site, &database).await;
    let mut violations = Vec::new();
    let stage = stage.stopped(&mut violations).await;
    let mut world = invariants::world(&stage.site, &database).await;
    if let Some(ledger) = &stage.ledger {
        world.read(ledger);
    }
    world.promised = promised.ids.iter().copied().collect();
    world.earlier = earlier;
    // However often its hosts die, every task of this load completes in the end.
    world.expected = Expected { take_overs: usize::MAX, all_complete: true, ..Expected::default() };
    violations.extend(invariants::violations(&world));
    let found = Found {
        published_again: promised.again,
        fenced: fenced(&stage),
        taken_from: taken_from(&world, &stage),
        violations,
        ..costs(&world)
    };
    Report::new(plan, began.elapsed(), struck, found)
}

/// What can be counted.
fn costs(world: &World) -> Found {
    let ended = |id| world.rows.get(id).is_some_and(|row| is_terminal(&row.end.state));
    let ends = |history: &&Vec<Event>| history.iter().filter(|event| is_terminal(&event.event)).count();
    let (take_overs, interrupted) = (world.events("taken_over"), world.events("interrupted"));
    let runs = world.events("running") + take_overs;
    Found {
        promised: world.promised.len(),
        watched: world.earlier.len(),
        lost: world.promised.iter().filter(|id| !ended(*id)).count(),
        doubled: world.histories.values().filter(|history| ends(history) > 1).count(),
        runs,
        began: world.ledger.as_ref().map_or(0, Vec::len) + world.unclaimed.len(),
        extra_runs: runs.saturating_sub(world.histories.len() + world.events("retrying") + world.events("snoozed")),
        take_overs,
        interrupted,
        ..Found::default()
    }
}

/// What had been done to the hosts that tasks were taken over from.
fn taken_from(world: &World, stage: &Stage) -> BTreeMap<String, usize> {
    let mut marks: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for (pid, fault) in &stage.marks {
        marks.entry(*pid).or_default().insert(fault.name());
    }
    let mut taken = BTreeMap::new();
    for history in world.histories.values() {
        let claims: Vec<_> = history.iter().filter(|event| event.is_claim()).collect();
        for pair in claims.windows(2).filter(|pair| pair[1].event == "taken_over") {
            let host = pair[0].host.and_then(|host| world.hosts.get(&host));
            // Named agentry/BUILD/HOST/PID.
            let pid: Option<u32> = host.and_then(|host| host.name.rsplit('/').next()?.parse().ok());
            let done = pid.and_then(|pid| marks.get(&pid));
            let done = done.map(|done| done.iter().copied().collect::<Vec<_>>().join(", "));
            *taken.entry(done.unwrap_or_else(|| "hit only together with all".to_owned())).or_default() += 1;
        }
    }
    taken
}

fn fenced(stage: &Stage) -> usize {
    stage.actors.iter().map(|actor| actor.daemon.said().matches("fenced: ").count()).sum()
}
