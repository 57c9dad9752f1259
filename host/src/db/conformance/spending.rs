//! What is spent.

use super::subject::*;
use crate::db::{Amount, Db, Retention, SpendAnswer, SpendScope, Writer};
use crate::task::settle::Ended;
use crate::task::{Arrival, Fence, TaskId};
use std::time::Duration;

const TOKENS: &str = "llm_tokens";
const REQUESTS: &str = "llm_requests";

fn amount(kind: &'static str, amount: u64, per_task: Option<u64>, per_day: Option<u64>) -> Amount {
    Amount { kind, amount, per_task, per_day }
}

/// Spends under the first claim.
async fn spend(db: &dyn Db, task: Option<TaskId>, amounts: &[Amount]) -> SpendAnswer {
    spend_under(db, task.map(|task| (task, 1)), amounts).await
}

async fn spend_under(db: &dyn Db, writer: Writer, amounts: &[Amount]) -> SpendAnswer {
    db.stores().spend(writer, "agent", amounts).await.unwrap()
}

fn exhausted(kind: &'static str, scope: SpendScope, used: u64, allowed: u64) -> SpendAnswer {
    SpendAnswer::Exhausted { kind, scope, used, allowed, refunded: 0 }
}

/// What a task and its day have used: whoever asks for too much is told.
async fn used(s: &Subject, task: Option<TaskId>, kind: &'static str) -> (u64, u64) {
    let of = async |per_task, per_day, scope| {
        let answer = spend(&*s.db, task, &[amount(kind, u64::MAX, per_task, per_day)]).await;
        match answer {
            SpendAnswer::Exhausted { scope: told, used, .. } if told == scope => used,
            other => panic!("{other:?}"),
        }
    };
    let day = of(None, Some(0), SpendScope::Day).await;
    let task = if task.is_some() { of(Some(0), None, SpendScope::Task).await } else { 0 };
    (task, day)
}

pub async fn an_allowance_is_used_up_by_a_task_and_by_a_day(s: &Subject) {
    let (one, two) = (id(), id());
    let tokens = |n| [amount(TOKENS, n, Some(100), Some(150))];
    assert!(matches!(spend(&*s.db, Some(one), &tokens(60)).await, SpendAnswer::Spent(Some(_))));
    assert_eq!(spend(&*s.db, Some(one), &tokens(41)).await, exhausted(TOKENS, SpendScope::Task, 60, 100));
    assert!(matches!(spend(&*s.db, Some(one), &tokens(40)).await, SpendAnswer::Spent(Some(_))));
    assert_eq!(spend(&*s.db, Some(one), &tokens(1)).await, exhausted(TOKENS, SpendScope::Task, 100, 100));
    assert_eq!(spend(&*s.db, Some(two), &tokens(60)).await, exhausted(TOKENS, SpendScope::Day, 100, 150));
    assert_eq!(used(s, Some(two), TOKENS).await, (0, 100), "all or none");
    assert!(matches!(spend(&*s.db, Some(two), &tokens(50)).await, SpendAnswer::Spent(Some(_))));
    assert_eq!(used(s, Some(two), TOKENS).await, (50, 150));
    // Another plugin has its own day.
    let other = s.db.stores().spend(Some((two, 1)), "stranger", &tokens(50)).await.unwrap();
    assert!(matches!(other, SpendAnswer::Spent(Some(_))));
}

pub async fn several_amounts_are_spent_together_or_not_at_all(s: &Subject) {
    let task = id();
    let both =
        |requests, tokens| [amount(TOKENS, tokens, Some(100), None), amount(REQUESTS, requests, Some(2), Some(9))];
    assert!(matches!(spend(&*s.db, Some(task), &both(1, 50)).await, SpendAnswer::Spent(Some(_))));
    assert_eq!(spend(&*s.db, Some(task), &both(1, 51)).await, exhausted(TOKENS, SpendScope::Task, 50, 100));
    assert_eq!(spend(&*s.db, Some(task), &both(2, 1)).await, exhausted(REQUESTS, SpendScope::Task, 1, 2));
    assert_eq!(used(s, Some(task), REQUESTS).await, (1, 1));
    assert_eq!(used(s, Some(task), TOKENS).await.0, 50);
    // The same kind twice is one amount.
    let twice = [amount(TOKENS, 30, Some(100), None), amount(TOKENS, 30, Some(100), None)];
    assert_eq!(spend(&*s.db, Some(task), &twice).await, exhausted(TOKENS, SpendScope::Task, 50, 100));
}

