//! What operators do: retry, erase, redrive, forget, measure.

use super::subject::*;
use crate::db::{
    DeadFilter, DeadLetter, EraseAnswer, Fields, Label, LabelledDeletion, NewTask, Prunable, Redrive, RedriveAnswer,
    Retention, RetryAnswer, SettleAnswer, TaskFilter, record_dead,
};
use crate::task::settle::Ended;
use crate::task::{Arrival, Event, FailureKind, Options, State, TaskId};
use serde_json::{Value, json};
use std::time::Duration;

fn retry_of(arrival: &Arrival) -> NewTask {
    let message = message(id(), "word-count", &arrival.message.input, Options::default());
    NewTask { message, queue: "default".into(), retry_of: Some(arrival.message.id), max_attempts: 3 }
}

pub async fn an_ended_task_is_retried_as_a_new_one(s: &Subject) {
    let host = s.host().await;
    let old = arrival_with(Options { priority: Some(7), timeout_seconds: Some(9), ..Options::default() }, here());
    let task = retry_of(&old);
    assert!(s.db.asked(old.message.id).await.unwrap().is_none());
    assert_eq!(s.db.retry(&task, false).await.unwrap(), RetryAnswer::Unknown);
    let claimed = s.run(host, &old).await;
    assert_eq!(s.db.retry(&task, false).await.unwrap(), RetryAnswer::NotEnded(State::Running));
    s.settle(host, &settlement(&old, &claimed, failed())).await;

    let asked = s.db.asked(old.message.id).await.unwrap().unwrap();
    let message = asked.message.unwrap();
    assert_eq!((asked.state, asked.queue.as_str(), asked.erased_at), (State::Failed, "default", None));
    assert_eq!((&message.input, &message.options), (&old.message.input, &old.message.options));

    let before = s.row(old.message.id).await;
    assert_eq!(s.db.retry(&task, false).await.unwrap(), RetryAnswer::Created);
    let new = s.row(task.message.id).await;
    assert_eq!((new.state, new.retry_of, new.input), (State::Pending, Some(old.message.id), before.input.clone()));
    assert_eq!(s.history(task.message.id).await, [Event::Pending]);
    assert_eq!(s.published().await, [task.message.id]);
    assert_eq!(format!("{:?}", s.row(old.message.id).await), format!("{before:?}"), "a terminal row never changes");
    let of = TaskFilter { retry_of: Some(old.message.id), limit: 9, ..TaskFilter::default() };
    let found: Vec<_> =
        s.db.tasks(&[of], Fields::default()).await.unwrap().rows.into_iter().map(|row| row.id).collect();
    assert_eq!(found, [task.message.id]);
}

pub async fn a_task_is_not_retried_while_a_retry_is_under_way(s: &Subject) {
    let host = s.host().await;
    let old = arrival();
    s.end(host, &old, failed()).await;
    let first = retry_of(&old);
    assert_eq!(s.db.retry(&first, false).await.unwrap(), RetryAnswer::Created);
    // The same again: recognised, whatever became of it.
    assert_eq!(s.db.retry(&first, true).await.unwrap(), RetryAnswer::Exists);
    let (second, first_id) = (retry_of(&old), first.message.id);
    let under_way = RetryAnswer::Retried(first_id, State::Pending);
    assert_eq!(s.db.retry(&second, false).await.unwrap(), under_way);
    // The id of a task that is no retry of this one.
    let stranger =
        NewTask { message: message(old.message.id, "word-count", "1", Options::default()), ..retry_of(&old) };
    assert_eq!(s.db.retry(&stranger, false).await.unwrap(), RetryAnswer::Conflict);
    s.db.cancel(first_id).await.unwrap();
    let ended = RetryAnswer::Retried(first_id, State::Cancelled);
    assert_eq!(s.db.retry(&second, true).await.unwrap(), ended);
    assert_eq!(s.db.retry(&second, false).await.unwrap(), RetryAnswer::Created);
}

