//! What must hold when a world is at rest: the invariants of `lifecycle`, over the tables, the queues and the ledger.

use super::world::World;
use crate::broker::Source;
use crate::db::memory::{Tables, Task};
use crate::task::retry::{MAX_CHILD_LOSSES, SUSPECT_AFTER};
use crate::task::{Event, Failure, FailureKind, State, TaskId, next};
use std::collections::BTreeMap;

fn sources() -> [Source; 2] {
    [Source::Tasks("default".into()), Source::Returned("default".into())]
}

/// Nothing is left to be done.
pub fn is_at_rest(world: &World) -> bool {
    let promised: Vec<TaskId> = world.promises().keys().copied().collect();
    let tables = world.db.look();
    let ended = |id: &TaskId| tables.tasks.get(id).is_some_and(|task| task.state.is_terminal());
    promised.iter().all(ended)
        && tables.outbox.is_empty()
        && tables.tasks.values().all(|task| task.state.is_terminal())
        && sources().iter().all(|source| {
            let (ready, held) = world.server.contents(source);
            ready.is_empty() && held.is_empty()
        })
}

/// Everything that must not be, and is.
pub fn violations(world: &World) -> Vec<String> {
    let tables = world.db.look();
    let mut found = Vec::new();
    promises(world, &tables, &mut found);
    for task in tables.tasks.values() {
        if let Err(what) = history(&tables, task) {
            found.push(format!("{what}: {}", task.id));
        }
    }
    queues(world, &tables, &mut found);
    runs(world, &tables, &mut found);
    letters(world, &tables, &mut found);
    found.extend(world.wrongs());
    found.extend(tables.touched_after_the_end.iter().map(|id| format!("I2: changed after its end: {id}")));
    found
}

fn failure(task: &Task) -> Option<FailureKind> {
    let failure: Failure = serde_json::from_str(task.failure.as_deref()?).ok()?;
    Some(failure.kind)
}

/// I1, I5: every promised task has one row, and it ended as it may.
fn promises(world: &World, tables: &Tables, found: &mut Vec<String>) {
    let promises = world.promises();
    for (id, promise) in &*promises {
        match tables.tasks.get(id) {
            None => found.push(format!("I1: lost: {id} {promise:?}")),
            Some(task) if !task.state.is_terminal() => {
                found.push(format!("I1, I6: {} at rest: {id} {promise:?} {task:?}", task.state));
            }
            Some(task) if !promise.allows(task.state, failure(task)) => {
                found.push(format!("I1, I5: ended {} {:?}: {id} {promise:?}", task.state, task.failure));
            }
            Some(_) => {}
        }
    }
    let unusable = world.unusable();
    for task in tables.tasks.values().filter(|task| !promises.contains_key(&task.id)) {
        if !unusable.contains(&task.id) || failure(task) != Some(FailureKind::Rejected) {
            found.push(format!("I1: a row that nobody asked for: {}", task.id));
        }
    }
}

/// I2, I3, I5, I7: gapless, from birth to its one end, folding to its state, fences growing, budgets kept.
fn history(tables: &Tables, task: &Task) -> Result<(), String> {
    let events = tables.events.get(&task.id).ok_or("I3: no history")?;
    let (mut state, mut fence) = (None, 0);
    for (event, seq) in events.iter().zip(1..) {
        if event.seq != seq {
            return Err(format!("I3: a gap before {}", event.seq));
        }
        state = Some(next(state, event.event).map_err(|error| format!("I2, I3: {error}"))?);
        if matches!(event.event, Event::Running | Event::TakenOver) {
            if event.fence.is_none_or(|claimed| claimed <= fence) {
                return Err(format!("I7: the fence {:?} follows {fence}", event.fence));
            }
            fence = event.fence.unwrap_or(fence);
        }
    }
    if state != Some(task.state) {
        return Err(format!("I3: the history folds to {state:?} and the row is {}", task.state));
    }
    if task.burnt > task.max_attempts || task.attempt > task.max_attempts {
        return Err(format!("I5: attempt {} of {}", task.attempt, task.max_attempts));
    }
    if task.host_losses > SUSPECT_AFTER || task.child_losses > MAX_CHILD_LOSSES {
        return Err(format!("I5: {} hosts lost, {} children", task.host_losses, task.child_losses));
    }
    Ok(())
}

