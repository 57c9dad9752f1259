//! Guests that wait in a host call: what they lend meanwhile, and what they need to go on.

use std::sync::Arc;
use std::time::Duration;

use agentry_sandbox::{Guests, Invocation, MemoryBudget, NoMemory, Outcome, Turn, Turns};

use crate::guest::{Guest, SLEEP, handle};
use crate::house::*;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 64 << 10;

/// Waits for so long, and returns.
fn waits(time: Duration) -> Guest {
    let nanoseconds = time.as_nanos();
    returns_null(&format!("(call $block (call $subscribe (i64.const {nanoseconds})))"))
}

fn returns_null(before: &str) -> Guest {
    Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!("(local $i i32) {before} (call $ok (i32.const 1024) (i32.const 4))"))
    }
    .with(SLEEP)
}

async fn begun(turns: &Turns) -> Arc<Turn> {
    let turn = turns.admit().await;
    turn.begin().await;
    Arc::new(turn)
}

async fn reserving(budget: &MemoryBudget, turns: &Turns, bytes: u64) -> Invocation {
    let memory = Arc::new(budget.reserve(bytes).await);
    Invocation { memory: Some(memory), turn: Some(begun(turns).await), ..invocation("null") }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let seen = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_guest_that_waits_lends_its_memory_and_its_turn_and_takes_them_back() {
    let (budget, turns) = (MemoryBudget::new(8 * MIB), Turns::new(1));
    let plugin = load(&waits(Duration::from_millis(200))).await;
    let invocation = reserving(&budget, &turns, 4 * MIB).await;
    let running = tokio::spawn(async move { plugin.run(invocation).await });
    until("it rests", || budget.resting() == 1).await;
    assert_eq!(budget.free(), 8 * MIB - PAGE, "its linear memory is one page");
    assert_eq!(turns.guests(), Guests { ahead: 0, computing: 0, waiting: 1 });
    // 6 MiB are taken while it rests: its 4 are not free when it wakes.
    let other = budget.reserve(6 * MIB).await;
    until("it waits in line", || budget.waiting() == 1).await;
    assert!(budget.try_reserve(PAGE).is_none(), "it comes before what begins");
    assert_eq!(turns.guests().computing, 0, "it competes for memory and not for a thread");
    drop(other);
    assert_eq!(running.await.unwrap().outcome, Outcome::Output("null".to_owned()));
    assert_eq!((budget.free(), turns.guests()), (budget.total(), Guests::default()));
}

#[tokio::test]
async fn a_guest_that_waits_for_its_memory_ends_by_its_time_out_or_when_it_is_stopped() {
    let (budget, turns) = (MemoryBudget::new(8 * MIB), Turns::new(2));
    let plugin = load(&waits(Duration::from_millis(200))).await;
    let (mut late, stopped) = (reserving(&budget, &turns, 4 * MIB).await, reserving(&budget, &turns, 4 * MIB).await);
    late.limits.timeout = Duration::from_millis(1_000);
    let stop = stopped.stop.clone();
    let (one, other) = (plugin.clone(), plugin);
    let late = tokio::spawn(async move { one.run(late).await });
    let stopped = tokio::spawn(async move { other.run(stopped).await });
    until("both rest", || budget.resting() == 2).await;
    let all = budget.reserve(6 * MIB).await;
    until("both wait in line", || budget.waiting() == 2).await;
    stop.cancel();
    assert_eq!(stopped.await.unwrap().outcome, Outcome::Stopped);
    fault(late.await.unwrap(), agentry_sandbox::FaultKind::Timeout).await;
    drop(all);
    assert_eq!((budget.free(), budget.waiting(), turns.guests()), (budget.total(), 0, Guests::default()));
}

#[tokio::test]
async fn a_guest_that_computes_keeps_its_turn_while_it_yields() {
    let turns = Turns::new(1);
    let spins = returns_null(
        "(loop $more (br_if $more (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 0))))",
    );
    let plugin = load(&spins).await;
    let invocation = Invocation { turn: Some(begun(&turns).await), ..invocation("null") };
    let stop = invocation.stop.clone();
    let mut running = Box::pin(plugin.run(invocation));
    for _ in 0..5 {
        // Each poll ends when the epoch does.
        let waker = std::task::Waker::noop();
        let polled = running.as_mut().poll(&mut std::task::Context::from_waker(waker));
        if polled.is_pending() {
            assert_eq!(turns.guests(), Guests { ahead: 0, computing: 1, waiting: 0 });
        }
        tokio::task::yield_now().await;
    }
    stop.cancel();
    running.await;
}

/// Guests that wait, grow and write to all of it, over and over: however they alternate, what they hold together stays within
/// the budget, and each of them ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_alternate_waiting_and_touching_memory_stay_within_the_budget() {
    let (budget, turns) = (MemoryBudget::new(4 * MIB), Turns::new(4));
    let alternates = returns_null(
        "(loop $more
           (call $block (call $subscribe (i64.const 1000000)))
           (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
             (then (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 7))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $more (i32.lt_u (local.get $i) (i32.const 30))))",
    );
    let plugin = load(&alternates).await;
    let mut running = Vec::new();
    for _ in 0..24 {
        let (plugin, budget, turns) = (plugin.clone(), budget.clone(), turns.clone());
        running.push(tokio::spawn(async move {
            let invocation = reserving(&budget, &turns, 2 * PAGE).await;
            plugin.run(invocation).await
        }));
    }
    let (mut returned, mut interrupted) = (0, 0);
    for run in running {
        let ran = run.await.unwrap();
        assert!(ran.usage.peak_memory <= 4 * MIB);
        match ran.outcome {
            Outcome::Output(_) => returned += 1,
            Outcome::NoMemory(NoMemory { asked, free, total, .. }) => {
                assert!(asked > free && total == 4 * MIB);
                interrupted += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(returned > 0, "{interrupted} were interrupted");
    assert_eq!((budget.free(), budget.waiting(), budget.resting()), (budget.total(), 0, 0));
    assert_eq!(turns.guests(), Guests::default());
    honest().await;
}
