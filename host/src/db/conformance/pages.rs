//! Pages of large rows.

use super::subject::*;
use crate::db::{CallCursor, DeadFilter, DeadLetter, Fields, Page, TaskCursor, TaskFilter, record_dead};
use crate::task::settle::{Body, Call, Ended};
use crate::task::{Failure, Settlement};
use std::fmt::Debug;

const MIB: usize = 1_024 * 1_024;
/// Sizes of rows, in the order of their list, and how many of them each page has.
const SIZES: [usize; 5] = [17 * MIB, 9 * MIB, 6 * MIB, 2 * MIB, 1];
const PAGES: [usize; 3] = [1, 2, 2];

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Reads all pages of a list. Returns the cursors of each page's rows.
async fn pages<T, C: Copy>(read: impl AsyncFn(Option<C>) -> Page<T>, cursor: impl Fn(&T) -> C) -> Vec<Vec<C>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = read(after).await;
        after = page.next(&cursor);
        pages.push(page.rows.iter().map(&cursor).collect());
        if after.is_none() {
            return pages;
        }
    }
}

/// The pages hold these rows, each as many as fit.
fn fit<C: Debug + PartialEq + Clone>(pages: Vec<Vec<C>>, rows: &[C]) {
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), PAGES, "{pages:?}");
    assert_eq!(pages.concat(), rows);
}

pub async fn a_page_of_tasks_ends_at_its_bytes(s: &Subject) {
    let host = s.host().await;
    let arrivals = SIZES.map(|_| arrival());
    // The list is newest first.
    for (arrival, size) in arrivals.iter().zip(SIZES.into_iter().rev()) {
        s.end(host, arrival, Ended::Completed { output: format!("{:?}", text(size)).into() }).await;
    }
    let rows: Vec<_> = arrivals.iter().rev().map(|arrival| arrival.message.id).collect();
    let read = async |fields: Fields, limit: u32| {
        let page =
            async |before| s.db.tasks(&[TaskFilter { before, limit, ..TaskFilter::default() }], fields).await.unwrap();
        let ids = |page: Vec<TaskCursor>| page.iter().map(|cursor| cursor.id).collect::<Vec<_>>();
        pages(page, |row| TaskCursor::from(row)).await.into_iter().map(ids).collect::<Vec<_>>()
    };
    fit(read(Fields::ALL, 10).await, &rows);
    fit(read(Fields { input: false, output: true }, 10).await, &rows);
    // What is not read does not count.
    assert_eq!(read(Fields { input: true, output: false }, 10).await, std::slice::from_ref(&rows));
    assert_eq!(read(Fields::default(), 5).await, std::slice::from_ref(&rows), "no page follows that would be empty");
    assert_eq!(read(Fields::default(), 4).await, [rows[..4].to_vec(), rows[4..].to_vec()]);
}

pub async fn a_page_of_a_history_ends_at_its_bytes(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let id = arrival.message.id;
    for size in [9 * MIB, 9 * MIB] {
        let failure = Failure { message: text(size), ..trap() };
        let claimed = s.run(host, &arrival).await;
        let ended = Ended::Retrying { failure, after: std::time::Duration::ZERO };
        s.settle(host, &settlement(&arrival, &claimed, ended)).await;
    }
    let events = async |after: Option<i64>| s.db.events(id, after.unwrap_or(0), 100).await.unwrap();
    let read = pages(events, |row| row.seq).await;
    assert_eq!(read, [vec![1, 2, 3], vec![4]]);
}

pub async fn a_page_of_logs_ends_at_its_bytes(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let mut settlement = settlement(&arrival, &claimed, completed());
    settlement.logs = (1..).zip(SIZES).map(|(seq, size)| line(seq, "", &text(size))).collect();
    s.settle(host, &settlement).await;
    let read = async |limit| {
        let page = async |after: Option<i64>| s.db.logs(arrival.message.id, after.unwrap_or(0), limit).await.unwrap();
        pages(page, |row| row.seq).await
    };
    fit(read(10).await, &[1, 2, 3, 4, 5]);
    assert_eq!(read(1).await, [[1], [2], [3], [4], [5]]);
}

pub async fn a_page_of_calls_ends_at_its_bytes(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let body = |size| Some(Body { bytes: vec![0xff; size], size: size as u64 });
    let call = |(seq, size)| Call { request_body: body(size / 2), response_body: body(size / 2), ..call(seq, "") };
    let calls = (1..).zip(SIZES).map(call).collect();
    s.settle(host, &Settlement { calls, ..settlement(&arrival, &claimed, completed()) }).await;
    let read = async |bodies| {
        let page = async |after: Option<CallCursor>| {
            s.db.calls(arrival.message.id, after.unwrap_or_default(), 10, bodies).await.unwrap()
        };
        pages(page, |row| CallCursor::from(row)).await
    };
    let rows: Vec<_> = (1..=5).map(|seq| CallCursor { fence: 1, seq }).collect();
    fit(read(true).await, &rows);
    assert_eq!(read(false).await, [rows]);
}

pub async fn a_page_of_letters_ends_at_its_bytes(s: &Subject) {
    let mut rows = Vec::new();
    // The list is newest first. Of a body, only what is shown counts.
    for (size, n) in SIZES.into_iter().rev().zip(0u8..) {
        let letter = DeadLetter {
            reason: "not_json".into(),
            detail: text(size / 2),
            queue: "default".into(),
            task_id: None,
            plugin: None,
            body: vec![n; MIB].into(),
            properties: serde_json::json!({"headers": {"x": text(size / 2)}}),
            redelivered: false,
        };
        rows.insert(0, record_dead(&*s.db, &letter).await.unwrap().id);
    }
    let filter = |before| DeadFilter { before, limit: 10, ..DeadFilter::default() };
    let page = async |before| s.db.dead_letters(&filter(before)).await.unwrap();
    fit(pages(page, |row| row.id).await, &rows);
}
