//! The one judge of all invariants: a pure function over a [`World`]. The state machine is written down here once more, from
//! `host/docs/lifecycle.md` and not from the code.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use uuid::Uuid;

use super::world::{Event, Row, World};
use crate::http::is_terminal;

/// So many of each invariant are told one by one.
const TOLD: usize = 5;
/// What a task may lose, hosts as children, before it is isolated, or convicted.
const LOSSES: u32 = 2;

/// Everything that must not be, and is. Each begins with the invariant that it breaks:
///
/// - I1: what was promised has a row, nothing else has, and it is terminal;
/// - I2: a terminal row never changes, and no task ends twice;
/// - I3: a history is gapless, begins with a birth, ends with the end, and folds to the row;
/// - I4: nothing is left in the queues, acknowledged or not, nor in the outbox;
/// - I5: attempts and losses are within their budgets, every run has a claim, every further run a reason, and no honest
///   task ends for the sake of its hosts;
/// - I6: nothing runs whose owner is dead;
/// - I7: fences strictly increase from claim to claim, and an attempt is its claimant's;
/// - I8: nothing is dead-lettered without a reason, or unexpectedly.
pub fn violations(world: &World) -> Vec<String> {
    let mut found = Found::default();
    promised(world, &mut found);
    unchanged(world, &mut found);
    let began = began(world);
    for (id, row) in &world.rows {
        let history = world.histories.get(id).map(Vec::as_slice).unwrap_or_default();
        let mut told = |invariant, what: String| found.add(invariant, || format!("{what}: {id} {}", brief(history)));
        folds(history, row, &mut told);
        budgets(world, history, row, &mut told);
        fences(world, id, history, row, &mut told);
        if let Some(began) = &began {
            ledger(began.get(id), world.unclaimed.contains(id), history, row, &mut told);
        }
    }
    for (id, attempts) in began.iter().flatten().filter(|(id, _)| !world.rows.contains_key(id)) {
        found.add("I5", || format!("{id} has no row, and guests began it: {attempts:?}"));
    }
    convictions(world, &mut found);
    outside(world, &mut found);
    found.told()
}

/// I1, I6: which rows there are, and that they rest.
fn promised(world: &World, found: &mut Found) {
    for id in world.promised.iter().filter(|id| !world.rows.contains_key(*id)) {
        found.add("I1", || format!("{id} was promised and has no row"));
    }
    for (id, Row { end, owner, .. }) in &world.rows {
        if !world.promised.contains(id) {
            found.add("I1", || format!("{id} has a row and was promised to nobody"));
        }
        let lives = |owner: &Uuid| world.hosts.get(owner).is_some_and(|host| host.is_alive);
        if end.state == "running" && !owner.as_ref().is_some_and(lives) {
            found.add("I6", || format!("{id} runs, and its owner {owner:?} is dead"));
        } else if !is_terminal(&end.state) {
            found.add("I1", || format!("{id} is {}", end.state));
        }
    }
    for id in world.histories.keys().filter(|id| !world.rows.contains_key(*id)) {
        found.add("I3", || format!("{id} has a history and no row"));
    }
}

/// I2: what had ended is as it was.
fn unchanged(world: &World, found: &mut Found) {
    for (id, before) in world.earlier.iter().filter(|(_, end)| is_terminal(&end.state)) {
        let now = world.rows.get(id).map(|row| &row.end);
        if now != Some(before) {
            found.add("I2", || format!("{id} had ended as {before:?} and is {now:?}"));
        }
    }
    for (id, attempts) in &world.attempts {
        let completed = attempts.iter().filter(|attempt| attempt.ended == "completed").count();
        if completed > 1 {
            found.add("I2", || format!("{id} completed {completed} times"));
        }
    }
}

