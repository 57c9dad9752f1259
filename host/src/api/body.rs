//! Bodies of requests: their size, the time they may take, and the memory of all of them together.

use super::ApiState;
use super::problem::Problem;
use super::share::Share;
use crate::task::content;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a client may take to send its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a request waits for memory that other bodies occupy.
const TURN: Duration = Duration::from_secs(10);
/// Bodies of the largest size that fit into memory at once.
const LARGEST: usize = 8;
/// Unit of the semaphore, in bytes.
const KIB: usize = 1_024;

/// Memory for the bodies of all callers together.
#[derive(Clone)]
pub(super) struct Bodies {
    all: Part,
    most: usize,
}

/// The part of it that one token may occupy.
#[derive(Clone)]
pub(super) struct Part {
    kib: Arc<Semaphore>,
    largest: usize,
    whose: &'static str,
}

impl Part {
    /// Half of the memory, so that slow bodies of one token leave room for others.
    pub fn of_token(most: usize) -> Part {
        Part::of(most, LARGEST / 2, "this token has")
    }

    /// All of it, for an API without tokens.
    pub fn whole(most: usize) -> Part {
        Part::of(most, LARGEST, "there are")
    }

    fn of(most: usize, largest: usize, whose: &'static str) -> Part {
        let kib = most.div_ceil(KIB).saturating_mul(largest).min(Semaphore::MAX_PERMITS);
        Part { kib: Arc::new(Semaphore::new(kib)), largest, whose }
    }

    async fn room(&self, kib: u32, most: usize, until: Instant) -> Result<OwnedSemaphorePermit, Problem> {
        match timeout_at(until, self.kib.clone().acquire_many_owned(kib)).await {
            Ok(Ok(room)) => Ok(room),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => {
                let Part { largest, whose, .. } = self;
                let all = most.saturating_mul(*largest) / (KIB * KIB);
                let detail = format!(
                    "{whose} request bodies of {all} MiB in memory, which is the limit ({largest} times api.body_mib); retry, or send smaller bodies"
                );
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_bodies", detail))
            }
        }
    }
}

impl Bodies {
    /// Memory for [`LARGEST`] bodies of at most `most` bytes.
    pub fn new(most: usize) -> Bodies {
        Bodies { all: Part::whole(most), most }
    }

    /// Reserves memory for a body before it is read; all of `most` if its length is not announced. The caller's part comes
    /// first: who waits for it holds nothing of the memory of all.
    async fn room(&self, part: &Part, announced: Option<u64>) -> Result<[OwnedSemaphorePermit; 2], Problem> {
        let bytes = announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(self.most).min(self.most);
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let until = Instant::now() + TURN;
        let own = part.room(kib, self.most, until).await?;
        Ok([own, self.all.room(kib, self.most, until).await?])
    }
}

/// A complete body with its reserved memory.
pub(super) struct Whole {
    bytes: bytes::Bytes,
    _room: [OwnedSemaphorePermit; 2],
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body, within the limit and in time.
pub(super) async fn read(state: &ApiState, share: &Share, headers: &HeaderMap, body: Body) -> Result<Whole, Problem> {
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let text = value.to_str().unwrap_or("?");
        if !content::is_json(text) {
            let detail = format!("content-type is {text:?}; it must be application/json, in UTF-8");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", detail));
        }
    } else {
        // Without one a web page could post from any browser on this machine.
        let detail = "content-type is missing; it must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", detail));
    }
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && let Err(why) = encoding.to_str().map_err(|_| "not text").and_then(content::check_encoding)
    {
        let detail = format!("content-encoding is {encoding:?}: {why}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", detail));
    }
    let most = state.bodies.most;
    let too_large = || {
        let detail = format!("the body has more than {} MiB (api.body_mib)", most / (1_024 * 1_024));
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).with("limit_bytes", most)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most as u64) {
        return Err(too_large());
    }
    let room = state.bodies.room(share.bodies(), announced).await?;
    match timeout(PATIENCE, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(Whole { bytes, _room: room }),
        Ok(Err(e)) if is_length_limit(&e) => Err(too_large()),
        Ok(Err(e)) => Err(Problem::bad("bad_body", format!("the body broke off: {e}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", PATIENCE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Checks that a body is UTF-8, and drops a byte order mark.
pub(super) fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(content::without_mark(body))
        .map_err(|e| Problem::bad("not_utf8", format!("the body is not UTF-8 at byte {}", e.valid_up_to())))
}

/// Read a JSON object. serde would take an array for a struct, field by field.
pub(super) fn object<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, Problem> {
    match text.trim_start_matches([' ', '\n', '\r', '\t']).as_bytes().first() {
        Some(b'{') => serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => Problem::bad("bad_message", format!("{what}: {e}")),
            _ => Problem::bad("not_json", format!("{what}: {e}")),
        }),
        None => Err(Problem::bad("not_json", format!("{what} is empty"))),
        Some(_) => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Err(Problem::bad("bad_message", format!("{what}: expected an object"))),
            Err(e) => Err(Problem::bad("not_json", format!("{what}: {e}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = KIB * KIB;

    #[tokio::test(start_paused = true)]
    async fn bodies_wait_for_room_and_not_for_ever() {
        let bodies = Bodies::new(MIB);
        let whole = Part::whole(MIB);
        let mut held = Vec::new();
        for _ in 0..LARGEST {
            // One whose length is not announced may be the largest.
            held.push(bodies.room(&whole, None).await.unwrap());
        }
        assert!(bodies.room(&whole, Some(0)).await.is_ok(), "an empty one needs none");
        let refused = format!("{:?}", bodies.room(&whole, Some(1)).await.map(drop).unwrap_err());
        assert!(refused.contains("too_many_bodies") && refused.contains("8 MiB"), "{refused}");
        let (one, ()) = tokio::join!(bodies.room(&whole, Some(1)), async {
            tokio::time::sleep(TURN / 2).await;
            held.pop();
        });
        assert!(one.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_one_token_leave_half_of_the_room_to_others() {
        let bodies = Bodies::new(MIB);
        let [one, other] = [Part::of_token(MIB), Part::of_token(MIB)];
        let mut held = Vec::new();
        for _ in 0..LARGEST / 2 {
            held.push(bodies.room(&one, None).await.unwrap());
        }
        let refused = format!("{:?}", bodies.room(&one, Some(1)).await.map(drop).unwrap_err());
        assert!(refused.contains("this token has request bodies of 4 MiB"), "{refused}");
        for _ in 0..LARGEST / 2 {
            held.push(bodies.room(&other, None).await.unwrap());
        }
    }
}