/// I4: nothing is left in a queue or the outbox.
fn queues(world: &World, tables: &Tables, found: &mut Vec<String>) {
    for source in sources() {
        let (ready, held) = world.server.contents(&source);
        let bodies = ready.iter().chain(&held).map(|stored| stored.message.message_id.clone());
        let left: Vec<_> = bodies.flatten().take(5).collect();
        if !left.is_empty() {
            found.push(format!("I4: {source:?} holds {} ready, {} unacknowledged: {left:?}", ready.len(), held.len()));
        }
    }
    for id in tables.outbox.keys().take(5) {
        found.push(format!("I4: left in the outbox: {id}"));
    }
}

/// I5, from outside: no guest ran without a claim of its own, none after its own end, and each outcome is of the run that was
/// under the claim that recorded it.
fn runs(world: &World, tables: &Tables, found: &mut Vec<String>) {
    let ledger = world.ledger();
    let mut began: BTreeMap<_, usize> = BTreeMap::new();
    for run in &ledger.0 {
        if run.pure && !run.claimed {
            continue; // Without effects, and without a claim: nothing of it counts unless it is recorded.
        }
        *began.entry((run.id, run.host, run.attempt)).or_default() += 1;
    }
    for ((id, host, attempt), times) in began {
        let is_claim = |event: &&crate::db::EventRow| {
            matches!(event.event, Event::Running | Event::TakenOver)
                && event.host == Some(host)
                && event.attempt == Some(attempt)
        };
        let claims = tables.events.get(&id).map_or(0, |events| events.iter().filter(is_claim).count());
        if times > claims {
            found.push(format!("I5: attempt {attempt} began {times} times for {claims} claims of one host: {id}"));
        }
    }
    for task in tables.tasks.values().filter(|task| task.state == State::Completed) {
        let output: serde_json::Value =
            task.output.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let run = output["run"].as_u64().and_then(|run| ledger.0.get(run as usize));
        let own = run.is_some_and(|run| {
            (run.id, Some(run.host), run.attempt, run.ended) == (task.id, task.owner, task.attempt, true)
        });
        if !own {
            found.push(format!("I2: the outcome of another claim's run: {} {output} {run:?}", task.id));
        }
    }
    for run in ledger.0.iter().filter(|run| run.after_the_end && (run.claimed || !run.pure)) {
        let last = tables.tasks.get(&run.id).is_some_and(|t| (t.owner, t.attempt) == (Some(run.host), run.attempt));
        if last {
            found.push(format!("I2: ran after its own end was recorded: {run:?}"));
        }
    }
}

/// I8: what is put aside has a reason, once; and what nobody can use is put aside.
fn letters(world: &World, tables: &Tables, found: &mut Vec<String>) {
    let unusable = world.unusable();
    let mut letters: BTreeMap<Option<TaskId>, usize> = BTreeMap::new();
    for row in tables.dead.values() {
        if row.letter.reason.is_empty() || row.letter.detail.is_empty() {
            found.push(format!("I8: a dead letter without a reason: {:?}", row.letter));
        }
        match row.letter.reason.as_str() {
            "conflict" => {}
            // The broker gave up on it after it had been recorded and before it was acknowledged.
            "returned" => {}
            _ => *letters.entry(row.letter.task_id).or_default() += 1,
        }
    }
    for id in &*unusable {
        let times = letters.remove(&Some(*id)).unwrap_or(0);
        let returned =
            tables.dead.values().any(|row| row.letter.task_id == Some(*id) && row.letter.reason == "returned");
        if times > 1 || (times == 0 && !returned) {
            found.push(format!("I8: recorded {times} times: {id}"));
        }
    }
    found.extend(letters.keys().map(|id| format!("I8: usable, and put aside: {id:?}")));
}
