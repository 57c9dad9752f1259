//! `wasi:http` (outgoing): requests that were granted, counted and bounded, and sent by the host's own client.
//!
//! The engine's crate brings the types and no client; what a guest sends comes out of [`Web::send_request`] and nowhere else.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use agentry_defence::Defence;
use agentry_outbound::egress::{Client, Exchange, HttpError, RequestBody, ResponseBody, Stage};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::allowance::{Allowance, Count};
use crate::access::{BudgetError, Spending};
use crate::bodies::Copied;
use crate::calls::{Begun, Calls, Over};
use crate::instance::{Shared, State};
use crate::limits::Limits;
use crate::streams::lock;

/// The capability's name in `plugin.toml`.
pub(crate) const NAME: &str = "http";
/// How long a request waits for one of `http_in_flight` places. A guest that holds them all and reads none is told so.
const PLACE: Duration = Duration::from_secs(30);
/// What a guest writes into a body at once, at most; the host keeps no more of it than two such pieces.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// One guest's way out.
pub(crate) struct Web(Sending);

/// What one request needs on its way; shared by all of a guest's.
#[derive(Clone)]
struct Sending {
    client: Option<Client>,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    in_flight: u32,
    requests: Arc<Count>,
    allowance: Allowance,
    request_bytes: u64,
    response_bytes: u64,
}

