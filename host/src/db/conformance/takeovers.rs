//! Owners that are lost, and what becomes of what they ran.

use super::subject::*;
use crate::db::{CancelAnswer, ClaimAnswer, SettleAnswer};
use crate::task::settle::Ended;
use crate::task::{Decision, Event, FailureKind, Options, State, WaitCode, retry};

pub async fn a_lost_owners_task_is_taken_over_and_the_former_owner_is_fenced(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    let first = s.run(one, &arrival).await;
    s.db.end_lease(one).await.unwrap();
    let second = s.run(other, &arrival).await;
    assert_eq!((second.fence, second.standing.attempt), (2, 1));
    assert!(second.at > first.at);
    assert_eq!(s.settle(one, &settlement(&arrival, &first, completed())).await, SettleAnswer::Fenced);
    assert_eq!(s.row(arrival.message.id).await.state, State::Running);
    assert_eq!(s.settle(other, &settlement(&arrival, &second, completed())).await, SettleAnswer::Settled);
    assert_eq!(s.settle(one, &settlement(&arrival, &first, completed())).await, SettleAnswer::Fenced);
    let attempts = s.db.attempts(arrival.message.id).await.unwrap();
    let told: Vec<_> = attempts.iter().map(|a| (a.fence, a.host, a.attempt, a.ended.as_str())).collect();
    assert_eq!(told, [(1, one, 1, "host_lost"), (2, other, 1, "completed")]);
    assert_eq!(attempts[0].started_at, first.at);
    assert_eq!(attempts[0].build.as_deref(), Some("0.1.0 (abc)"));
    assert!(attempts[0].usage.is_none() && attempts[1].usage.is_some());
    assert_eq!(s.history(arrival.message.id).await, [Event::Running, Event::TakenOver, Event::Completed]);
}

pub async fn a_lost_owners_task_is_parked_where_it_cannot_run(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    s.run(one, &arrival).await;
    s.db.end_lease(one).await.unwrap();
    let answer = s.claim(other, &again(&arrival, elsewhere(WaitCode::NoPlugin))).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::Park { event: Event::Interrupted, .. })), "{answer:?}");
    assert_eq!(s.waits(arrival.message.id).await, Some(WaitCode::NoPlugin));
    assert_eq!(s.db.attempts(arrival.message.id).await.unwrap()[0].ended, "host_lost");
    assert_eq!(s.run(other, &arrival).await.fence, 2);
    assert_eq!(s.history(arrival.message.id).await, [Event::Running, Event::Interrupted, Event::Running]);
}

pub async fn a_task_that_keeps_losing_its_hosts_ends(s: &Subject) {
    let arrival = arrival();
    for fence in 1..=i64::from(retry::MAX_HOST_LOSSES) + 1 {
        let host = s.host().await;
        assert_eq!(s.run(host, &arrival).await.fence, fence);
        s.db.end_lease(host).await.unwrap();
    }
    let answer = s.claim(s.host().await, &arrival).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::End { event: Event::Failed, .. })), "{answer:?}");
    let row = s.row(arrival.message.id).await;
    assert_eq!(row.failure.unwrap().kind, FailureKind::HostLost);
    let attempts = s.db.attempts(row.id).await.unwrap();
    assert_eq!(attempts.len(), retry::MAX_HOST_LOSSES as usize + 1);
    assert!(attempts.iter().all(|a| a.ended == "host_lost" && a.attempt == 1));
    let history = s.history(row.id).await;
    assert_eq!((history.first(), history.last()), (Some(&Event::Running), Some(&Event::Failed)));
}

pub async fn a_cancelled_task_of_a_lost_owner_ends_instead_of_running(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    s.run(one, &arrival).await;
    assert_eq!(s.db.cancel(arrival.message.id).await.unwrap(), CancelAnswer::Requested(one));
    s.db.end_lease(one).await.unwrap();
    let answer = s.claim(other, &arrival).await;
    assert!(
        matches!(answer, ClaimAnswer::Done(Decision::End { event: Event::Cancelled, failure: None })),
        "{answer:?}"
    );
    assert_eq!(s.history(arrival.message.id).await, [Event::Running, Event::Cancelled]);

    // Asked for while it ran, settled as a retry: it is not run again.
    let arrival = arrival_with(Options::default(), here());
    let claimed = s.run(other, &arrival).await;
    s.db.cancel(arrival.message.id).await.unwrap();
    s.settle(other, &settlement(&arrival, &claimed, retrying())).await;
    let answer = s.claim(other, &arrival).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::End { event: Event::Cancelled, .. })), "{answer:?}");
}

pub async fn a_lost_owners_task_is_put_up_once_per_lease_time(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let (lost, kept, unregistered) = (arrival(), arrival(), arrival());
    s.run(one, &lost).await;
    s.run(other, &kept).await;
    s.run(id(), &unregistered).await;
    s.db.end_lease(one).await.unwrap();
    assert_eq!(s.db.rescue(100).await.unwrap(), 2);
    let mut published = s.published().await;
    published.sort();
    assert_eq!(published, [lost.message.id, unregistered.message.id]);
    assert_eq!(s.db.rescue(100).await.unwrap(), 0);
    assert_eq!(s.row(lost.message.id).await.state, State::Running);
    assert_eq!(s.history(lost.message.id).await, [Event::Running]);
    // A lease time later nobody has taken it over.
    s.set("UPDATE tasks SET rescued_at = '2020-01-01T00:00:00.000000Z' WHERE rescued_at IS NOT NULL").await;
    assert_eq!(s.db.rescue(1).await.unwrap(), 1);
    assert_eq!(s.db.rescue(100).await.unwrap(), 1);
    assert_eq!(s.published().await.len(), 2);
    // Taken over, lost again: put up at once.
    s.run(other, &lost).await;
    s.db.end_lease(other).await.unwrap();
    assert_eq!(s.db.rescue(100).await.unwrap(), 2);
}

pub async fn a_task_whose_owner_lives_is_not_put_up(s: &Subject) {
    let host = s.host().await;
    let (running, ended) = (arrival(), arrival());
    s.run(host, &running).await;
    s.end(host, &ended, Ended::Cancelled).await;
    assert_eq!(s.db.rescue(100).await.unwrap(), 0);
    assert!(s.published().await.is_empty());
}
