use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use super::*;

fn pages(count: u64) -> u64 {
    count * PAGE
}

fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn what_is_reserved_is_not_free_until_it_is_dropped() {
    let budget = MemoryBudget::new(pages(10) + 1);
    assert_eq!((budget.total(), budget.free()), (pages(10), pages(10)));
    let one = budget.try_reserve(1).unwrap();
    let other = budget.try_reserve(pages(9)).unwrap();
    assert_eq!((one.bytes(), budget.free()), (PAGE, 0));
    assert!(budget.try_reserve(1).is_none());
    drop(one);
    assert_eq!(budget.free(), PAGE);
    drop(other);
    assert_eq!(budget.free(), pages(10));
}

#[test]
fn who_waits_is_let_in_by_the_order_of_asking_however_little_others_need() {
    let budget = MemoryBudget::new(pages(10));
    let held = budget.try_reserve(pages(6)).unwrap();
    let mut large = pin!(budget.reserve(pages(8)));
    let mut small = pin!(budget.reserve(pages(1)));
    assert!(poll(large.as_mut()).is_none() && poll(small.as_mut()).is_none());
    assert!(budget.try_reserve(pages(1)).is_none(), "nobody overtakes");
    assert_eq!((budget.waiting(), budget.free()), (2, pages(4)), "who waits holds nothing");
    drop(held);
    let large = poll(large.as_mut()).unwrap();
    let small = poll(small.as_mut()).unwrap();
    assert_eq!((large.bytes(), small.bytes(), budget.free()), (pages(8), pages(1), pages(1)));
}

#[test]
fn a_run_that_grows_takes_what_is_free_before_those_who_wait() {
    let budget = MemoryBudget::new(pages(10));
    let running = budget.try_reserve(pages(6)).unwrap();
    let mut waiting = pin!(budget.reserve(pages(5)));
    assert!(poll(waiting.as_mut()).is_none());
    running.try_hold(pages(10)).unwrap();
    assert_eq!(budget.free(), 0);
    drop(running);
    assert_eq!(poll(waiting.as_mut()).unwrap().bytes(), pages(5));
}

#[test]
fn growth_within_what_is_held_is_free_and_growth_beyond_what_is_free_is_refused() {
    let budget = MemoryBudget::new(pages(10));
    let (one, other) = (budget.try_reserve(pages(4)).unwrap(), budget.try_reserve(pages(3)).unwrap());
    one.try_hold(pages(4)).unwrap();
    one.try_hold(pages(2)).unwrap();
    assert_eq!((one.bytes(), budget.free()), (pages(4), pages(3)));
    one.try_hold(pages(5) - 1).unwrap();
    assert_eq!((one.bytes(), budget.free()), (pages(5), pages(2)));
    let refused = other.try_hold(pages(6)).unwrap_err();
    let expected = NoMemory { asked: pages(6), held: pages(3), free: pages(2), total: pages(10) };
    assert_eq!(refused, expected);
    assert_eq!(other.bytes(), pages(3), "a refusal takes nothing");
    drop(one);
    other.try_hold(pages(6)).unwrap();
    drop(other);
    assert_eq!(budget.free(), pages(10));
}

#[test]
fn nobody_may_ask_for_more_than_there_is() {
    let budget = MemoryBudget::new(pages(2));
    let all = poll(pin!(budget.reserve(u64::MAX))).unwrap();
    assert_eq!(all.bytes(), pages(2));
}

#[test]
fn who_leaves_the_line_holds_up_nobody_and_keeps_nothing() {
    let budget = MemoryBudget::new(pages(10));
    let held = budget.try_reserve(pages(6)).unwrap();
    let mut large = Box::pin(budget.reserve(pages(8)));
    let mut small = pin!(budget.reserve(pages(2)));
    assert!(poll(large.as_mut()).is_none() && poll(small.as_mut()).is_none());
    drop(large);
    let small = poll(small.as_mut()).unwrap();
    // Let in, and gone before it heard of it.
    let mut late = Box::pin(budget.reserve(pages(7)));
    assert!(poll(late.as_mut()).is_none());
    drop(held);
    assert_eq!(budget.free(), pages(1));
    drop(late);
    assert_eq!(budget.free(), pages(8));
    drop(small);
    assert_eq!((budget.free(), budget.waiting()), (pages(10), 0));
}