impl Web {
    pub(crate) fn new(client: Option<Client>, limits: &Limits, allowance: Allowance, shared: Arc<Shared>) -> Web {
        Web(Sending {
            client,
            shared,
            places: Arc::new(Semaphore::new(match Defence::HttpInFlight.stands() {
                true => limits.http_in_flight as usize,
                false => Semaphore::MAX_PERMITS,
            })),
            in_flight: limits.http_in_flight,
            requests: Arc::new(Count::new(Defence::HttpRequests, limits.http_requests)),
            allowance,
            request_bytes: limits.http_request_bytes,
            response_bytes: limits.http_response_bytes,
        })
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for Web {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let sending = self.0.clone();
        Box::new(async move {
            let response = sending.send(request, options.unwrap_or_default()).await?;
            Ok((response, Box::new(async { Ok(()) }) as Io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

impl Sending {
    async fn send(self, request: Request<WasiBody>, options: RequestOptions) -> Result<Response<WasiBody>, Error> {
        let (method, target) = (request.method().to_string(), shown(request.uri()));
        if let Err(why) = self.allowed().await {
            self.allowance.refused(NAME, &method, &target, &why);
            return Err(match why {
                BudgetError::Exhausted(words) => Error::InternalError(Some(format!("budget-exceeded: {words}"))),
                BudgetError::Unavailable(_) => Error::DestinationUnavailable,
            });
        }
        let begun = Calls::begin(&self.allowance.calls, NAME, &method, &target);
        let Ok(Ok(place)) = tokio::time::timeout(PLACE, self.places.clone().acquire_owned()).await else {
            let reason = format!("all http_in_flight = {} places were taken for {PLACE:?}", self.in_flight);
            begun.over(Over { result: "in_flight", detail: json!({ "reason": reason }), ..Over::default() });
            return Err(Error::ConnectionLimitReached);
        };
        let sent = Arc::new(AtomicU64::new(0));
        let answer = match &self.client {
            Some(client) => {
                let request = counted(request, sent.clone(), begun.request_body());
                client.send(request, self.exchange(options)).await
            }
            None => Err(HttpError::Denied { method, origin: target }),
        };
        match answer {
            Ok(response) => {
                let status = response.status().as_u16();
                Ok(response.map(|body| Recorded::new(body, begun, sent, status, place).boxed_unsync()))
            }
            Err(error @ HttpError::Denied { .. }) => {
                if begun.denied() {
                    lock(&self.shared.log).remark(error.to_string());
                }
                Err(to_guest(error))
            }
            Err(error) => {
                begun.over(Over {
                    result: word(&error),
                    request_bytes: sent.load(Ordering::Relaxed),
                    detail: json!({ "reason": error.to_string() }),
                    ..Over::default()
                });
                Err(to_guest(error))
            }
        }
    }

    async fn allowed(&self) -> Result<(), BudgetError> {
        self.requests.one()?;
        self.allowance.take(&[(Spending::HttpRequests, 1)]).await
    }

    fn exchange(&self, options: RequestOptions) -> Exchange {
        Exchange {
            until: self.shared.end,
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        }
    }
}

/// The same request, its body counted, and copied if it is to be kept, while it passes.
fn counted(request: Request<WasiBody>, sent: Arc<AtomicU64>, copied: Option<Copied>) -> Request<RequestBody> {
    request.map(|body| {
        let counted = body.map_frame(move |frame| {
            let length = frame.data_ref().map_or(0, Bytes::len);
            sent.fetch_add(length as u64, Ordering::Relaxed);
            if let (Some(copied), Some(data)) = (&copied, frame.data_ref()) {
                copied.pass(data);
            }
            frame
        });
        counted.map_err(|error| error.to_string().into()).boxed_unsync()
    })
}

/// An address as a record may hold it: what follows `?` is often a secret.
fn shown(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    // Userinfo is refused later, and is a secret if anything is.
    let authority = uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
    format!("{scheme}://{authority}{}", uri.path())
}

/// The stable word of a record.
fn word(error: &HttpError) -> &'static str {
    match error {
        HttpError::Denied { .. } => "denied",
        HttpError::ForbiddenAddress { .. } => "forbidden_address",
        HttpError::Invalid { .. } => "invalid",
        HttpError::Dns { .. } => "dns",
        HttpError::Connect { .. } => "connect",
        HttpError::Tls { .. } => "tls",
        HttpError::TimedOut { .. } => "timed_out",
        HttpError::RequestTooLarge { .. } => "request_too_large",
        HttpError::ResponseTooLarge { .. } | HttpError::HeadTooLarge => "response_too_large",
        HttpError::Broken { .. } => "broken",
    }
}

/// The same as `wasi:http` says it. Its variants have hardly room for words: those of a refusal, which name the grant, stand in
/// the attempt's log, and an SDK says them from the variant.
fn to_guest(error: HttpError) -> Error {
    match error {
        HttpError::Denied { .. } => Error::HttpRequestDenied,
        HttpError::Invalid { .. } => Error::InternalError(Some(error.to_string())),
        HttpError::ForbiddenAddress { .. } => Error::DestinationIpProhibited,
        HttpError::Dns { reason, .. } => Error::DnsError { rcode: Some(reason), info_code: None },
        HttpError::Connect { reason, .. } if reason.contains("refused") => Error::ConnectionRefused,
        HttpError::Connect { .. } => Error::DestinationUnavailable,
        HttpError::Tls { reason, .. } if reason.contains("certificate") => Error::TlsCertificateError,
        HttpError::Tls { .. } => Error::TlsProtocolError,
        HttpError::TimedOut { stage: Stage::Resolve, .. } => Error::DnsTimeout,
        HttpError::TimedOut { stage: Stage::Connect, .. } => Error::ConnectionTimeout,
        HttpError::TimedOut { stage: Stage::Body, .. } => Error::ConnectionReadTimeout,
        HttpError::TimedOut { .. } => Error::HttpResponseTimeout,
        HttpError::RequestTooLarge { limit } => Error::HttpRequestBodySize(Some(limit)),
        HttpError::ResponseTooLarge { limit } => Error::HttpResponseBodySize(Some(limit)),
        HttpError::HeadTooLarge => Error::HttpResponseHeaderSectionSize(None),
        HttpError::Broken { .. } => Error::HttpResponseIncomplete,
    }
}

/// A response's body, counted and copied as the guest sees it, while it passes: what was secret has been covered. Its record is over when it is, or when the guest lets go of it.
struct Recorded {
    body: ResponseBody,
    copied: Option<Copied>,
    begun: Option<Begun>,
    sent: Arc<AtomicU64>,
    received: u64,
    status: u16,
    _place: OwnedSemaphorePermit,
}

impl Recorded {
    fn new(
        body: ResponseBody,
        begun: Begun,
        sent: Arc<AtomicU64>,
        status: u16,
        place: OwnedSemaphorePermit,
    ) -> Recorded {
        Recorded { body, copied: begun.response_body(), begun: Some(begun), sent, received: 0, status, _place: place }
    }

    fn over(&mut self, result: &'static str, reason: Option<String>) {
        let Some(begun) = self.begun.take() else { return };
        let mut detail = json!({ "status": self.status });
        if let Some(reason) = reason {
            detail["reason"] = Value::String(reason);
        }
        begun.over(Over {
            result,
            request_bytes: self.sent.load(Ordering::Relaxed),
            response_bytes: self.received,
            detail,
        });
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        Poll::Ready(match std::task::ready!(polled) {
            None => {
                self.over("ok", None);
                None
            }
            Some(Ok(frame)) => {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                if let (Some(copied), Some(data)) = (&self.copied, frame.data_ref()) {
                    copied.pass(data);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.over(word(&error), Some(error.to_string()));
                Some(Err(to_guest(error)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // What a guest does not read to the end, or could not.
        let result = if self.body.is_end_stream() { "ok" } else { "dropped" };
        self.over(result, None);
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.host_calls += 1;
        WasiHttpCtxView { hooks: &mut self.web, table: &mut self.table, ctx: &mut self.http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_neither_query_nor_userinfo() {
        let uri: http::Uri = "https://u:hunter2@h.example:8443/a/b?key=hunter2".parse().unwrap();
        assert_eq!(shown(&uri), "https://h.example:8443/a/b");
    }
}
