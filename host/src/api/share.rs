//! Bounds on the requests and streams of one token, so that other tokens are served too.

use super::body::Part;
use super::follow;
use super::problem::Problem;
use axum::http::StatusCode;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one token. Without tokens, all callers share one.
#[derive(Clone)]
pub(super) struct Share {
    requests: Arc<Semaphore>,
    most_requests: usize,
    streams: Arc<Semaphore>,
    most_streams: usize,
    bodies: Part,
}

impl Share {
    /// All connections, streams and memory for bodies of at most so many bytes, for an API without tokens.
    pub fn whole(connections: usize, body_bytes: usize) -> Share {
        Share::of(connections, follow::STREAMS, Part::whole(body_bytes))
    }

    /// Half of the connections, a quarter of the streams, and half of the memory for bodies.
    pub fn of_token(connections: usize, body_bytes: usize) -> Share {
        Share::of((connections / 2).max(1), follow::STREAMS / 4, Part::of_token(body_bytes))
    }

    fn of(most_requests: usize, most_streams: usize, bodies: Part) -> Share {
        let [requests, streams] = [most_requests, most_streams].map(|most| Arc::new(Semaphore::new(most)));
        Share { requests, most_requests, streams, most_streams, bodies }
    }

    /// Returns its part of the memory for bodies.
    pub fn bodies(&self) -> &Part {
        &self.bodies
    }

    /// Reserves a place for one request, until its response begins.
    pub fn request(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.requests.clone().try_acquire_owned().map_err(|_| {
            let detail = format!(
                "this token has {} requests under way, which is the limit (half of api.connections); retry when some have ended",
                self.most_requests
            );
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
        })
    }

    /// Reserves a place for one stream, until it ends.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let detail = format!(
                "{} streams are open, which is the limit; request without text/event-stream, or retry when some have ended",
                self.most_streams
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
        })
    }
}
