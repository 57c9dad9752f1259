//! Bodies that are counted while they pass.

use super::stages::later;
use super::{HttpError, RequestBody, Stage, failure};
use agentry_defence::Defence;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What was wrong with a request's body, which the client reports only as a broken connection.
pub(super) type Fault = Arc<OnceLock<HttpError>>;

/// A request's body on its way out.
pub(super) struct Outgoing {
    /// reqwest wants a body that can be shared, and never shares it: the lock is never taken.
    inner: Mutex<RequestBody>,
    left: u64,
    limit: u64,
    /// What is still to come, where the length was declared.
    declared: Option<u64>,
    ended: bool,
    fault: Fault,
}

impl Outgoing {
    pub fn new(inner: RequestBody, limit: u64, declared: Option<u64>, fault: Fault) -> Outgoing {
        let ended = inner.is_end_stream();
        Outgoing { inner: Mutex::new(inner), left: limit, limit, declared, ended, fault }
    }

    /// Waits for its end, which is to come before any data.
    pub async fn ends_empty(&mut self) -> Result<(), HttpError> {
        while let Some(frame) = self.frame().await {
            if frame?.data_ref().is_some_and(|data| !data.is_empty()) {
                let reason = "a GET or HEAD with a body says how long it is, in a Content-Length".into();
                return Err(HttpError::Invalid { reason });
            }
        }
        Ok(())
    }

    fn fail<T>(&mut self, error: HttpError) -> Poll<Option<Result<T, HttpError>>> {
        self.ended = true;
        let error = self.fault.get_or_init(|| error).clone();
        Poll::Ready(Some(Err(error)))
    }

    fn invalid<T>(&mut self, reason: String) -> Poll<Option<Result<T, HttpError>>> {
        self.fail(HttpError::Invalid { reason })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let inner = self.inner.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(frame) = ready!(Pin::new(inner).poll_frame(cx)) else {
            self.ended = true;
            return match self.declared {
                Some(missing @ 1..) => self.invalid(format!("its body ends {missing} bytes before its Content-Length")),
                _ => Poll::Ready(None),
            };
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return self.invalid(format!("its body failed: {error}")),
        };
        let length = length(&frame);
        if length > self.left && Defence::HttpRequestBody.stands() {
            let limit = self.limit;
            return self.fail(HttpError::RequestTooLarge { limit });
        }
        self.left = self.left.saturating_sub(length);
        if let (Some(declared), true) = (self.declared, frame.is_data()) {
            match declared.checked_sub(length) {
                Some(rest) => self.declared = Some(rest),
                None => return self.invalid("its body is longer than its Content-Length".into()),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response's body on its way in.
pub(super) struct Incoming {
    /// Gone when it ended, whether well or not: the connection is closed, or free for another exchange.
    inner: Option<reqwest::Body>,
    left: u64,
    limit: u64,
    idle: Duration,
    /// Set while the body is waited for.
    patience: Option<Pin<Box<Sleep>>>,
    end: Pin<Box<Sleep>>,
    total: Duration,
    host: String,
    fault: Fault,
}

/// When a response's body is over.
pub(super) struct Bounds {
    pub bytes: u64,
    pub idle: Duration,
    pub end: Instant,
    pub total: Duration,
}

impl Incoming {
    pub fn new(inner: reqwest::Body, bounds: Bounds, host: String, fault: Fault) -> Incoming {
        let Bounds { bytes, idle, end, total } = bounds;
        let end = Box::pin(sleep_until(end));
        let inner = Some(inner);
        Incoming { inner, left: bytes, limit: bytes, idle, patience: None, end, total, host, fault }
    }

    fn fail(&mut self, error: HttpError) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.inner = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Arms the timers, and fails if one is over.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let idle = self.idle;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(later(Instant::now(), idle))));
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(HttpError::TimedOut { stage: Stage::Body, limit: idle }),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let next = Pin::new(inner).poll_frame(cx);
        // A server that never stops is over all the same.
        if !matches!(next, Poll::Ready(None)) && self.end.as_mut().poll(cx).is_ready() {
            let limit = self.total;
            return self.fail(HttpError::TimedOut { stage: Stage::Total, limit });
        }
        match next {
            Poll::Pending => self.wait(cx),
            Poll::Ready(None) => {
                self.inner = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let error =
                    self.fault.get().cloned().unwrap_or_else(|| failure::of(&error, &self.host, failure::Way::Direct));
                self.fail(error)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.patience = None;
                let length = length(&frame);
                if length > self.left && Defence::HttpResponseBody.stands() {
                    let limit = self.limit;
                    return self.fail(HttpError::ResponseTooLarge { limit });
                }
                self.left = self.left.saturating_sub(length);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Trailers count as what they say.
fn length(frame: &Frame<Bytes>) -> u64 {
    let data = frame.data_ref().map_or(0, Bytes::len);
    let trailers = frame.trailers_ref().into_iter().flatten().map(|(name, value)| name.as_str().len() + value.len());
    (data + trailers.sum::<usize>()) as u64
}