pub async fn only_what_has_a_maximum_is_counted(s: &Subject) {
    let task = id();
    assert_eq!(spend(&*s.db, Some(task), &[amount(TOKENS, 7, None, None)]).await, SpendAnswer::Spent(None));
    assert_eq!(spend(&*s.db, Some(task), &[amount(TOKENS, 7, Some(9), None)]).await, SpendAnswer::Spent(None));
    assert_eq!(used(s, Some(task), TOKENS).await, (7, 0));
    // Without a task there is none to count for.
    assert_eq!(spend(&*s.db, None, &[amount(TOKENS, 70, Some(9), None)]).await, SpendAnswer::Spent(None));
    let day = spend(&*s.db, None, &[amount(TOKENS, 8, Some(1), Some(9))]).await;
    assert!(matches!(day, SpendAnswer::Spent(Some(_))), "{day:?}");
    assert_eq!(used(s, None, TOKENS).await, (0, 8));
    assert_eq!(spend(&*s.db, None, &[]).await, SpendAnswer::Spent(None));
}

pub async fn of_concurrent_spenders_none_spends_what_another_has(s: &Subject) {
    let other = s.back_door.open();
    let task = id();
    let all = [amount(TOKENS, 1, Some(25), Some(25)), amount(REQUESTS, 1, Some(1_000), Some(1_000))];
    let many = async |db: &dyn Db| {
        let mut spent = 0;
        for _ in 0..12 {
            match spend(db, Some(task), &all).await {
                SpendAnswer::Spent(_) => spent += 1,
                answer => assert_eq!(answer, exhausted(TOKENS, SpendScope::Day, 25, 25)),
            }
        }
        spent
    };
    let (a, b, c) = tokio::join!(many(&*s.db), many(&*other), many(&*s.db));
    assert_eq!(a + b + c, 25);
    assert_eq!(used(s, Some(task), REQUESTS).await, (25, 25));
}

pub async fn what_was_taken_is_put_right_and_never_below_nothing(s: &Subject) {
    let task = id();
    let SpendAnswer::Spent(day) = spend(&*s.db, Some(task), &[amount(TOKENS, 50, Some(100), Some(100))]).await else {
        panic!("not spent")
    };
    let correct = async |task: Option<TaskId>, day, difference| {
        let writer = task.map(|task| (task, 1));
        s.db.stores().correct_spending(writer, "agent", day, TOKENS, difference).await.unwrap();
    };
    correct(Some(task), day, -20).await;
    assert_eq!(used(s, Some(task), TOKENS).await, (30, 30));
    correct(Some(task), day, 80).await;
    assert_eq!(used(s, Some(task), TOKENS).await, (110, 110), "more was spent than there was");
    correct(None, day, -10).await;
    correct(Some(task), None, -1).await;
    assert_eq!(used(s, Some(task), TOKENS).await, (109, 100));
    correct(Some(task), day, i64::MIN).await;
    assert_eq!(used(s, Some(task), TOKENS).await, (0, 0));
    correct(Some(id()), day, 5).await;
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_spending").await, 1, "what is not counted stays so");
}

pub async fn what_was_spent_goes_with_its_task_and_after_its_time(s: &Subject) {
    let host = s.host().await;
    let (ended, running) = (arrival(), arrival());
    s.end(host, &ended, completed()).await;
    s.run(host, &running).await;
    for arrival in [&ended, &running] {
        spend(&*s.db, Some(arrival.message.id), &[amount(TOKENS, 1, Some(9), Some(9))]).await;
    }
    s.db.stores().spend(None, "stranger", &[amount(TOKENS, 1, None, Some(9))]).await.unwrap();
    let keep = Retention { completed: std::time::Duration::ZERO, failed: LONG, dead: LONG, audit: LONG };
    assert_eq!(s.db.prune(&keep, 10).await.unwrap(), 1);
    assert_eq!(used(s, Some(running.message.id), TOKENS).await, (1, 2));
    assert_eq!(s.back_door.number("SELECT count(*) FROM task_spending").await, 1);
    assert_eq!(s.back_door.number("SELECT count(*) FROM spending").await, 2);
    s.set("UPDATE spending SET day = '2020-01-01'").await;
    spend(&*s.db, None, &[amount(TOKENS, 1, None, Some(9))]).await;
    s.db.prune(&keep, 10).await.unwrap();
    assert_eq!(s.back_door.number("SELECT count(*) FROM spending").await, 1);
    assert_eq!(used(s, None, TOKENS).await, (0, 1));
}

/// One task that runs under one claim after the other, with an allowance of 100.
struct Spender<'a> {
    s: &'a Subject,
    arrival: Arrival,
}

