//! A task's history and logs as they come: server-sent events, each with its `seq` as id, until the task has ended.

use super::Shared;
use super::problem::Problem;
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
    shared: Arc<Shared>,
    id: TaskId,
    after: i64,
    kind: Kind,
    done: bool,
    first: bool,
    settled: tokio::sync::watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

/// Follow a task from after `after` on.
pub(super) fn start(shared: Arc<Shared>, id: TaskId, after: i64, kind: Kind) -> Result<Response, Problem> {
    let permit = shared.streams.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{STREAMS} streams are open already; ask without text/event-stream, or later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
    })?;
    let settled = shared.parts.settled.clone();
    let follower = Follower { shared, id, after, kind, done: false, first: true, settled, _permit: permit };
    let items = stream::unfold(follower, |mut follower| async move {
        let items = follower.next().await?;
        Some((stream::iter(items), follower))
    });
    Ok(Sse::new(items.flatten()).keep_alive(KeepAlive::default()).into_response())
}

impl Follower {
    /// What has come since; `None`: this was all.
    async fn next(&mut self) -> Option<Items> {
        loop {
            if self.done || self.shared.closing.is_cancelled() {
                return None;
            }
            if !std::mem::take(&mut self.first) {
                self.pause().await;
            }
            self.settled.mark_unchanged();
            // A database that is away for a while is waited for: the reader sees a pause, and no gap.
            match self.read().await {
                Ok(items) if items.is_empty() => {}
                Ok(items) => {
                    self.first = true; // there may be more at once
                    return Some(items);
                }
                Err(_) => {}
            }
        }
    }

    async fn pause(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = self.shared.closing.cancelled() => {}
            () = async { if self.settled.changed().await.is_err() { std::future::pending().await } } => {}
        }
    }

    async fn read(&mut self) -> Result<Items, Problem> {
        let (id, after) = (self.id, self.after);
        match self.kind {
            Kind::Events => {
                let rows = self.shared.db(move |db| async move { db.events(id, after, ROWS).await }).await?;
                self.after = rows.last().map_or(self.after, |row| row.seq);
                self.done = rows.iter().any(is_last);
                Ok(rows.iter().map(|row| Ok(event(row))).collect())
            }
            Kind::Logs => {
                // The state first: lines are committed with the end, so what is read after it is all.
                let ended = self.shared.db(move |db| async move { db.task(id, Fields::default()).await }).await?;
                let ended = ended.is_none_or(|row| row.state.is_terminal());
                let rows = self.shared.db(move |db| async move { db.logs(id, after, ROWS).await }).await?;
                self.after = rows.last().map_or(self.after, |row| row.seq);
                self.done = ended && rows.len() < ROWS as usize;
                Ok(rows.iter().map(|row| Ok(line(row))).collect())
            }
        }
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
