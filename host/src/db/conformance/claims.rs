//! The claim table, row by row.

use super::subject::*;
use crate::db::ClaimAnswer;
use crate::task::claim::Kept;
use crate::task::{Decision, Event, FailureKind, Options, State, WaitCode};
use chrono::{TimeDelta, Utc};
use std::sync::Arc;

pub async fn a_task_without_a_row_is_claimed_under_its_first_fence(s: &Subject) {
    let host = s.host().await;
    let labels = [("team".to_owned(), "search".to_owned())].into();
    let arrival = arrival_with(Options { priority: Some(7), labels, ..Options::default() }, here());
    let claimed = s.run(host, &arrival).await;
    assert_eq!(claimed.fence, 1);
    assert_eq!((claimed.standing.attempt, claimed.standing.max_attempts, claimed.standing.snoozes), (1, 3, 0));
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.state, row.host, row.attempt), (State::Running, Some(host), 1));
    assert_eq!((row.version.as_deref(), row.digest.as_deref()), (Some("0.1.0"), Some(DIGEST)));
    assert_eq!((row.plugin.as_str(), row.queue.as_str(), row.priority), ("word-count", "default", 7));
    assert_eq!((row.started_at, row.created_at), (Some(claimed.at), claimed.at));
    assert_eq!(row.labels["team"], "search");
    assert_eq!((row.waiting_for, row.finished_at, row.failure), (None, None, None));
    assert_eq!(s.history(row.id).await, [Event::Running]);
    let event = s.db.events(row.id, 0, 1).await.unwrap().rows.remove(0);
    assert_eq!((event.attempt, event.fence, event.host), (Some(1), Some(1), Some(host)));
    assert_eq!((event.at, event.digest.as_deref()), (claimed.at, Some(DIGEST)));
}

pub async fn a_batch_is_answered_in_its_order(s: &Subject) {
    let host = s.host().await;
    let mut batch: Vec<_> = (0..40)
        .map(|n| arrival_with(Options::default(), if n % 3 == 0 { elsewhere(WaitCode::NoSlot) } else { here() }))
        .collect();
    batch.reverse();
    batch.swap(3, 30);
    let answers = s.db.claim(steady(host), &batch).await.unwrap();
    assert_eq!(answers.len(), batch.len());
    for (arrival, answer) in batch.iter().zip(&answers) {
        let runs = matches!(answer, ClaimAnswer::Run(_));
        assert_eq!(runs, arrival.runnable == here(), "{answer:?}");
        let state = if runs { State::Running } else { State::Pending };
        assert_eq!(s.row(arrival.message.id).await.state, state);
    }
    assert!(s.db.claim(steady(host), &[]).await.unwrap().is_empty());
}

pub async fn input_and_output_are_kept_byte_for_byte(s: &Subject) {
    let host = s.host().await;
    let text = "{ \"b\":1.0, \"a\" : 1e400,\"a\":\"\\u0000\\ud83d\\ude00 \u{1F600}\u{FFFF}\" , \"z\":[ ] }";
    let arrival = arrival_of(message(id(), "word-count", text, Options::default()), here());
    let claimed = s.run(host, &arrival).await;
    s.settle(host, &settlement(&arrival, &claimed, crate::task::settle::Ended::Completed { output: text.into() }))
        .await;
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.input.as_deref(), row.output.as_deref()), (Some(text), Some(text)));
}

pub async fn a_task_ahead_of_its_time_is_scheduled_and_runs_when_it_is_due(s: &Subject) {
    let host = s.host().await;
    let run_at = Utc::now() + TimeDelta::hours(1);
    let arrival = arrival_with(Options { run_at: Some(run_at), ..Options::default() }, here());
    assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Done(Decision::Schedule));
    assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Done(Decision::Keep(Kept::NotDue)));
    let row = s.row(arrival.message.id).await;
    assert_eq!(row.state, State::Scheduled);
    let waiting = row.waiting_for.unwrap();
    assert_eq!((waiting.code, waiting.until), (WaitCode::Scheduled, row.run_at));
    s.set(&format!("UPDATE tasks SET run_at = '2020-01-01T00:00:00.000000Z' WHERE id = '{}'", row.id)).await;
    let claimed = s.run(host, &arrival).await;
    assert_eq!((claimed.fence, claimed.standing.attempt), (1, 1));
    assert_eq!(s.history(row.id).await, [Event::Scheduled, Event::Running]);
}

