//! A server may say back what it was sent, also the headers that the host put in. What was secret in them is taken out of the
//! answer before a guest sees it: letter by letter, so that no length changes.
//!
//! Found also across two pieces of a body; [`Redactor`] says in which spellings.

use super::HttpError;
use crate::secret::Redactor;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Replaces what is in the values of headers.
pub(super) fn headers(secrets: &Redactor, headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let mut text = value.as_bytes().to_vec();
        secrets.cover(&mut text);
        if let Ok(covered) = HeaderValue::from_bytes(&text) {
            *value = covered;
        }
    }
}

/// A body without secrets.
pub(super) struct Masked<B> {
    inner: B,
    secrets: Redactor,
    /// The end of what came, as long as it may be the beginning of a secret.
    held: BytesMut,
    trailers: Option<HeaderMap>,
}

impl<B> Masked<B> {
    pub fn new(inner: B, secrets: Redactor) -> Masked<B> {
        Masked { inner, secrets, held: BytesMut::new(), trailers: None }
    }
}

impl<B: Body<Data = Bytes, Error = HttpError> + Unpin> Body for Masked<B> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let next = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?;
            let data = match next.map(Frame::into_data) {
                Some(Ok(data)) => data,
                // The end, or what follows the last data: nothing held can become a secret any more.
                other => {
                    if let Some(Err(frame)) = other
                        && let Ok(mut trailers) = frame.into_trailers()
                    {
                        headers(&self.secrets, &mut trailers);
                        self.trailers = Some(trailers);
                    }
                    match (self.held.is_empty(), &self.trailers) {
                        (false, _) => return Poll::Ready(Some(Ok(Frame::data(self.held.split().freeze())))),
                        (true, Some(_)) => continue,
                        (true, None) => return Poll::Ready(None),
                    }
                }
            };
            let this = &mut *self;
            this.held.extend_from_slice(&data);
            this.secrets.cover(&mut this.held);
            let clear = this.held.len() - this.secrets.begun(&this.held);
            if clear > 0 {
                return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(clear).freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.held.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let mut hint = self.inner.size_hint();
        match hint.exact() {
            Some(exact) => hint.set_exact(exact + held),
            None => hint.set_lower(hint.lower() + held),
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret;
    use http_body_util::{BodyExt, StreamBody};

    fn secrets() -> Redactor {
        Redactor::new(secret::of_header("Bearer hunter2-hunter2"))
    }

    async fn through(pieces: Vec<&'static [u8]>) -> Vec<u8> {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
        let body = Masked::new(StreamBody::new(futures_util::stream::iter(frames)), secrets());
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_secret_is_covered_wherever_it_is_cut() {
        let text = b"a Bearer hunter2-hunter2 hunter2-hunter2hunter2-hunter b";
        let wanted = format!("a {} {}hunter2-hunter b", "*".repeat(22), "*".repeat(15)).into_bytes();
        assert_eq!(through(vec![text]).await, wanted);
        for cut in 0..text.len() {
            assert_eq!(through(vec![&text[..cut], &text[cut..]]).await, wanted, "{cut}");
        }
        assert_eq!(through(text.chunks(1).collect()).await, wanted);
    }

    #[tokio::test]
    async fn what_only_begins_like_one_comes_through_whole() {
        for text in [&b"hunter2-hunter"[..], b"Bearer hunter3", b"", b"h"] {
            assert_eq!(through(vec![text]).await, text);
        }
    }

    #[test]
    fn headers_are_covered_too() {
        let mut sent = HeaderMap::from_iter([
            (http::header::WWW_AUTHENTICATE, HeaderValue::from_static("not hunter2-hunter2!")),
            (http::header::SERVER, HeaderValue::from_static("plain")),
        ]);
        headers(&secrets(), &mut sent);
        assert_eq!(sent[http::header::WWW_AUTHENTICATE], "not ***************!");
        assert_eq!(sent[http::header::SERVER], "plain");
    }
}