pub async fn of_concurrent_retries_of_one_task_one_is_made(s: &Subject) {
    let host = s.host().await;
    let old = arrival();
    s.end(host, &old, failed()).await;
    let other = s.back_door.open();
    let (one, two) = (retry_of(&old), retry_of(&old));
    let (a, b) = tokio::join!(s.db.retry(&one, false), other.retry(&two, false));
    let made = [a.unwrap(), b.unwrap()].into_iter().filter(|answer| *answer == RetryAnswer::Created).count();
    assert_eq!(made, 1);
}

const SECRET: &str = "hunter2";

pub async fn an_erased_task_stays_without_what_it_held(s: &Subject) {
    let host = s.host().await;
    let with_input = |options| arrival_of(message(id(), "word-count", &format!("\"{SECRET}\""), options), here());
    let (old, done) = (with_input(Options::default()), with_input(Options::default()));
    assert_eq!(s.db.erase(old.message.id).await.unwrap(), EraseAnswer::Unknown);
    let words = || crate::task::Failure { message: SECRET.into(), detail: json!({"data": SECRET}), ..trap() };
    let claimed = s.run(host, &old).await;
    assert_eq!(s.db.erase(old.message.id).await.unwrap(), EraseAnswer::NotEnded(State::Running));
    let mut first = settlement(&old, &claimed, Ended::Retrying { failure: words(), after: Duration::ZERO });
    first.logs = vec![line(1, "", SECRET)];
    s.settle(host, &first).await;
    s.end(host, &old, Ended::Failed { failure: words() }).await;
    s.end(host, &done, Ended::Completed { output: format!("\"{SECRET}\"").into() }).await;
    let history = s.history(old.message.id).await;

    for (arrival, state) in [(&old, State::Failed), (&done, State::Completed)] {
        let EraseAnswer::Erased(at) = s.db.erase(arrival.message.id).await.unwrap() else { panic!("not erased") };
        assert_eq!(s.db.erase(arrival.message.id).await.unwrap(), EraseAnswer::Erased(at), "once");
        let row = s.row(arrival.message.id).await;
        assert_eq!((row.state, row.erased_at, row.input, row.output), (state, Some(at), None, None));
        // Still known when it comes again, and not run.
        assert!(matches!(s.claim(host, arrival).await, crate::db::ClaimAnswer::Done(_)));
        let retry = retry_of(arrival);
        assert_eq!(s.db.retry(&retry, false).await.unwrap(), RetryAnswer::Erased);
        assert!(s.db.asked(arrival.message.id).await.unwrap().unwrap().message.is_none());
    }
    let failure = s.row(old.message.id).await.failure.unwrap();
    assert_eq!((failure.kind, failure.message.as_str(), failure.detail), (FailureKind::Trap, "erased", Value::Null));
    assert_eq!(s.history(old.message.id).await, history);
    assert!(s.db.logs(old.message.id, 0, 9).await.unwrap().rows.is_empty());
    let attempts = s.db.attempts(old.message.id).await.unwrap();
    assert_eq!(attempts.len(), 2);
    let told = format!("{attempts:?} {:?}", s.db.events(old.message.id, 0, 9).await.unwrap().rows);
    assert!(!told.contains(SECRET), "{told}");
    assert!(attempts.iter().all(|a| a.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Trap)));
}

fn letter(task_id: Option<TaskId>) -> DeadLetter {
    DeadLetter {
        reason: "bad_options".into(),
        detail: SECRET.into(),
        queue: "urgent".into(),
        task_id,
        plugin: None,
        body: SECRET.as_bytes().into(),
        properties: json!({"headers": {"a": "b"}}),
        redelivered: false,
    }
}