pub async fn a_task_past_its_deadline_ends_expired(s: &Subject) {
    let host = s.host().await;
    let late = Options { deadline: Some(at("2020-01-01T00:00:00Z")), ..Options::default() };
    let arrival = arrival_with(late, here());
    let ClaimAnswer::Done(Decision::End { event: Event::Failed, .. }) = s.claim(host, &arrival).await else {
        panic!("not ended")
    };
    let row = s.row(arrival.message.id).await;
    assert_eq!((row.state, row.failure.unwrap().kind), (State::Failed, FailureKind::Expired));
    assert!(row.finished_at.is_some() && row.started_at.is_none());
    assert_eq!(s.history(row.id).await, [Event::Failed]);

    // The same while it waits.
    let soon = Options { deadline: Some(Utc::now() + TimeDelta::hours(1)), ..Options::default() };
    let arrival = arrival_with(soon, elsewhere(WaitCode::NoSlot));
    s.claim(host, &arrival).await;
    s.set(&format!("UPDATE tasks SET deadline = '2020-01-01T00:00:00.000000Z' WHERE id = '{}'", arrival.message.id))
        .await;
    let answer = s.claim(host, &again(&arrival, here())).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::End { .. })), "{answer:?}");
    assert_eq!(s.history(arrival.message.id).await, [Event::Parked, Event::Failed]);
}

pub async fn a_task_that_cannot_run_here_is_parked_once_and_claimed_where_it_can(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival_with(Options::default(), elsewhere(WaitCode::NoPlugin));
    let answer = s.claim(one, &arrival).await;
    assert!(matches!(answer, ClaimAnswer::Done(Decision::Park { event: Event::Parked, .. })), "{answer:?}");
    assert_eq!(s.claim(one, &arrival).await, ClaimAnswer::Done(Decision::Keep(Kept::AlreadyParked)));
    let waiting = s.row(arrival.message.id).await.waiting_for.unwrap();
    assert_eq!((waiting.code, waiting.until), (WaitCode::NoPlugin, None));
    assert_eq!(waiting.detail, serde_json::json!({"known": ["a"]}));
    s.claim(one, &again(&arrival, elsewhere(WaitCode::NoSlot))).await;
    assert_eq!(s.waits(arrival.message.id).await, Some(WaitCode::NoSlot));
    let claimed = s.run(other, &again(&arrival, here())).await;
    assert_eq!((claimed.fence, claimed.standing.max_attempts), (1, 3));
    assert_eq!(s.waits(arrival.message.id).await, None);
    assert_eq!(s.history(arrival.message.id).await, [Event::Parked, Event::Parked, Event::Running]);
}

pub async fn a_claim_whose_answer_was_lost_is_mine(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Mine(claimed));
    assert_eq!(s.history(arrival.message.id).await, [Event::Running]);
}

pub async fn a_task_whose_owner_lives_is_left_to_it(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let arrival = arrival();
    s.run(one, &arrival).await;
    let kept = ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere));
    assert_eq!(s.claim(other, &arrival).await, kept);
    assert_eq!(s.row(arrival.message.id).await.host, Some(one));
}

pub async fn a_terminal_task_is_a_duplicate_and_never_changes(s: &Subject) {
    let host = s.host().await;
    for ended in [completed(), failed(), crate::task::settle::Ended::Cancelled] {
        let arrival = arrival();
        s.end(host, &arrival, ended).await;
        let before = format!("{:?}", s.row(arrival.message.id).await);
        assert_eq!(s.claim(host, &arrival).await, ClaimAnswer::Done(Decision::Keep(Kept::Terminal)));
        assert_eq!(
            s.claim(host, &again(&arrival, elsewhere(WaitCode::NoSlot))).await,
            ClaimAnswer::Done(Decision::Keep(Kept::Terminal))
        );
        assert_eq!(s.claim(host, &conflicting(&arrival)).await, ClaimAnswer::Conflict);
        assert_eq!(format!("{:?}", s.row(arrival.message.id).await), before);
        assert_eq!(s.history(arrival.message.id).await.len(), 2);
    }
}

