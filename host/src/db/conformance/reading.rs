//! Reading.

use super::subject::*;
use crate::db::{Fields, TaskCursor, TaskFilter};
use crate::task::settle::Ended;
use crate::task::{Event, Options, State, WaitCode};
use std::time::Duration;

pub async fn tasks_are_paged_newest_first(s: &Subject) {
    let host = s.host().await;
    let batch: Vec<_> = (0..7).map(|_| arrival()).collect();
    s.db.claim(steady(host), &batch).await.unwrap();
    // An id of an idempotency key, which is higher than those of later tasks; and older tasks with the highest and the lowest id.
    let keyed = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, b"order-17");
    let last = arrival_of(message(keyed, "word-count", "1", Options::default()), here());
    let oldest = [uuid::Uuid::max(), uuid::Uuid::nil()];
    for id in oldest {
        s.run(host, &arrival_of(message(id, "word-count", "1", Options::default()), here())).await;
        s.set(&format!("UPDATE tasks SET created_at = '2020-01-01T00:00:00.000000Z' WHERE id = '{id}'")).await;
    }
    // Of one batch, whose tasks have the same time, by id.
    let mut ids: Vec<_> = batch.iter().map(|a| a.message.id).collect();
    ids.sort();
    ids.reverse();
    s.run(host, &last).await;
    s.set(&format!("UPDATE tasks SET created_at = '2999-01-01T00:00:00.000000Z' WHERE id = '{keyed}'")).await;
    let ids = [vec![keyed], ids, oldest.to_vec()].concat();
    let mut filter = TaskFilter { limit: 3, ..TaskFilter::default() };
    let mut read = Vec::new();
    loop {
        let page = s.db.tasks(std::slice::from_ref(&filter), Fields::default()).await.unwrap().rows;
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        filter.before = Some(last.into());
        read.extend(page.into_iter().map(|row| row.id));
    }
    assert_eq!(read, ids);
}