/// The argument at the top, played: small reservations fill the budget, each run wants most of it, whoever is turned
/// away reserves it all the next time.
#[tokio::test]
async fn many_that_each_want_most_of_it_all_end() {
    let budget = MemoryBudget::new(pages(20));
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move {
                for (turned_away, reserve) in [1, 12, 12].into_iter().enumerate() {
                    let held = budget.reserve(pages(reserve)).await;
                    tokio::task::yield_now().await;
                    let grown = held.try_hold(pages(12));
                    tokio::task::yield_now().await;
                    if grown.is_ok() {
                        return turned_away;
                    }
                }
                panic!("turned away although it had reserved everything");
            })
        })
        .collect();
    let mut turned_away = 0;
    for task in tasks {
        turned_away += task.await.unwrap();
    }
    assert!(turned_away > 0, "there was no want of memory");
    assert_eq!((budget.free(), budget.waiting()), (budget.total(), 0));
}

/// A reservation whose run was granted this much linear memory.
fn running(budget: &MemoryBudget, reserved: u64, used: u64) -> Reservation {
    let run = budget.try_reserve(pages(reserved)).unwrap();
    run.try_hold(pages(used)).unwrap();
    run
}

#[test]
fn a_resting_run_counts_with_its_linear_memory_and_takes_its_reservation_again() {
    let budget = MemoryBudget::new(pages(100));
    let run = running(&budget, 40, 10);
    run.rest();
    assert_eq!((budget.free(), budget.resting(), run.bytes()), (pages(90), 1, pages(40)));
    assert!(run.try_hold(pages(11)).is_err(), "it does not execute, and is granted nothing");
    assert!(run.try_resume());
    assert_eq!((budget.free(), budget.resting()), (pages(60), 0));
    run.rest();
    drop(run);
    assert_eq!((budget.free(), budget.resting()), (budget.total(), 0));
}

#[test]
fn a_run_that_goes_on_comes_before_runs_that_begin() {
    let budget = MemoryBudget::new(pages(100));
    let resting = running(&budget, 40, 10);
    resting.rest();
    let first = running(&budget, 60, 60);
    first.try_hold(pages(70)).unwrap();
    let mut begins = pin!(budget.reserve(pages(30)));
    assert!(poll(begins.as_mut()).is_none());
    let mut goes_on = pin!(resting.resume());
    assert!(poll(goes_on.as_mut()).is_none());
    assert_eq!(budget.waiting(), 2);
    drop(first);
    assert_eq!(poll(goes_on.as_mut()), Some(Ok(())), "it asked later");
    let begun = poll(begins.as_mut()).unwrap();
    assert_eq!((begun.bytes(), budget.free()), (pages(30), pages(30)));
}

#[test]
fn nothing_begins_while_a_run_waits_to_go_on() {
    let budget = MemoryBudget::new(pages(100));
    let resting = running(&budget, 40, 10);
    resting.rest();
    let active = running(&budget, 55, 55);
    active.try_hold(pages(70)).unwrap();
    let mut goes_on = Box::pin(resting.resume());
    assert!(poll(goes_on.as_mut()).is_none());
    assert!(budget.try_reserve(pages(1)).is_none());
    let mut begins = pin!(budget.reserve(pages(1)));
    assert!(poll(begins.as_mut()).is_none());
    drop(goes_on);
    assert!(poll(begins.as_mut()).is_some(), "the run left the line");
    assert!(resting.is_resting());
}

#[test]
fn a_run_that_leaves_the_line_after_it_was_let_go_on_returns_everything() {
    let budget = MemoryBudget::new(pages(100));
    let resting = running(&budget, 40, 10);
    resting.rest();
    let active = running(&budget, 55, 55);
    active.try_hold(pages(70)).unwrap();
    let mut goes_on = Box::pin(resting.resume());
    assert!(poll(goes_on.as_mut()).is_none());
    drop(active);
    drop(goes_on);
    assert_eq!((budget.waiting(), budget.free()), (0, pages(60)));
    drop(resting);
    assert_eq!(budget.free(), budget.total());
}

#[test]
fn if_no_run_can_go_on_the_last_in_line_ends_so_that_the_first_can() {
    let budget = MemoryBudget::new(pages(80));
    let large = running(&budget, 60, 50);
    large.rest();
    let first = running(&budget, 15, 1);
    first.try_hold(pages(1)).unwrap();
    assert!(budget.try_reserve(pages(6)).is_none(), "an eighth is kept for the run that rests");
    let active = running(&budget, 2, 2);
    first.rest();
    active.try_hold(pages(16)).unwrap();
    let mut goes_on = pin!(first.resume());
    let mut ends = Box::pin(large.resume());
    assert!(poll(goes_on.as_mut()).is_none() && poll(ends.as_mut()).is_none());
    active.rest();
    assert!(poll(goes_on.as_mut()).is_none(), "the other one has not returned its memory yet");
    let none = NoMemory { asked: pages(60), held: pages(50), free: pages(13), total: pages(80) };
    assert_eq!(poll(ends.as_mut()), Some(Err(none)));
    drop(ends);
    assert!(!large.try_resume(), "it was told to end");
    drop(large);
    assert_eq!(poll(goes_on.as_mut()), Some(Ok(())));
}

