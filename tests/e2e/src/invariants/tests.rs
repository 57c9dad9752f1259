//! A small sound world, broken in one way after the other.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use super::{Attempt, End, Event, Expected, Host, Row, World, violations};
use crate::database::DeadLetter;
use crate::patience::patience;

const HOST: Uuid = Uuid::from_u128(0xa);
const OTHER: Uuid = Uuid::from_u128(0xb);
const COMPLETED: Uuid = Uuid::from_u128(1);
const TAKEN_OVER: Uuid = Uuid::from_u128(2);
const RETRIED: Uuid = Uuid::from_u128(3);
const EXPIRED: Uuid = Uuid::from_u128(4);
const CALLED_OFF: Uuid = Uuid::from_u128(5);

/// One event: its name, and attempt, fence and host where it belongs to a claim.
type Told = (&'static str, Option<(u32, i64, Uuid)>);

const fn claimed(event: &'static str, attempt: u32, fence: i64, host: Uuid) -> Told {
    (event, Some((attempt, fence, host)))
}

/// Adds a task with this history, and all that a sound one has besides.
fn add(world: &mut World, id: Uuid, told: &[Told]) {
    let events: Vec<Event> = (1..)
        .zip(told)
        .map(|(seq, (event, claim))| Event {
            seq,
            event: (*event).to_owned(),
            attempt: claim.map(|(attempt, ..)| attempt),
            fence: claim.map(|(_, fence, _)| fence),
            host: claim.map(|(.., host)| host),
        })
        .collect();
    let last = events.last().expect("a birth");
    let claims: Vec<_> = events.iter().filter(|event| event.is_claim()).collect();
    let claim = claims.last();
    let row = Row {
        end: End {
            state: last.event.clone(),
            output: if last.event == "completed" { "a hash".to_owned() } else { String::new() },
            finished_at: "1".to_owned(),
            last_seq: last.seq,
        },
        failure: if last.event == "failed" { "plugin_error".to_owned() } else { String::new() },
        max_attempts: 3,
        burnt: claim.and_then(|claim| claim.attempt).unwrap_or_default(),
        attempt: claim.and_then(|claim| claim.attempt).unwrap_or_default(),
        fence: claim.and_then(|claim| claim.fence).unwrap_or_default(),
        owner: claim.and_then(|claim| claim.host),
        ..Row::default()
    };
    world.earlier.insert(id, row.end.clone());
    world.rows.insert(id, row);
    world.promised.insert(id);
    for claim in claims {
        let (Some(attempt), Some(fence), Some(host)) = (claim.attempt, claim.fence, claim.host) else { continue };
        world.ledger.get_or_insert_default().push((id, attempt));
        let next = events.iter().find(|event| event.seq > claim.seq).expect("what a claim came to");
        let ended = if next.event == "taken_over" { "host_lost" } else { &next.event };
        world.attempts.entry(id).or_default().push(Attempt { fence, host, ended: ended.to_owned() });
    }
    world.histories.insert(id, events);
}

fn sound() -> World {
    let host = |name: &str, is_alive| Host { name: name.to_owned(), is_alive };
    let letter = DeadLetter { reason: "not_json".to_owned(), detail: "it ends too early".to_owned() };
    let mut world = World {
        hosts: BTreeMap::from([(HOST, host("agentry/1/a/7", true)), (OTHER, host("agentry/1/a/8", false))]),
        dead: vec![letter],
        wire: Some(vec!["not_json".to_owned()]),
        queues: BTreeMap::from([("default".to_owned(), Ok(0))]),
        expected: Expected { dead_letters: 1, take_overs: 1, ..Expected::default() },
        ..World::default()
    };
    let end = |event, attempt, fence| claimed(event, attempt, fence, HOST);
    add(&mut world, COMPLETED, &[claimed("running", 1, 1, HOST), end("completed", 1, 1)]);
    let taken_over = claimed("taken_over", 1, 2, HOST);
    add(&mut world, TAKEN_OVER, &[claimed("running", 1, 1, OTHER), taken_over, end("completed", 1, 2)]);
    add(
        &mut world,
        RETRIED,
        &[
            ("pending", None),
            claimed("running", 1, 1, HOST),
            end("interrupted", 1, 1),
            claimed("running", 1, 2, HOST),
            end("retrying", 1, 2),
            ("pending", None),
            claimed("running", 2, 3, HOST),
            end("failed", 2, 3),
        ],
    );
    add(&mut world, EXPIRED, &[("failed", None)]);
    add(&mut world, CALLED_OFF, &[("scheduled", None), ("cancelled", None)]);
    world
}

/// Breaks a sound world: that invariant and no other is named, and the text says what it is about.
#[track_caller]
fn told(invariant: &str, about: &str, breaking: impl FnOnce(&mut World)) {
    let mut world = sound();
    breaking(&mut world);
    let told = violations(&world);
    assert!(told.iter().all(|violation| violation.starts_with(&format!("{invariant}: "))), "{told:#?}");
    assert!(told.iter().any(|violation| violation.contains(about)), "{about:?} is not told: {told:#?}");
}

fn row(world: &mut World, id: Uuid) -> &mut Row {
    world.rows.get_mut(&id).expect("a row")
}

fn history(world: &mut World, id: Uuid) -> &mut Vec<Event> {
    world.histories.get_mut(&id).expect("a history")
}

/// Takes the end away: the task is as its last claim left it.
fn still_runs(world: &mut World, id: Uuid) {
    history(world, id).pop();
    let last_seq = history(world, id).last().expect("a claim").seq;
    row(world, id).end = End { state: "running".to_owned(), last_seq, ..End::default() };
    world.attempts.get_mut(&id).expect("attempts").pop();
    world.earlier.remove(&id);
}

#[test]
fn a_sound_world_is_accepted() {
    assert_eq!(violations(&sound()), Vec::<String>::new());
    assert_eq!(violations(&World::default()), Vec::<String>::new());
}

#[test]
fn i1_what_was_promised_has_one_row_that_rests() {
    told("I1", "was promised and has no row", |world| {
        world.promised.insert(Uuid::from_u128(99));
    });
    told("I1", "was promised to nobody", |world| {
        world.promised.remove(&COMPLETED);
    });
    told("I1", "is running", |world| still_runs(world, COMPLETED));
}

#[test]
fn i2_what_has_ended_never_changes() {
    told("I2", "had ended as", |world| row(world, COMPLETED).end.output = "another".to_owned());
    told("I2", "had ended as", |world| row(world, COMPLETED).end.finished_at = "2".to_owned());
    told("I2", "running after Some(\"completed\")", |world| {
        let again = Event { seq: 3, fence: Some(2), ..history(world, COMPLETED)[0].clone() };
        history(world, COMPLETED).push(again);
        (row(world, COMPLETED).end.last_seq, row(world, COMPLETED).fence) = (3, 2);
        world.earlier.clear();
    });
    told("I2", "completed 2 times", |world| {
        world.attempts.get_mut(&TAKEN_OVER).expect("attempts")[0].ended = "completed".to_owned();
    });
    let mut gone = sound();
    gone.rows.remove(&EXPIRED);
    assert!(violations(&gone).iter().any(|violation| violation.starts_with("I2: ")), "also a row that is gone");
}

#[test]
fn i3_a_history_is_gapless_and_folds_to_its_row() {
    told("I3", "a gap before 9", |world| history(world, COMPLETED)[1].seq = 9);
    told("I3", "completed after None", |world| {
        history(world, EXPIRED)[0].event = "completed".to_owned();
    });
    told("I3", "folds to Some(\"completed\")", |world| {
        row(world, COMPLETED).end.state = "failed".to_owned();
        world.earlier.clear();
    });
    told("I3", "folds to None", |world| history(world, EXPIRED).clear());
    told("I3", "has a history and no row", |world| {
        world.histories.insert(Uuid::from_u128(99), Vec::new());
    });
}

#[test]
fn i4_nothing_is_left() {
    told("I4", "2 rows are left in the outbox", |world| world.outbox = 2);
    told("I4", "3 messages are left in default", |world| {
        world.queues.insert("default".to_owned(), Ok(3));
    });
    told("I4", "cannot be looked at", |world| {
        world.queues.insert("default".to_owned(), Err("no such queue".to_owned()));
    });
}

#[test]
fn i5_every_run_is_explained_and_within_its_budget() {
    told("I5", "attempt 4, 2 used up of 3", |world| row(world, RETRIED).attempt = 4);
    told("I5", "the row is at attempt 3 and the last claim at 2", |world| row(world, RETRIED).attempt = 3);
    told("I5", "3 hosts and 0 children lost", |world| row(world, RETRIED).host_losses = 3);
    told("I5", "0 hosts and 3 children lost", |world| row(world, RETRIED).child_losses = 3);
    told("I5", "taken over 1 times, and 0 are expected", |world| world.expected.take_overs = 0);
    told("I5", "is attempt Some(3), and nothing explains it: 2 was due", |world| {
        history(world, RETRIED)[6].attempt = Some(3);
        world.ledger.as_mut().expect("a ledger").retain(|run| *run != (RETRIED, 2));
    });
    told("I5", "attempt 1 began 2 times and was claimed 1 times", |world| {
        world.ledger.as_mut().expect("a ledger").push((COMPLETED, 1));
    });
    told("I5", "attempt 1 completed and never began", |world| world.ledger = Some(Vec::new()));
    told("I5", "has no row, and guests began it", |world| {
        world.ledger.as_mut().expect("a ledger").push((Uuid::from_u128(99), 1));
    });
    told("I5", "an honest task failed", |world| {
        world.expected.all_complete = true;
        for other in [EXPIRED, CALLED_OFF] {
            world.promised.remove(&other);
            world.rows.remove(&other);
            world.histories.remove(&other);
            world.earlier.remove(&other);
        }
    });
}

#[test]
fn i5_no_honest_task_ends_for_its_hosts() {
    let convict = |world: &mut World, child_losses| {
        let row = row(world, RETRIED);
        (row.failure, row.child_losses) = ("host_lost".to_owned(), child_losses);
    };
    told("I5", "1 tasks are host_lost, and 0 are expected", |world| convict(world, 2));
    told("I5", "is host_lost, and 1 processes died of it", |world| {
        convict(world, 1);
        world.expected.host_lost = 1;
    });
    let mut guilty = sound();
    convict(&mut guilty, 2);
    guilty.expected.host_lost = 1;
    assert_eq!(violations(&guilty), Vec::<String>::new());
}

#[test]
fn i6_nothing_runs_whose_owner_is_dead() {
    let dead = |world: &mut World, owner| {
        still_runs(world, COMPLETED);
        row(world, COMPLETED).owner = owner;
    };
    told("I6", "is dead", |world| dead(world, Some(OTHER)));
    told("I6", "is dead", |world| dead(world, Some(Uuid::from_u128(99))));
    told("I6", "is dead", |world| dead(world, None));
}

#[test]
fn i7_fences_strictly_increase() {
    let fence = |world: &mut World, at: usize, fence| history(world, TAKEN_OVER)[at].fence = fence;
    told("I7", "a claim with fence Some(1) after 1", |world| fence(world, 1, Some(1)));
    told("I7", "a claim with fence None after 0", |world| fence(world, 0, None));
    told("I7", "the row's fence is 1 and the last claim's 2", |world| row(world, TAKEN_OVER).fence = 1);
    told("I7", "an attempt that nobody claimed", |world| {
        world.attempts.get_mut(&TAKEN_OVER).expect("attempts")[1].host = OTHER;
    });
}

#[test]
fn i8_nothing_is_put_aside_without_a_reason() {
    told("I8", "does not say why", |world| world.dead[0].reason.clear());
    told("I8", "does not say why", |world| world.dead[0].detail.clear());
    told("I8", "1 letters, and 0 are expected", |world| world.expected.dead_letters = 0);
    told("I8", "1 letters, and 0 of them at the broker", |world| world.wire = Some(Vec::new()));
    told("I8", "a letter at the broker does not say why", |world| world.wire = Some(vec![String::new()]));
}

#[test]
fn a_hundred_thousand_tasks_are_judged_in_seconds_and_told_in_a_few_lines() {
    let mut world = World { hosts: sound().hosts, ..World::default() };
    for n in 0..100_000 {
        let running = [claimed("running", 1, 1, HOST), claimed("completed", 1, 1, HOST)];
        add(&mut world, Uuid::from_u128(1_000 + n), &running);
    }
    let began = Instant::now();
    assert_eq!(violations(&world), Vec::<String>::new());
    assert!(began.elapsed() < patience() / 4, "{:?}", began.elapsed());
    world.ledger = Some(Vec::new());
    let told = violations(&world);
    assert_eq!((told.len(), told.last().map(String::as_str)), (6, Some("I5: and 99995 more such")), "{told:#?}");
}
