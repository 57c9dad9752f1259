//! Owners that are lost, and what becomes of what they ran.

use super::subject::*;
use crate::db::{CancelAnswer, ClaimAnswer, Claimant, Claimed, HostRecord, SettleAnswer};
use crate::task::claim::Kept;
use crate::task::settle::Ended;
use crate::task::{Decision, Event, Failure, FailureKind, Options, Runnable, State, WaitCode, retry};

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

pub async fn a_task_that_keeps_losing_its_hosts_is_isolated_and_its_own_budget_ends_it(s: &Subject) {
    let arrival = arrival();
    for fence in 1..=4 {
        let host = s.host().await;
        let claimed = s.run(host, &arrival).await;
        assert_eq!((claimed.fence, claimed.standing.isolated), (fence, fence > i64::from(retry::SUSPECT_AFTER)));
        s.db.end_lease(host).await.unwrap();
    }
    let host = s.host().await;
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.standing.child_losses, claimed.standing.attempt), (0, 1), "a parent's death counts nothing");
    let lost = Ended::ChildLost { reason: "signal 9".into() };
    assert_eq!(s.settle(host, &settlement(&arrival, &claimed, lost)).await, SettleAnswer::Settled);
    assert_eq!(s.published().await, [arrival.message.id], "it goes back to its queue");
    // Where the lane is full it waits, and says so.
    let mut full = here();
    let Runnable::Here { lane, .. } = &mut full else { panic!("it runs here") };
    *lane = false;
    let answer = s.claim(host, &again(&arrival, full)).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::Park { code: WaitCode::Isolation, .. })), "{answer:?}");
    let names = ["word-count".to_owned()];
    assert!(s.db.parked(&parked_of(&names, false, 10)).await.unwrap().tasks.is_empty());
    assert_eq!(s.db.parked(&parked_of(&names, true, 10)).await.unwrap().tasks.len(), 1);
    let claimed = s.run(host, &arrival).await;
    let (losses, isolated) = (claimed.standing.child_losses, claimed.standing.isolated);
    assert_eq!((losses, isolated, claimed.standing.attempt), (1, true, 1));
    let failure = Failure::fatal(FailureKind::HostLost, "it killed its process");
    s.settle(host, &settlement(&arrival, &claimed, Ended::Failed { failure })).await;
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.state, row.failure.unwrap().kind), (State::Failed, FailureKind::HostLost));
    s.history(arrival.message.id).await;
}

pub async fn a_lapsed_lease_is_believed_only_by_who_is_steady(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let (late, dead) = (arrival(), arrival());
    s.run(one, &late).await;
    s.set("UPDATE hosts SET lease_until = '2020-01-01T00:00:00.000000Z'").await;
    let unsure = Claimant { host: other, steady: false };
    let answer = s.db.claim(unsure, std::slice::from_ref(&late)).await.unwrap().remove(0);
    assert_eq!(answer, ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere)));
    assert_eq!(s.db.rescue(false, LEASE, true, 100).await.unwrap(), 0);
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 1);
    assert_eq!(s.run(other, &late).await.fence, 2);

    // A host that is known to have ended has left what it ran, whoever asks.
    let three = s.host().await;
    s.run(three, &dead).await;
    s.db.end_lease(three).await.unwrap();
    let answer = s.db.claim(unsure, std::slice::from_ref(&dead)).await.unwrap().remove(0);
    assert!(matches!(answer, ClaimAnswer::Run(Claimed { fence: 2, .. })), "{answer:?}");
    // And one that renews is back.
    let record = HostRecord { id: three, ..record() };
    s.db.renew_lease(&record, LONG).await.unwrap();
    let again = arrival();
    s.run(three, &again).await;
    s.set("UPDATE hosts SET lease_until = '2020-01-01T00:00:00.000000Z'").await;
    assert_eq!(s.db.rescue(false, LEASE, true, 100).await.unwrap(), 0);
}

pub async fn a_host_that_renews_while_it_is_wedged_is_past_its_hard_deadline(s: &Subject) {
    let (wedged, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    let claimed = s.run(wedged, &arrival).await;
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 0);
    s.set("UPDATE tasks SET started_at = '2020-01-01T00:00:00.000000Z', kill_at = '2020-01-01T00:10:00.000000Z'").await;
    assert_eq!(s.db.rescue(false, LEASE, true, 100).await.unwrap(), 0);
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 1);
    // Its own redelivery is still its own; another host takes it over, and the wedged one is fenced.
    assert!(matches!(s.claim(wedged, &arrival).await, ClaimAnswer::Mine(_)));
    assert_eq!(s.run(other, &arrival).await.fence, 2);
    assert_eq!(s.settle(wedged, &settlement(&arrival, &claimed, completed())).await, SettleAnswer::Fenced);
    // The next claim has a deadline of its own.
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 0);
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

    // Nor does it wait out its back-off.
    let arrival = arrival_with(Options::default(), here());
    let claimed = s.run(other, &arrival).await;
    s.db.cancel(arrival.message.id).await.unwrap();
    let later = Ended::Retrying { failure: trap(), after: LONG };
    s.settle(other, &settlement(&arrival, &claimed, later)).await;
    assert_eq!(s.db.fail_expired(100).await.unwrap(), 1);
    let history = s.history(arrival.message.id).await;
    assert_eq!(history, [Event::Running, Event::Retrying, Event::Cancelled]);
}

pub async fn a_lost_owners_task_is_put_up_once_per_lease_time(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let (lost, kept, unregistered) = (arrival(), arrival(), arrival());
    s.run(one, &lost).await;
    s.run(other, &kept).await;
    s.run(id(), &unregistered).await;
    s.db.end_lease(one).await.unwrap();
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 2);
    let mut published = s.published().await;
    published.sort();
    assert_eq!(published, [lost.message.id, unregistered.message.id]);
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 0);
    assert_eq!(s.row(lost.message.id).await.state, State::Running);
    assert_eq!(s.history(lost.message.id).await, [Event::Running]);
    // A lease time later nobody has taken it over.
    s.set("UPDATE tasks SET rescued_at = '2020-01-01T00:00:00.000000Z' WHERE rescued_at IS NOT NULL").await;
    assert_eq!(s.db.rescue(true, LEASE, true, 1).await.unwrap(), 1);
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 1);
    assert_eq!(s.published().await.len(), 2);
    // Taken over, lost again: put up at once.
    s.run(other, &lost).await;
    s.db.end_lease(other).await.unwrap();
    // An owner that was lost just now is found by every sweep.
    assert_eq!(s.db.rescue(true, LEASE, false, 100).await.unwrap(), 2);
}

pub async fn a_task_whose_owner_lives_is_not_put_up(s: &Subject) {
    let host = s.host().await;
    let (running, ended) = (arrival(), arrival());
    s.run(host, &running).await;
    s.end(host, &ended, Ended::Cancelled).await;
    assert_eq!(s.db.rescue(true, LEASE, true, 100).await.unwrap(), 0);
    assert!(s.published().await.is_empty());
}