pub async fn erasing_a_rejected_task_erases_its_letter(s: &Subject) {
    let task = id();
    let recorded = record_dead(&*s.db, &letter(Some(task))).await.unwrap();
    assert!(s.db.asked(task).await.unwrap().unwrap().message.is_none());
    assert!(matches!(s.db.erase(task).await.unwrap(), EraseAnswer::Erased(_)));
    let row = s.db.dead_letters(&DeadFilter { limit: 1, ..DeadFilter::default() }).await.unwrap().rows.remove(0);
    assert_eq!((row.id, row.body.as_str(), row.detail.as_str()), (recorded.id, "", "erased"));
    assert!(row.erased_at.is_some() && row.properties == json!({}));
    assert_eq!(s.db.begin_redrive(row.id, true).await.unwrap(), RedriveAnswer::Erased);
    assert!(
        s.db.dead_letters(&DeadFilter { waiting: true, limit: 1, ..DeadFilter::default() })
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

pub async fn erasing_a_redriven_task_erases_the_letter_it_was_made_of(s: &Subject) {
    let host = s.host().await;
    let letters =
        [record_dead(&*s.db, &letter(None)).await.unwrap().id, record_dead(&*s.db, &letter(None)).await.unwrap().id];
    let RedriveAnswer::Begun(redrive) = s.db.begin_redrive(letters[0], false).await.unwrap() else {
        panic!("not begun")
    };
    s.db.end_redrive(letters[0], redrive.id).await.unwrap();
    let task = message(redrive.id, "word-count", "1", Options::default());
    s.end(host, &arrival_of(task, here()), completed()).await;
    assert!(matches!(s.db.erase(redrive.id).await.unwrap(), EraseAnswer::Erased(_)));
    let rows = s.db.dead_letters(&DeadFilter { limit: 9, ..DeadFilter::default() }).await.unwrap().rows;
    let left: Vec<_> = rows.iter().map(|row| (row.id, row.body.as_str(), row.erased_at.is_some())).collect();
    assert_eq!(left, [(letters[1], SECRET, false), (letters[0], "", true)]);
}

pub async fn a_redrive_goes_under_one_id_until_it_is_seen_through(s: &Subject) {
    let id = record_dead(&*s.db, &letter(None)).await.unwrap().id;
    let equal = record_dead(&*s.db, &letter(None)).await.unwrap().id;
    assert_eq!(s.db.begin_redrive(equal + 1, false).await.unwrap(), RedriveAnswer::Unknown);
    let begin = async |letter, again| match s.db.begin_redrive(letter, again).await.unwrap() {
        RedriveAnswer::Begun(redrive) => redrive,
        other => panic!("{other:?}"),
    };
    let first = begin(id, false).await;
    let properties = json!({"headers": {"a": "b"}});
    let whole = Redrive { letter: id, id: first.id, queue: "urgent".into(), body: SECRET.into(), properties };
    assert_eq!(first, whole);
    assert_eq!(begin(id, false).await, first, "it may have died before it was published, or after");
    assert_ne!(begin(equal, false).await.id, first.id);
    let waiting = async || {
        let filter = DeadFilter { waiting: true, limit: 9, ..DeadFilter::default() };
        s.db.dead_letters(&filter).await.unwrap().rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(waiting().await, [equal, id]);
    s.db.end_redrive(id, super::subject::id()).await.unwrap();
    assert_eq!(waiting().await, [equal, id], "another redrive's end");
    s.db.end_redrive(id, first.id).await.unwrap();
    assert_eq!(waiting().await, [equal]);
    assert_eq!(s.db.begin_redrive(id, false).await.unwrap(), RedriveAnswer::Redriven(first.id));

    let second = begin(id, true).await;
    assert_ne!(second.id, first.id);
    s.db.end_redrive(id, first.id).await.unwrap();
    assert_eq!(waiting().await, [equal, id], "an end that comes late");
    assert_eq!(begin(id, false).await.id, second.id);
    s.db.end_redrive(id, second.id).await.unwrap();
    s.db.end_redrive(id, second.id).await.unwrap();
    assert_eq!(s.back_door.number(&format!("SELECT redrives FROM dead_letters WHERE id = {id}")).await, 2);
    let row =
        s.db.dead_letters(&DeadFilter { before: Some(equal), limit: 1, ..DeadFilter::default() }).await.unwrap().rows;
    assert_eq!((row[0].redriven_as, row[0].redriven_at.is_some()), (Some(second.id), true));
    let since = |text| DeadFilter { since: Some(at(text)), limit: 9, ..DeadFilter::default() };
    assert_eq!(s.db.dead_letters(&since("2020-01-01T00:00:00Z")).await.unwrap().rows.len(), 2);
    assert!(s.db.dead_letters(&since("2999-01-01T00:00:00Z")).await.unwrap().rows.is_empty());
}

pub async fn tasks_are_filtered_by_failure_and_time(s: &Subject) {
    let host = s.host().await;
    let (trapped, running) = (arrival(), arrival());
    s.end(host, &trapped, failed()).await;
    s.run(host, &running).await;
    let ids = async |filter: TaskFilter| {
        let rows = s.db.tasks(&[TaskFilter { limit: 10, ..filter }], Fields::default()).await.unwrap().rows;
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let (all, trap) = (TaskFilter::default, trapped.message.id);
    assert_eq!(ids(TaskFilter { kind: Some(FailureKind::Trap), ..all() }).await, [trap]);
    assert!(ids(TaskFilter { kind: Some(FailureKind::Timeout), ..all() }).await.is_empty());
    s.set(&format!("UPDATE tasks SET created_at = '2020-01-01T00:00:00.000000Z' WHERE id = '{trap}'")).await;
    let since = |text| TaskFilter { since: Some(at(text)), ..all() };
    assert_eq!(ids(since("2021-01-01T00:00:00Z")).await, [running.message.id, trap], "it ended since");
    s.set(&format!("UPDATE tasks SET finished_at = '2020-01-02T00:00:00.000000Z' WHERE id = '{trap}'")).await;
    assert_eq!(ids(since("2021-01-01T00:00:00Z")).await, [running.message.id]);
    assert!(ids(TaskFilter { retry_of: Some(trap), ..all() }).await.is_empty());
}

pub async fn what_is_past_its_time_is_counted_and_tables_are_measured(s: &Subject) {
    let host = s.host().await;
    let (one, two, failing) = (arrival(), arrival(), arrival());
    s.end(host, &one, completed()).await;
    s.end(host, &two, completed()).await;
    s.end(host, &failing, failed()).await;
    record_dead(&*s.db, &letter(None)).await.unwrap();
    let keep = Retention { completed: LONG, failed: LONG, dead: LONG, audit: LONG };
    assert_eq!(s.db.prunable(&keep).await.unwrap(), Default::default());
    let old = "2020-01-01T00:00:00.000000Z";
    s.set(&format!("UPDATE tasks SET finished_at = '{old}' WHERE id = '{}'", one.message.id)).await;
    let plan = s.db.prunable(&keep).await.unwrap();
    assert_eq!(plan.completed, Prunable { count: 1, oldest: Some(at(old)) });
    let zero = Duration::ZERO;
    let plan = s.db.prunable(&Retention { completed: zero, failed: zero, dead: zero, audit: zero }).await.unwrap();
    let counts = [plan.completed, plan.failed, plan.cancelled, plan.dead].map(|kind| kind.count);
    assert_eq!(counts, [2, 1, 0, 1]);
    let sizes = s.db.sizes().await.unwrap();
    let mut tables: Vec<_> = sizes.iter().map(|size| size.table.as_str()).collect();
    tables.sort();
    let mut expected = crate::db::schema::TABLES;
    expected.sort_unstable();
    assert_eq!(tables, expected);
    assert!(sizes.iter().all(|size| size.bytes > 0 && size.rows >= -1), "{sizes:?}");
}

pub async fn a_completed_retry_is_not_forgotten_before_the_task_that_it_repeats(s: &Subject) {
    let host = s.host().await;
    let old = arrival();
    s.end(host, &old, failed()).await;
    let again = retry_of(&old);
    assert_eq!(s.db.retry(&again, true).await.unwrap(), RetryAnswer::Created);
    s.end(host, &arrival_of(again.message.clone(), here()), completed()).await;
    let keep = Retention { completed: Duration::ZERO, failed: LONG, dead: LONG, audit: LONG };
    assert_eq!(s.db.prunable(&keep).await.unwrap(), Default::default());
    assert_eq!(s.db.prune(&keep, 9).await.unwrap(), 0);
    let known = RetryAnswer::Retried(again.message.id, State::Completed);
    assert_eq!(s.db.retry(&retry_of(&old), true).await.unwrap(), known, "it was retried, and is not retried again");
    let keep = Retention { failed: Duration::ZERO, ..keep };
    let pruned = [s.db.prune(&keep, 9).await.unwrap(), s.db.prune(&keep, 9).await.unwrap()];
    assert_eq!(pruned, [1, 1], "first the one, then the other");
}

pub async fn labelled_tasks_are_deleted_in_batches_once_they_have_ended(s: &Subject) {
    let host = s.host().await;
    let labelled = |value: &str| {
        let labels = [("agentry-bench".to_owned(), value.to_owned())].into();
        arrival_with(Options { labels, ..Options::default() }, here())
    };
    let mine = [labelled("a"), labelled("a"), labelled("a")];
    let (other, none, running) = (labelled("b"), arrival(), labelled("a"));
    for arrival in mine.iter().chain([&other, &none]) {
        let claimed = s.run(host, arrival).await;
        let mut settlement = settlement(arrival, &claimed, completed());
        settlement.logs = vec![line(1, "", "x")];
        settlement.calls = vec![call(1, "x")];
        assert_eq!(s.settle(host, &settlement).await, SettleAnswer::Settled);
    }
    s.run(host, &running).await;
    let label = |key: &str, value: &str| Label { key: key.into(), value: value.into() };
    let delete = async |label: &Label, limit| s.db.delete_labelled(label, limit).await.unwrap();
    let a = label("agentry-bench", "a");
    let counted = async || {
        let mut all = s.db.labelled("agentry-bench", 9).await.unwrap();
        all.sort_by(|one, other| one.value.cmp(&other.value));
        all.into_iter().map(|one| (one.value, one.ended, one.unfinished)).collect::<Vec<_>>()
    };
    assert_eq!(counted().await, [("a".to_owned(), 3, 1), ("b".to_owned(), 1, 0)]);
    let latest = s.db.labelled("agentry-bench", 1).await.unwrap();
    assert!(latest.len() == 1 && (latest[0].last_at - s.db.ping().await.unwrap()).num_seconds().abs() < 60);
    assert!(s.db.labelled("team", 9).await.unwrap().is_empty());
    let left = vec![running.message.id];
    assert_eq!(delete(&a, 2).await, LabelledDeletion { deleted: 2, unfinished: left.clone() });
    let of_mine = async |arrival: &Arrival| s.db.task(arrival.message.id, Fields::default()).await.unwrap();
    assert!(of_mine(&mine[0]).await.is_some(), "the newest are deleted first");
    assert_eq!(delete(&a, 2).await, LabelledDeletion { deleted: 1, unfinished: left.clone() });
    assert_eq!(delete(&a, 2).await, LabelledDeletion { deleted: 0, unfinished: left.clone() });
    assert_eq!(delete(&label("team", "a"), 9).await, LabelledDeletion::default());
    for table in ["task_attempts", "task_logs", "task_calls"] {
        assert_eq!(s.back_door.number(&format!("SELECT count(*) FROM {table}")).await, 2, "{table}");
    }
    assert_eq!(counted().await, [("a".to_owned(), 0, 1), ("b".to_owned(), 1, 0)]);
    let b = label("agentry-bench", "b");
    assert_eq!(delete(&b, 9).await, LabelledDeletion { deleted: 1, unfinished: Vec::new() });
    assert!(of_mine(&other).await.is_none());
    assert!(of_mine(&none).await.is_some() && of_mine(&running).await.is_some());
}