pub async fn tasks_are_filtered(s: &Subject) {
    let host = s.host().await;
    let labelled =
        |value: &str| Options { labels: [("te.am\"".to_owned(), value.to_owned())].into(), ..Options::default() };
    let one = arrival_of(message(id(), "one@1", "1", labelled("search")), here());
    let mut two = arrival_of(message(id(), "two", "1", labelled("ads")), here());
    two.queue = "urgent".into();
    s.end(host, &one, completed()).await;
    s.run(host, &two).await;
    let ids = async |filter: TaskFilter| {
        let rows = s.db.tasks(&[TaskFilter { limit: 10, ..filter }], Fields::default()).await.unwrap().rows;
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let (one, two) = (one.message.id, two.message.id);
    let all = TaskFilter::default;
    assert_eq!(ids(TaskFilter { state: Some(State::Completed), ..all() }).await, [one]);
    assert!(ids(TaskFilter { state: Some(State::Failed), ..all() }).await.is_empty());
    assert_eq!(ids(TaskFilter { plugin: Some("one".into()), ..all() }).await, [one]);
    assert_eq!(ids(TaskFilter { plugin: Some("two".into()), ..all() }).await, [two]);
    assert_eq!(ids(TaskFilter { queue: Some("urgent".into()), ..all() }).await, [two]);
    assert_eq!(ids(TaskFilter { label: Some(("te.am\"".into(), "search".into())), ..all() }).await, [one]);
    assert!(ids(TaskFilter { label: Some(("team".into(), "search".into())), ..all() }).await.is_empty());
    assert!(ids(TaskFilter { plugin: Some("o\0ne".into()), ..all() }).await.is_empty());
    assert_eq!(ids(all()).await, [two, one]);
}

pub async fn a_list_of_several_filters_is_one_list(s: &Subject) {
    let host = s.host().await;
    let mut born = Vec::new();
    for n in 0..9 {
        let mut arrival = arrival();
        arrival.queue = ["default", "urgent", "slow"][n % 3].into();
        match n % 2 {
            0 => s.end(host, &arrival, completed()).await,
            _ => {
                s.run(host, &arrival).await;
            }
        }
        born.push(arrival.message.id);
    }
    born.reverse();
    // One filter for each combination.
    fn any_of(limit: u32, before: Option<TaskCursor>) -> Vec<TaskFilter> {
        let mut any = Vec::new();
        for state in [State::Completed, State::Running] {
            for queue in ["default", "urgent"] {
                let (state, queue) = (Some(state), Some(queue.to_owned()));
                any.push(TaskFilter { state, queue, limit, before, ..TaskFilter::default() });
            }
        }
        any
    }
    for limit in [1, 2, 3, 50] {
        let (mut read, mut before) = (Vec::new(), None);
        loop {
            let any = any_of(limit, before);
            let page = s.db.tasks(&any, Fields { input: true, output: false }).await.unwrap();
            assert!(page.rows.len() <= limit as usize);
            assert!(page.rows.iter().all(|row| row.input.is_some() && row.output.is_none()));
            before = page.rows.last().filter(|_| page.more).map(TaskCursor::from);
            read.extend(page.rows.into_iter().map(|row| row.id));
            if before.is_none() {
                break;
            }
        }
        let expected: Vec<_> = born.iter().enumerate().filter(|(at, _)| (8 - at) % 3 != 2).map(|(_, id)| *id).collect();
        assert_eq!(read, expected, "pages of {limit}");
    }
}

pub async fn large_fields_are_read_only_if_asked_for(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    s.end(host, &arrival, completed()).await;
    let read = async |fields| s.db.task(arrival.message.id, fields).await.unwrap().unwrap();
    let none = read(Fields::default()).await;
    assert_eq!((none.input, none.output), (None, None));
    let input = read(Fields { input: true, output: false }).await;
    assert!(input.input.is_some() && input.output.is_none());
    let output = read(Fields { input: false, output: true }).await;
    assert!(output.input.is_none() && output.output.is_some());
    assert!(s.db.task(id(), Fields::ALL).await.unwrap().is_none());
}

pub async fn a_waiting_task_says_why(s: &Subject) {
    let host = s.host().await;
    for code in [WaitCode::NoPlugin, WaitCode::PluginBroken, WaitCode::NoSlot, WaitCode::Paused, WaitCode::Isolation] {
        let parked = arrival_with(Options::default(), elsewhere(code));
        s.claim(host, &parked).await;
        let waiting = s.row(parked.message.id).await.waiting_for.unwrap();
        assert_eq!((waiting.code, waiting.message.as_str()), (code, code.message()));
    }
    let snoozed = arrival();
    s.end(host, &snoozed, Ended::Snoozed { message: "at night".into(), after: Duration::from_secs(60) }).await;
    let waiting = s.row(snoozed.message.id).await.waiting_for.unwrap();
    assert_eq!(waiting.code, WaitCode::Snoozed);
    assert_eq!(waiting.detail, serde_json::json!({"message": "at night"}));
    assert_eq!(waiting.until, Some(waiting.since + chrono::TimeDelta::seconds(60)));
    let running = arrival();
    s.run(host, &running).await;
    assert_eq!(s.waits(running.message.id).await, None);
}

pub async fn histories_and_logs_are_read_from_where_the_reader_was(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    for ended in [retrying(), completed()] {
        let claimed = s.run(host, &arrival).await;
        let mut settlement = settlement(&arrival, &claimed, ended);
        settlement.logs = vec![line(1, "", "a"), line(2, "", "b")];
        s.settle(host, &settlement).await;
    }
    let id = arrival.message.id;
    let events: Vec<_> = s.db.events(id, 1, 2).await.unwrap().rows.into_iter().map(|e| (e.seq, e.event)).collect();
    assert_eq!(events, [(2, Event::Retrying), (3, Event::Running)]);
    assert!(s.db.events(id, 4, 10).await.unwrap().rows.is_empty());
    let logs: Vec<_> = s.db.logs(id, 1, 2).await.unwrap().rows.into_iter().map(|l| l.seq).collect();
    assert_eq!(logs, [2, 3]);
    assert!(s.db.logs(id, 4, 10).await.unwrap().rows.is_empty());
    let retried = s.db.events(id, 1, 1).await.unwrap().rows.remove(0);
    assert_eq!(retried.detail["failure"]["kind"], "trap");
}

pub async fn ends_are_told_of_many_tasks_at_once(s: &Subject) {
    let host = s.host().await;
    let (done, running) = (arrival(), arrival());
    s.end(host, &done, completed()).await;
    s.run(host, &running).await;
    let ids = [running.message.id, done.message.id, id()];
    assert_eq!(s.db.terminal(&ids).await.unwrap(), [done.message.id]);
    assert!(s.db.terminal(&[]).await.unwrap().is_empty());
}