impl Spender<'_> {
    fn new(s: &Subject) -> Spender<'_> {
        Spender { s, arrival: arrival() }
    }

    async fn spend(&self, fence: Fence, tokens: u64) -> SpendAnswer {
        let amounts = [amount(TOKENS, tokens, Some(100), Some(1_000))];
        spend_under(&*self.s.db, Some((self.arrival.message.id, fence)), &amounts).await
    }

    /// Runs under the next claim, spends, and ends like this. `None`: its host is lost.
    async fn run(&self, tokens: u64, ended: Option<Ended>) -> SpendAnswer {
        let host = self.s.host().await;
        let claimed = self.s.run(host, &self.arrival).await;
        let spent = self.spend(claimed.fence, tokens).await;
        match ended {
            Some(ended) => {
                self.s.settle(host, &settlement(&self.arrival, &claimed, ended)).await;
                // A delay is over.
                self.s.set("UPDATE tasks SET run_at = '2020-01-01T00:00:00.000000Z' WHERE run_at IS NOT NULL").await;
            }
            None => self.s.db.end_lease(host).await.unwrap(),
        }
        spent
    }
}

fn interrupted() -> Ended {
    Ended::Interrupted { reason: "shutdown".into() }
}

fn is_spent(answer: &SpendAnswer) -> bool {
    matches!(answer, SpendAnswer::Spent(Some(_)))
}

pub async fn what_an_interrupted_run_spent_is_returned_to_its_task_and_not_to_the_day(s: &Subject) {
    let task = Spender::new(s);
    for ended in [Some(interrupted()), None, Some(completed())] {
        let spent = task.run(40, ended).await;
        assert!(is_spent(&spent), "{spent:?}");
    }
    assert_eq!(task.spend(3, 61).await, refunded(40, 80));
    let day = spend(&*s.db, None, &[amount(TOKENS, 1, None, Some(0))]).await;
    assert_eq!(day, exhausted(TOKENS, SpendScope::Day, 120, 0), "it was paid for");
}

fn refunded(used: u64, refunded: u64) -> SpendAnswer {
    SpendAnswer::Exhausted { kind: TOKENS, scope: SpendScope::Task, used, allowed: 100, refunded }
}

pub async fn what_is_returned_to_a_task_is_at_most_its_allowance(s: &Subject) {
    let task = Spender::new(s);
    assert!(is_spent(&task.run(70, Some(interrupted())).await));
    assert!(is_spent(&task.run(70, None).await));
    // 70 and 30 are returned; 40 of the second run stay.
    assert_eq!(task.run(70, Some(interrupted())).await, refunded(40, 100));
    assert!(is_spent(&task.run(60, Some(interrupted())).await));
    assert_eq!(task.run(1, Some(completed())).await, refunded(100, 100));
}

pub async fn what_a_run_spent_that_counts_stays_spent(s: &Subject) {
    let snoozed = Ended::Snoozed { message: "later".into(), after: Duration::from_secs(1) };
    for ended in [retrying(), snoozed] {
        let task = Spender::new(s);
        assert!(is_spent(&task.run(60, Some(ended)).await));
        assert_eq!(task.run(60, Some(completed())).await, exhausted(TOKENS, SpendScope::Task, 60, 100));
    }
}

pub async fn a_task_that_killed_a_child_of_the_isolation_lane_gets_nothing_returned(s: &Subject) {
    let task = Spender::new(s);
    assert!(is_spent(&task.run(60, Some(Ended::ChildLost { reason: "signal 9".into() })).await));
    assert_eq!(task.run(60, Some(interrupted())).await, exhausted(TOKENS, SpendScope::Task, 60, 100));
    assert!(is_spent(&task.run(40, Some(interrupted())).await));
    assert_eq!(task.run(1, None).await, exhausted(TOKENS, SpendScope::Task, 100, 100));
}

pub async fn a_claim_that_was_taken_over_spends_nothing_and_corrects_nothing(s: &Subject) {
    let task = Spender::new(s);
    assert!(is_spent(&task.run(60, None).await));
    assert!(is_spent(&task.run(10, Some(completed())).await));
    assert_eq!(task.spend(1, 1).await, SpendAnswer::Fenced);
    let first = Some((task.arrival.message.id, 1));
    s.db.stores().correct_spending(first, "agent", None, TOKENS, -60).await.unwrap();
    assert_eq!(task.spend(2, 91).await, refunded(10, 60));
    let day = spend(&*s.db, None, &[amount(TOKENS, 1, None, Some(0))]).await;
    assert_eq!(day, exhausted(TOKENS, SpendScope::Day, 70, 0), "all or none");
}

/// A daemon of an earlier build beside this one.
pub async fn what_an_earlier_build_counted_is_held_against_the_allowance(s: &Subject) {
    let task = Spender::new(s);
    let id = task.arrival.message.id;
    s.set(&format!("INSERT INTO task_spending (task_id, kind, used) VALUES ('{id}', '{TOKENS}', 30)")).await;
    assert!(is_spent(&task.run(50, Some(interrupted())).await));
    s.set("UPDATE task_spending SET used = used + 20").await;
    assert!(is_spent(&task.run(40, Some(completed())).await), "50 were returned");
    assert_eq!(task.spend(2, 11).await, refunded(90, 50));
}