/// I2, I3: the history is gapless, possible, and leads to the row.
fn folds(history: &[Event], row: &Row, told: &mut impl FnMut(&'static str, String)) {
    let mut at: Option<&str> = None;
    for (place, event) in (1..).zip(history) {
        if event.seq != place {
            return told("I3", format!("a gap before {}", event.seq));
        }
        let Some(to) = next(at, &event.event) else {
            let invariant = if at.is_some_and(is_terminal) { "I2" } else { "I3" };
            return told(invariant, format!("{} after {at:?}", event.event));
        };
        at = Some(to);
    }
    if at != Some(&row.end.state) || history.last().map(|event| event.seq) != Some(row.end.last_seq) {
        told(
            "I3",
            format!("the row is {} after {} events, and the history folds to {at:?}", row.end.state, row.end.last_seq),
        );
    }
}

/// The state after an event, as `host/docs/lifecycle.md` has it; `None`: there is no such transition.
fn next(from: Option<&str>, event: &str) -> Option<&'static str> {
    let waiting = matches!(from, Some("scheduled" | "pending" | "retrying"));
    let running = from == Some("running");
    match event {
        "scheduled" if from.is_none() => Some("scheduled"),
        "pending" | "parked" if from.is_none() || waiting => Some("pending"),
        "running" if from.is_none() || waiting => Some("running"),
        "taken_over" if running => Some("running"),
        "retrying" if running => Some("retrying"),
        "snoozed" if running => Some("scheduled"),
        "interrupted" if running => Some("pending"),
        "completed" if running => Some("completed"),
        "failed" if from.is_none() || waiting || running => Some("failed"),
        "cancelled" if waiting || running => Some("cancelled"),
        _ => None,
    }
}

