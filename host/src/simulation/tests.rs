//! Worlds by the hundred.

use super::play::{Outcome, play};
use super::swarm::Without;
use super::tally::{CLAIMS, CRASHES, MEMORY, STEPS, Tally};
use std::io::Write;
use std::time::Instant;

/// Steps of one world.
const STEPS_EACH: u64 = 2_500;

/// What a failing world shows: what is wrong, and what happened to the tasks that it is wrong about.
fn show(outcome: &Outcome) -> String {
    let mut text = format!(
        "world {} is broken after {} steps; AGENTRY_SIMULATION_SEED={} replays it\n",
        outcome.seed, outcome.steps, outcome.seed
    );
    for violation in outcome.violations.iter().take(3) {
        text += &format!("  {violation}\n");
        let ids = violation.split(|c: char| !c.is_ascii_hexdigit() && c != '-').filter(|word| word.len() == 36);
        for id in ids.take(1) {
            let lines = outcome.trace.iter().filter(|line| line.contains(id));
            lines.take(60).for_each(|line| text += &format!("    {line}\n"));
        }
    }
    text + &format!("  and {} more violations\n", outcome.violations.len().saturating_sub(3))
}

/// Worlds from this seed on, until so many steps are taken. The first broken one ends it.
fn worlds(first: u64, steps: u64) -> (Tally, u64, u64) {
    let (mut tally, mut taken, mut seed) = (Tally::default(), 0, first);
    while taken < steps {
        let outcome = play(seed, STEPS_EACH, Without::Nothing);
        assert!(outcome.violations.is_empty(), "{}", show(&outcome));
        tally.add(&outcome.tally);
        taken += outcome.steps;
        seed += 1;
    }
    (tally, taken, seed - first)
}

/// So many steps; every row of the claim table, every step of the path and a death at each of them often enough.
fn simulate(first: u64, steps: u64) {
    if let Some(seed) = std::env::var("AGENTRY_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let outcome = play(seed, STEPS_EACH, Without::Nothing);
        let _ = std::io::stderr().write_all((outcome.trace.join("\n") + "\n").as_bytes());
        assert!(outcome.violations.is_empty(), "{}", show(&outcome));
        return;
    }
    let began = Instant::now();
    let (tally, taken, worlds) = worlds(first, steps);
    let table =
        format!("simulation: {taken} steps in {worlds} worlds from {first} on, {:.0?}\n{tally}", began.elapsed());
    // Past the test's own capture: the table is to be seen in every run.
    let _ = std::io::stderr().write_all(table.as_bytes());
    let rare: Vec<_> = [CLAIMS, STEPS, CRASHES, MEMORY].iter().flat_map(|names| tally.rarer_than(10, names)).collect();
    assert!(rare.is_empty(), "too rare to have been tested: {rare:?}");
}

#[test]
fn a_hundred_thousand_steps_lose_nothing_and_double_nothing() {
    // Some more, in which each kind of crash has come often enough.
    simulate(100, 140_000);
}

#[test]
#[ignore = "a million steps: in --full"]
fn a_million_steps_lose_nothing_and_double_nothing() {
    simulate(10_000, 1_000_000);
}

#[test]
fn a_seed_replays_to_the_last_step() {
    for seed in [3, 4] {
        let (one, other) = (play(seed, 2_000, Without::Nothing), play(seed, 2_000, Without::Nothing));
        let differ = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(differ, None);
        assert_eq!((one.digest, one.steps), (other.digest, other.steps));
    }
    assert_ne!(play(3, 500, Without::Nothing).digest, play(4, 500, Without::Nothing).digest);
}

/// Worlds without a part of the protocol, until one is seen to be broken by its absence; which violation told.
fn noticed(without: Without, by: &str) {
    for seed in 1..100 {
        let outcome = play(seed, STEPS_EACH, without);
        if let Some(violation) = outcome.violations.iter().find(|violation| violation.starts_with(by)) {
            eprintln!("world {seed}, after {} steps: {violation}", outcome.steps);
            return;
        }
    }
    panic!("99 worlds hold {without:?}");
}

#[test]
fn without_the_fence_another_claims_outcome_is_recorded() {
    noticed(Without::Fence, "I2: the outcome of another claim's run");
}

#[test]
fn without_reattaching_a_redelivery_runs_beside_the_first() {
    noticed(Without::Reattach, "I5: attempt");
}

#[test]
fn without_the_commit_before_the_acknowledgement_tasks_are_lost() {
    noticed(Without::CommitBeforeAck, "I1: lost");
}