#[test]
fn a_reservation_of_the_whole_limit_does_not_rest() {
    let budget = MemoryBudget::new(pages(100));
    let run = poll(pin!(budget.reserve_whole(pages(90)))).unwrap();
    run.try_hold(pages(1)).unwrap();
    run.rest();
    assert!(!run.is_resting() && run.try_resume());
    assert_eq!(budget.free(), pages(10));
}

/// A budget that measures what the test says.
fn measured(total: u64) -> (MemoryBudget, Arc<AtomicU64>) {
    let occupied = Arc::new(AtomicU64::new(0));
    let told = occupied.clone();
    let measure = move || Some(told.load(Ordering::Relaxed) * PAGE);
    (MemoryBudget::with(pages(total), Some(Box::new(measure))), occupied)
}

#[tokio::test]
async fn resting_runs_count_with_no_more_than_the_process_occupies() {
    let (budget, occupied) = measured(100);
    occupied.store(5, Ordering::Relaxed);
    let runs: Vec<Reservation> = (0..2).map(|_| running(&budget, 45, 45)).collect();
    runs.iter().for_each(Reservation::rest);
    assert_eq!(budget.free(), pages(10), "not measured yet");
    let begins = budget.reserve(pages(70)).await;
    assert_eq!(budget.free(), pages(25), "5 of 90 are really occupied");
    // It occupies all of its own, and rests: it counts in full until the next measurement.
    begins.try_hold(pages(70)).unwrap();
    begins.rest();
    assert_eq!(budget.free(), pages(25));
    occupied.store(75, Ordering::Relaxed);
    let all_that_is_not_kept = budget.reserve(pages(13)).await;
    assert_eq!(budget.free(), pages(12));
    drop((all_that_is_not_kept, begins, runs));
    assert_eq!((budget.free(), budget.resting()), (budget.total(), 0));
}

#[tokio::test]
async fn a_run_in_line_begins_once_a_measurement_shows_that_memory_is_free() {
    let (budget, occupied) = measured(100);
    occupied.store(90, Ordering::Relaxed);
    let resting = running(&budget, 90, 90);
    resting.rest();
    let waits = budget.clone();
    let mut begins = tokio::spawn(async move { waits.reserve(pages(30)).await });
    assert!(tokio::time::timeout(LOOK * 4, &mut begins).await.is_err());
    occupied.store(20, Ordering::Relaxed);
    assert_eq!(begins.await.unwrap().bytes(), pages(30));
}

/// Runs that rest, go on and grow, in every order: none uses what it has lent, and all end.
#[tokio::test]
async fn runs_that_rest_and_grow_never_use_more_than_the_budget_and_all_end() {
    const TOTAL: u64 = 40;
    let budget = MemoryBudget::new(pages(TOTAL));
    let in_use = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..300_u64)
        .map(|number| {
            let (budget, in_use) = (budget.clone(), in_use.clone());
            tokio::spawn(async move {
                let mut refused = 0;
                while !rests_and_grows(&budget, &in_use, number, refused > 0).await {
                    refused += 1;
                    assert_eq!(refused, 1, "refused although it had reserved everything");
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        refused += task.await.unwrap();
    }
    assert!(refused > 0, "there was no want of memory");
    assert_eq!((budget.free(), budget.waiting(), budget.resting()), (budget.total(), 0, 0));
    assert_eq!(in_use.load(Ordering::Relaxed), 0);
}

/// One run, which uses up to 12 pages. Returns whether it came to its end.
async fn rests_and_grows(budget: &MemoryBudget, in_use: &AtomicU64, number: u64, whole: bool) -> bool {
    let run = if whole { budget.reserve_whole(pages(12)).await } else { budget.reserve(pages(4)).await };
    let mut used = 1;
    run.try_hold(pages(used)).unwrap();
    let begin = |pages| assert!(in_use.fetch_add(pages, Ordering::Relaxed) + pages <= 40);
    let end = |pages| in_use.fetch_sub(pages, Ordering::Relaxed);
    for round in 0..6 {
        begin(used);
        tokio::task::yield_now().await;
        let wanted = 1 + (number * 7 + round * 5) % 12;
        let grown = run.try_hold(pages(wanted)).is_ok();
        end(used);
        if !grown {
            return false;
        }
        used = used.max(wanted);
        // What it has touched stays, though it rests; it must not be able to touch more.
        begin(used);
        run.rest();
        for _ in 0..number % 4 {
            tokio::task::yield_now().await;
        }
        let resumed = run.resume().await.is_ok();
        end(used);
        if !resumed {
            return false;
        }
    }
    true
}