/// I5: attempts and losses. A claim repeats the attempt before it only if that was taken over, interrupted or snoozed, and
/// is the next one only if that failed: so nothing multiplies.
fn budgets(world: &World, history: &[Event], row: &Row, told: &mut impl FnMut(&'static str, String)) {
    let Row { max_attempts, burnt, attempt, host_losses, child_losses, .. } = row;
    if attempt > max_attempts || burnt > attempt {
        told("I5", format!("attempt {attempt}, {burnt} used up of {max_attempts}"));
    }
    if *host_losses > LOSSES || *child_losses > LOSSES {
        told("I5", format!("{host_losses} hosts and {child_losses} children lost"));
    }
    let mut due = 1;
    for event in history {
        if event.event == "retrying" {
            due += 1;
        } else if event.is_claim() && event.attempt != Some(due) {
            told("I5", format!("a claim is attempt {:?}, and nothing explains it: {due} was due", event.attempt));
        }
    }
    let last = history.iter().rfind(|event| event.is_claim()).and_then(|claim| claim.attempt).unwrap_or_default();
    if *attempt != last {
        told("I5", format!("the row is at attempt {attempt} and the last claim at {last}"));
    }
    let taken_over = history.iter().filter(|event| event.event == "taken_over").count();
    if taken_over > world.expected.take_overs {
        told("I5", format!("taken over {taken_over} times, and {} are expected", world.expected.take_overs));
    }
    if world.expected.all_complete && is_terminal(&row.end.state) && row.end.state != "completed" {
        told("I5", format!("an honest task {}", row.end.state));
    }
}

/// I5: the guests' own account, against the claims. Each attempt began once for each claim of it, at most. A first attempt
/// without effects may have run without a claim, any number of times.
fn ledger(
    began: Option<&BTreeMap<u32, usize>>,
    unclaimed: bool,
    history: &[Event],
    row: &Row,
    told: &mut impl FnMut(&'static str, String),
) {
    let none = BTreeMap::new();
    let began = began.unwrap_or(&none);
    for (attempt, times) in began {
        let claims = history.iter().filter(|event| event.is_claim() && event.attempt == Some(*attempt)).count();
        if *times > claims {
            told("I5", format!("attempt {attempt} began {times} times and was claimed {claims} times"));
        }
    }
    let ran = began.contains_key(&row.attempt) || (unclaimed && row.attempt == 1);
    if row.end.state == "completed" && !ran {
        told("I5", format!("attempt {} completed and never began", row.attempt));
    }
}

/// I7: claims and their attempts.
fn fences(world: &World, id: &Uuid, history: &[Event], row: &Row, told: &mut impl FnMut(&'static str, String)) {
    let claims = || history.iter().filter(|event| event.is_claim());
    let mut last = 0;
    for claim in claims() {
        match claim.fence {
            Some(fence) if fence > last => last = fence,
            fence => return told("I7", format!("a claim with fence {fence:?} after {last}")),
        }
    }
    if row.fence != last {
        told("I7", format!("the row's fence is {} and the last claim's {last}", row.fence));
    }
    for attempt in world.attempts.get(id).into_iter().flatten() {
        let claim = claims().find(|claim| claim.fence == Some(attempt.fence));
        if claim.and_then(|claim| claim.host) != Some(attempt.host) {
            told("I7", format!("an attempt that nobody claimed: {attempt:?}"));
        }
    }
}

/// I5: only who killed processes that it was alone in ends for it.
fn convictions(world: &World, found: &mut Found) {
    let convicted: Vec<_> = world.rows.iter().filter(|(_, row)| row.failure == "host_lost").collect();
    for (id, row) in convicted.iter().filter(|(_, row)| row.child_losses < LOSSES) {
        found.add("I5", || format!("{id} is host_lost, and {} processes died of it", row.child_losses));
    }
    let (told, expected) = (convicted.len(), world.expected.host_lost);
    if told != expected {
        let ids: Vec<_> = convicted.iter().take(TOLD).map(|(id, _)| id).collect();
        found.add("I5", || format!("{told} tasks are host_lost, and {expected} are expected: {ids:?}"));
    }
}

/// I4, I8: what is left, and what was put aside.
fn outside(world: &World, found: &mut Found) {
    if world.outbox > 0 {
        found.add("I4", || format!("{} rows are left in the outbox", world.outbox));
    }
    for (queue, left) in &world.queues {
        match left {
            Ok(0) => {}
            Ok(left) => found.add("I4", || format!("{left} messages are left in {queue}")),
            Err(error) => found.add("I4", || format!("{queue} cannot be looked at: {error}")),
        }
    }
    for letter in world.dead.iter().filter(|letter| letter.reason.is_empty() || letter.detail.is_empty()) {
        found.add("I8", || format!("a letter does not say why: {letter:?}"));
    }
    let (dead, expected) = (world.dead.len(), world.expected.dead_letters);
    if dead != expected {
        found.add("I8", || format!("{dead} letters, and {expected} are expected: {:?}", &world.dead[..dead.min(TOLD)]));
    }
    let Some(wire) = &world.wire else { return };
    // The same letter may be there twice: its publish is repeated where its answer is lost.
    if wire.len() < dead || (dead == 0 && !wire.is_empty()) {
        found.add("I8", || format!("{dead} letters, and {} of them at the broker: {wire:?}", wire.len()));
    }
    for _ in wire.iter().filter(|reason| reason.is_empty()) {
        found.add("I8", || "a letter at the broker does not say why".to_owned());
    }
}

/// How often each attempt of each task began; `None`: nobody wrote it down.
fn began(world: &World) -> Option<BTreeMap<Uuid, BTreeMap<u32, usize>>> {
    let mut began: BTreeMap<Uuid, BTreeMap<u32, usize>> = BTreeMap::new();
    for (id, attempt) in world.ledger.as_ref()? {
        *began.entry(*id).or_default().entry(*attempt).or_default() += 1;
    }
    Some(began)
}

/// A history in one line.
fn brief(history: &[Event]) -> String {
    history.iter().fold(String::new(), |mut text, Event { seq, event, attempt, fence, .. }| {
        let _ = write!(text, "{seq} {event}"); // writing to a text does not fail
        if let (Some(attempt), Some(fence)) = (attempt, fence) {
            let _ = write!(text, " (attempt {attempt}, fence {fence})");
        }
        text.push_str("; ");
        text
    })
}

/// What was found, by invariant.
#[derive(Default)]
struct Found(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Found {
    fn add(&mut self, invariant: &'static str, what: impl FnOnce() -> String) {
        let (count, told) = self.0.entry(invariant).or_default();
        *count += 1;
        if told.len() < TOLD {
            told.push(what());
        }
    }

    fn told(self) -> Vec<String> {
        let mut all = Vec::new();
        for (invariant, (count, told)) in self.0 {
            let more = count.saturating_sub(told.len());
            all.extend(told.into_iter().map(|what| format!("{invariant}: {what}")));
            if more > 0 {
                all.push(format!("{invariant}: and {more} more such"));
            }
        }
        all
    }
}