pub async fn another_message_under_the_same_id_is_a_conflict(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    s.run(host, &arrival).await;
    assert_eq!(s.claim(host, &conflicting(&arrival)).await, ClaimAnswer::Conflict);
    assert_eq!(s.row(arrival.message.id).await.input.as_deref(), Some(&*arrival.message.input));
    assert_eq!(s.history(arrival.message.id).await, [Event::Running]);
}

pub async fn of_duplicates_in_a_batch_the_first_is_claimed(s: &Subject) {
    let host = s.host().await;
    let (a, b) = (arrival(), arrival());
    let batch = [b.clone(), a.clone(), b.clone(), conflicting(&a), b.clone()];
    let answers = s.db.claim(steady(host), &batch).await.unwrap();
    let ClaimAnswer::Run(claimed) = &answers[0] else { panic!("{answers:?}") };
    assert!(matches!(answers[1], ClaimAnswer::Run(_)), "{answers:?}");
    assert_eq!(answers[2], ClaimAnswer::Mine(claimed.clone()));
    assert_eq!(answers[3], ClaimAnswer::Conflict);
    assert_eq!(answers[4], ClaimAnswer::Mine(claimed.clone()));

    // The same where the row is there already.
    let parked = arrival_with(Options::default(), elsewhere(WaitCode::NoSlot));
    s.claim(host, &parked).await;
    let batch = [again(&parked, here()), again(&parked, here())];
    let answers = s.db.claim(steady(host), &batch).await.unwrap();
    assert!(matches!((&answers[0], &answers[1]), (ClaimAnswer::Run(_), ClaimAnswer::Mine(_))), "{answers:?}");
    assert_eq!(s.history(parked.message.id).await, [Event::Parked, Event::Running]);
}

pub async fn a_row_that_the_database_refuses_fails_alone(s: &Subject) {
    let host = s.host().await;
    s.back_door.refuse("unwanted").await;
    let mut nul = message(id(), "word-count", "1", Options::default());
    nul.correlation_id = Some("a\0b".into());
    let never = Options { run_at: Some(at("+12000-01-01T00:00:00Z")), ..Options::default() };
    let bad = [
        arrival_of(nul, here()),
        arrival_of(message(id(), "unwanted", "1", Options::default()), here()),
        arrival_with(never, here()),
    ];
    let mut batch: Vec<_> = (0..20).map(|_| arrival()).collect();
    for (place, bad) in [3, 10, 19].into_iter().zip(&bad) {
        batch.insert(place, bad.clone());
    }
    let answers = s.db.claim(steady(host), &batch).await.unwrap();
    for (arrival, answer) in batch.iter().zip(&answers) {
        let is_bad = bad.iter().any(|b| Arc::ptr_eq(&b.message, &arrival.message));
        match answer {
            ClaimAnswer::Refused(reason) => assert!(is_bad && !reason.is_empty(), "{reason}"),
            // Its part of the batch was tried again after it was claimed.
            ClaimAnswer::Run(_) | ClaimAnswer::Mine(_) => assert!(!is_bad),
            other => panic!("{other:?}"),
        }
        let row = s.db.task(arrival.message.id, Default::default()).await.unwrap();
        assert_eq!(row.is_none(), is_bad);
    }
}

pub async fn of_concurrent_claims_of_one_task_one_wins(s: &Subject) {
    let (one, other) = (s.host().await, s.host().await);
    let second = s.back_door.open();
    let batch: Vec<_> = (0..64).map(|_| arrival()).collect();
    let mut reversed = batch.clone();
    reversed.reverse();
    let (a, b) = tokio::join!(s.db.claim(steady(one), &batch), second.claim(steady(other), &reversed));
    let (a, mut b) = (a.unwrap(), b.unwrap());
    b.reverse();
    for (index, pair) in a.iter().zip(&b).enumerate() {
        let kept = |answer: &ClaimAnswer| *answer == ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere));
        let ran = |answer: &ClaimAnswer| matches!(answer, ClaimAnswer::Run(_));
        assert!(ran(pair.0) && kept(pair.1) || kept(pair.0) && ran(pair.1), "{pair:?}");
        assert_eq!(s.history(batch[index].message.id).await, [Event::Running]);
    }
}
