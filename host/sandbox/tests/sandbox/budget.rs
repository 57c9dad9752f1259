//! A run within a budget of memory that it shares with others.

use std::sync::Arc;

use agentry_sandbox::{FaultKind, Invocation, MemoryBudget, NoMemory, Outcome, Ran};

use crate::guest::{Guest, SLEEP, handle};
use crate::house::*;

const MIB: u64 = 1 << 20;

/// Begins with one page, grows to so many MiB, and returns.
fn grows_to(mib: u64) -> Guest {
    grows_then(mib, "")
}

/// The same, and does something before it returns.
fn grows_then(mib: u64, then: &str) -> Guest {
    let pages = mib * 16 - 1;
    Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!(
            "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))
             {then}
             (call $ok (i32.const 1024) (i32.const 4))"
        ))
    }
}

/// An invocation with so much reserved.
fn reserving(budget: &MemoryBudget, bytes: u64) -> Invocation {
    let memory = budget.try_reserve(bytes).expect("so much is free");
    Invocation { memory: Some(Arc::new(memory)), ..invocation("null") }
}

fn returned(ran: &Ran) {
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()));
}

#[tokio::test]
async fn growth_within_the_reservation_draws_nothing() {
    let budget = MemoryBudget::new(8 * MIB);
    let invocation = reserving(&budget, 4 * MIB);
    let all_else = budget.try_reserve(4 * MIB).unwrap();
    let ran = load(&grows_to(4)).await.run(invocation).await;
    returned(&ran);
    assert_eq!(ran.usage.peak_memory, 4 * MIB);
    assert_eq!(budget.free(), 4 * MIB, "and is given back");
    drop(all_else);
}

#[tokio::test]
async fn growth_beyond_the_reservation_draws_on_the_budget_until_the_store_is_gone() {
    let budget = MemoryBudget::new(8 * MIB);
    let sleeps = "(call $block (call $subscribe (i64.const -1)))";
    let plugin = load(&grows_then(6, sleeps).with(SLEEP)).await;
    let (invocation, other) = (reserving(&budget, MIB), reserving(&budget, MIB));
    let stop = invocation.stop.clone();
    let running = tokio::spawn(async move { plugin.run(invocation).await });
    let drawn = async {
        while budget.free() != MIB {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, drawn).await.expect("6 MiB are drawn, 1 MiB of it was reserved");
    stop.cancel();
    let ran = running.await.unwrap();
    assert_eq!((ran.outcome, ran.usage.peak_memory), (Outcome::Stopped, 6 * MIB));
    drop(other);
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn a_run_that_finds_nothing_free_ends_as_no_memory_and_gives_everything_back() {
    let budget = MemoryBudget::new(8 * MIB);
    let neighbour = budget.try_reserve(3 * MIB).unwrap();
    let plugin = load(&grows_to(6)).await;
    let ran = plugin.run(reserving(&budget, 2 * MIB)).await;
    let none = NoMemory { asked: 6 * MIB, held: 2 * MIB, free: 3 * MIB, total: 8 * MIB };
    assert_eq!(ran.outcome, Outcome::NoMemory(none));
    assert_eq!(ran.usage.peak_memory, 64 << 10, "it was not given what it asked for");
    assert_eq!(budget.free(), 5 * MIB);
    drop(neighbour);
    returned(&plugin.run(reserving(&budget, 2 * MIB)).await);
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn whoever_has_reserved_its_whole_limit_is_never_turned_away() {
    let budget = MemoryBudget::new(8 * MIB);
    let invocation = reserving(&budget, 8 * MIB);
    assert_eq!(budget.free(), 0);
    let mut of = invocation;
    of.limits.memory_bytes = 8 * MIB;
    returned(&load(&grows_to(8)).await.run(of).await);
    // Beyond it is its own fault, and not the budget's.
    let mut of = reserving(&budget, 8 * MIB);
    of.limits.memory_bytes = 8 * MIB;
    let ran = load(&grows_to(9)).await.run(of).await;
    over(&fault(ran, FaultKind::MemoryLimit).await, "memory_mib");
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn an_initial_memory_beyond_the_reservation_is_drawn_before_the_guest_runs() {
    let budget = MemoryBudget::new(8 * MIB);
    let plugin = load(&Guest { memory: "64".to_owned(), ..Guest::default() }).await;
    assert_eq!(plugin.run(reserving(&budget, MIB)).await.outcome, Outcome::Output("null".to_owned()));
    let neighbour = budget.try_reserve(6 * MIB).unwrap();
    let ran = plugin.run(reserving(&budget, MIB)).await;
    assert!(matches!(ran.outcome, Outcome::NoMemory(none) if none.asked == 4 * MIB), "{:?}", ran.outcome);
    drop(neighbour);
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn memory_grown_while_the_host_hands_over_the_input_is_counted_as_well() {
    let budget = MemoryBudget::new(2 * MIB);
    let plugin = load(&Guest::default()).await;
    let neighbour = budget.try_reserve(2 * MIB - (64 << 10)).unwrap();
    let long = format!("\"{}\"", "x".repeat(200 << 10));
    let of = || Invocation { input: long.as_str().into(), ..reserving(&budget, 64 << 10) };
    let ran = plugin.run(of()).await;
    assert!(matches!(ran.outcome, Outcome::NoMemory(_)), "{:?}", ran.outcome);
    drop(neighbour);
    assert_eq!(plugin.run(of()).await.outcome, Outcome::Output(long.clone()));
    assert_eq!(budget.free(), budget.total());
}

#[tokio::test]
async fn a_run_that_is_dropped_gives_its_memory_back() {
    let budget = MemoryBudget::new(8 * MIB);
    let plugin = load(&grows_then(6, "(call $block (call $subscribe (i64.const -1)))").with(SLEEP)).await;
    let mut run = Box::pin(plugin.run(reserving(&budget, MIB)));
    let waker = std::task::Waker::noop();
    while budget.free() != 2 * MIB {
        assert!(run.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    drop(run);
    assert_eq!(budget.free(), budget.total());
    honest().await;
}
