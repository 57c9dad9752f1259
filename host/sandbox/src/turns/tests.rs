use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn admitted(turns: &Turns) -> Turn {
    poll(pin!(turns.admit())).expect("it is admitted at once")
}

fn begun(turns: &Turns) -> Turn {
    let turn = admitted(turns);
    poll(pin!(turn.begin())).expect("it begins at once");
    turn
}

/// Time stands still, so that what began stays what began lately, unless the test lets it pass.
#[tokio::test(start_paused = true)]
async fn no_guest_begins_while_as_many_compute_as_the_bound_allows() {
    let turns = Turns::new(2);
    let (first, _second) = (begun(&turns), begun(&turns));
    let third = admitted(&turns);
    let mut begins = pin!(third.begin());
    assert!(poll(begins.as_mut()).is_none());
    drop(first);
    assert!(poll(begins.as_mut()).is_some());
    assert_eq!(turns.guests(), Guests { ahead: 0, computing: 2, waiting: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_waiting_guest_frees_its_turn_and_a_waking_guest_never_waits_for_one() {
    let turns = Turns::new(1);
    let first = begun(&turns);
    let second = admitted(&turns);
    let mut begins = pin!(second.begin());
    assert!(poll(begins.as_mut()).is_none());
    first.wait();
    assert!(poll(begins.as_mut()).is_some());
    first.wake();
    assert_eq!(turns.guests(), Guests { ahead: 0, computing: 2, waiting: 0 }, "the bound is soft");
    first.wake();
    assert_eq!(turns.guests().computing, 2, "it was awake");
}

#[tokio::test(start_paused = true)]
async fn guests_above_the_bound_withhold_turns_from_those_that_would_begin() {
    let turns = Turns::new(1);
    let first = begun(&turns);
    first.wait();
    let second = begun(&turns);
    first.wake();
    let third = admitted(&turns);
    let mut begins = pin!(third.begin());
    drop(second);
    assert!(poll(begins.as_mut()).is_none(), "one still computes");
    first.wait();
    assert!(poll(begins.as_mut()).is_some());
}

#[tokio::test(start_paused = true)]
async fn tasks_are_admitted_ahead_by_as_many_as_began_within_the_last_tenth_of_a_second() {
    let turns = Turns::new(2);
    let computing = [begun(&turns), begun(&turns)];
    let ahead = [admitted(&turns), admitted(&turns)];
    let mut next = Box::pin(turns.admit());
    assert!(poll(next.as_mut()).is_none());
    drop(next);
    drop(ahead);
    tokio::time::advance(PERIOD * 2).await;
    let mut next = pin!(turns.admit());
    assert!(poll(next.as_mut()).is_none(), "guests that compute for long let none be claimed");
    drop(computing);
    assert!(poll(next.as_mut()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_leaves_a_line_keeps_nothing() {
    let turns = Turns::new(1);
    let first = begun(&turns);
    let (second, third) = (admitted(&turns), turns.clone());
    let mut begins = Box::pin(second.begin());
    let mut admission = Box::pin(third.admit());
    assert!(poll(begins.as_mut()).is_none() && poll(admission.as_mut()).is_none());
    drop(first);
    // Both were granted, and neither has heard of it.
    assert_eq!(turns.guests(), Guests { ahead: 1, computing: 1, waiting: 0 });
    drop((begins, admission));
    assert_eq!(turns.guests(), Guests { ahead: 1, computing: 0, waiting: 0 });
    drop(second);
    assert_eq!(turns.guests(), Guests::default());
}

#[tokio::test]
async fn a_thousand_guests_that_wait_again_and_again_all_begin_and_end() {
    let turns = Turns::new(4);
    let tasks: Vec<_> = (0..1_000_u32)
        .map(|number| {
            let turns = turns.clone();
            tokio::spawn(async move {
                let turn = turns.admit().await;
                tokio::task::yield_now().await;
                turn.begin().await;
                for _ in 0..number % 5 {
                    turn.wait();
                    tokio::task::yield_now().await;
                    turn.wake();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(turns.guests(), Guests::default());
}
