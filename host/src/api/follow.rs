//! A task's history and logs as they come: server-sent events, each with its `seq` as id, until the task has ended or its row
//! is deleted.

use super::ApiState;
use super::problem::Problem;
use super::share::Share;
use crate::db::{EventRow, Fields, LogRow};
use crate::task::TaskId;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Streams at once; each asks the database a few times a second.
pub(super) const STREAMS: usize = 256;
/// How often a stream asks while nothing tells it to.
const INTERVAL: Duration = Duration::from_millis(250);
/// Rows in one question.
const ROWS: u32 = 500;

/// Whether the client wants a stream.
pub(super) fn asked(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("text/event-stream"))
}

type Items = Vec<Result<Event, Infallible>>;

/// What is followed.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Events,
    Logs,
}

struct Follower {
    state: Arc<ApiState>,
    id: TaskId,
    after: i64,
    kind: Kind,
    /// Nothing follows what was read.
    done: bool,
    /// The last read ended at its limit.
    more: bool,
    settled: tokio::sync::watch::Receiver<u64>,
    /// The caller's own, and of all.
    _places: [OwnedSemaphorePermit; 2],
}

/// Follow a task from after `after` on. Where nothing can follow any more the answer is 204: a browser's `EventSource`, which
/// comes back after every end of a stream, stops then.
pub(super) async fn start(
    state: Arc<ApiState>,
    share: &Share,
    id: TaskId,
    after: i64,
    kind: Kind,
) -> Result<Response, Problem> {
    let places = [share.stream()?, state.streams.stream()?];
    let settled = state.parts.settled.clone();
    let mut follower = Follower { state, id, after, kind, done: false, more: false, settled, _places: places };
    let first = follower.read().await?;
    if first.is_empty() && follower.done {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let rest = stream::unfold(follower, |mut follower| async move {
        let items = follower.next().await?;
        Some((stream::iter(items), follower))
    });
    let items = stream::iter(first).chain(rest.flatten());
    Ok(Sse::new(items).keep_alive(KeepAlive::default()).into_response())
}

impl Follower {
    /// What has come since; `None`: this was all.
    async fn next(&mut self) -> Option<Items> {
        loop {
            if self.done || self.state.closing.is_cancelled() {
                return None;
            }
            if !self.more {
                self.pause().await;
            }
            // A database that is away for a while is waited for: the reader sees a pause, and no gap.
            match self.read().await {
                Ok(items) if items.is_empty() => {}
                Ok(items) => return Some(items),
                Err(_) => self.more = false,
            }
        }
    }

    async fn pause(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = self.state.closing.cancelled() => {}
            () = async { if self.settled.changed().await.is_err() { std::future::pending().await } } => {}
        }
    }

    async fn read(&mut self) -> Result<Items, Problem> {
        let (id, after) = (self.id, self.after);
        self.settled.mark_unchanged();
        // The task first: what is committed with its end is there when it is read afterwards, so that it is all. A reader may be
        // past the last row, and a row may be deleted: neither is seen in what follows.
        let row = self.state.db(move |db| async move { db.task(id, Fields::default()).await }).await?;
        let ended = row.is_none_or(|row| row.state.is_terminal());
        let (items, last): (Items, bool) = match self.kind {
            Kind::Events => {
                let page = self.state.db(move |db| async move { db.events(id, after, ROWS).await }).await?;
                self.after = page.rows.last().map_or(after, |row| row.seq);
                self.more = page.more;
                (page.rows.iter().map(|row| Ok(event(row))).collect(), page.rows.iter().any(is_last))
            }
            Kind::Logs => {
                let page = self.state.db(move |db| async move { db.logs(id, after, ROWS).await }).await?;
                self.after = page.rows.last().map_or(after, |row| row.seq);
                self.more = page.more;
                (page.rows.iter().map(|row| Ok(line(row))).collect(), false)
            }
        };
        self.done = last || ended && !self.more;
        Ok(items)
    }
}

fn is_last(row: &EventRow) -> bool {
    crate::task::State::parse(row.event.as_str()).is_some_and(crate::task::State::is_terminal)
}

fn event(row: &EventRow) -> Event {
    // `event` and `id` are words and numbers of ours: no line breaks, which would panic.
    let sent = Event::default().id(row.seq.to_string()).event(row.event.as_str());
    sent.json_data(row).unwrap_or_default()
}

fn line(row: &LogRow) -> Event {
    let sent = Event::default().id(row.seq.to_string()).event("log");
    sent.json_data(row).unwrap_or_default()
}
