//! One exchange through `wasi:http` and `wasi:io`.

use super::target::Target;
use super::{Error, Request, Response};
use crate::glue::bindings::wasi::clocks::monotonic_clock;
use crate::glue::bindings::wasi::http::outgoing_handler;
use crate::glue::bindings::wasi::http::types::{
    self, ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use crate::glue::bindings::wasi::io::poll::{Pollable, poll};
use crate::glue::bindings::wasi::io::streams::{InputStream, StreamError};

/// The most that is written at once: what `blocking-write-and-flush` of `wasi:io` takes, and every host gives.
const WRITE_BYTES: usize = 4_096;
/// The most that is read at once.
const READ_BYTES: u64 = 64 << 10;

/// Sends a request and reads the whole response.
pub(super) fn send(request: &Request, target: &Target<'_>) -> Result<Response, Error> {
    let exchange = Exchange { request, target, deadline: Deadline::new(request) };
    let (outgoing, body) = exchange.outgoing()?;
    let waiting = outgoing_handler::handle(outgoing, exchange.options()).map_err(|code| exchange.error(&code))?;
    // The host sends while this writes: a body that does not fit into what it holds back would otherwise never end.
    if let (Some(body), Some(bytes)) = (body, &request.body) {
        exchange.write(body, bytes)?;
    }
    let pollable = waiting.subscribe();
    let response = loop {
        if let Some(response) = waiting.get() {
            break response;
        }
        exchange.deadline.wait(&pollable, "response")?;
    };
    let response = response.map_err(|()| Error::Protocol("the response was taken twice".into()))?;
    exchange.read(response.map_err(|code| exchange.error(&code))?)
}

struct Exchange<'a> {
    request: &'a Request,
    target: &'a Target<'a>,
    deadline: Deadline,
}

impl Exchange<'_> {
    fn outgoing(&self) -> Result<(OutgoingRequest, Option<OutgoingBody>), Error> {
        let refused = |what: &str| Error::Invalid(format!("the host refuses {what}"));
        let headers = Fields::new();
        for (name, value) in &self.request.headers {
            headers
                .append(name, value.as_bytes())
                .map_err(|error| refused(&format!("the header {name:?}, which is {}", header_error(&error))))?;
        }
        if let Some(body) = &self.request.body
            && !headers.has("content-length")
        {
            let length = body.len().to_string();
            headers.append("content-length", length.as_bytes()).map_err(|_| refused("a content-length"))?;
        }
        let outgoing = OutgoingRequest::new(headers);
        let method = method(&self.request.method);
        outgoing.set_method(&method).map_err(|()| refused(&format!("the method {:?}", self.request.method)))?;
        let scheme = if self.target.tls { Scheme::Https } else { Scheme::Http };
        outgoing.set_scheme(Some(&scheme)).map_err(|()| refused("the scheme"))?;
        let authority = self.target.authority;
        outgoing.set_authority(Some(authority)).map_err(|()| refused(&format!("the address {authority:?}")))?;
        let path = Some(self.target.path_with_query.as_str());
        outgoing.set_path_with_query(path).map_err(|()| refused("the path or the query; percent-encode it"))?;
        let body = match self.request.body {
            Some(_) => {
                Some(outgoing.body().map_err(|()| Error::Protocol("the request's body was taken twice".into()))?)
            }
            None => None,
        };
        Ok((outgoing, body))
    }

    /// What the host itself can keep of the time-out. Where it cannot, the deadline here does.
    fn options(&self) -> Option<RequestOptions> {
        let nanos = u64::try_from(self.request.timeout?.as_nanos()).unwrap_or(u64::MAX);
        let options = RequestOptions::new();
        let _ = options.set_connect_timeout(Some(nanos));
        let _ = options.set_first_byte_timeout(Some(nanos));
        let _ = options.set_between_bytes_timeout(Some(nanos));
        Some(options)
    }

    /// Writes the body. A server that wants no more of it may have answered already, so that this is no error: what became
    /// of the request stands in the response.
    fn write(&self, body: OutgoingBody, mut bytes: &[u8]) -> Result<(), Error> {
        let stream = body.write().map_err(|()| Error::Protocol("the request's body was opened twice".into()))?;
        let pollable = stream.subscribe();
        let whole = loop {
            let room = match stream.check_write() {
                Ok(room) => usize::try_from(room).unwrap_or(usize::MAX),
                Err(_) => break false,
            };
            if room == 0 {
                self.deadline.wait(&pollable, "room for the request's body")?;
            } else if bytes.is_empty() {
                break stream.flush().is_ok();
            } else {
                let (now, later) = bytes.split_at(bytes.len().min(room).min(WRITE_BYTES));
                if stream.write(now).is_err() {
                    break false;
                }
                bytes = later;
            }
        };
        // Children go before what they belong to.
        drop(pollable);
        drop(stream);
        if whole { OutgoingBody::finish(body, None).map_err(|code| self.error(&code)) } else { Ok(()) }
    }

    fn read(&self, response: IncomingResponse) -> Result<Response, Error> {
        let status = response.status();
        let headers = response.headers().entries();
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(&value).into_owned()))
            .collect();
        let body = response.consume().map_err(|()| Error::Protocol("the response's body was taken twice".into()))?;
        let bytes = self.drain(&body)?;
        let request = format!("{} {}", self.request.method, self.target.without_query());
        Ok(Response { status, headers, body: bytes, request })
    }

    fn drain(&self, body: &IncomingBody) -> Result<Vec<u8>, Error> {
        let stream: InputStream =
            body.stream().map_err(|()| Error::Protocol("the response's body was opened twice".into()))?;
        let pollable = stream.subscribe();
        let max = self.request.max_body;
        let mut bytes = Vec::new();
        loop {
            match stream.read(READ_BYTES) {
                Ok(more) if more.is_empty() => self.deadline.wait(&pollable, "rest of the response")?,
                Ok(more) if more.len() > max - bytes.len() => {
                    let from = self.target.without_query();
                    return Err(Error::TooLarge(format!("the response of {from} is longer than {max} bytes")));
                }
                Ok(more) => bytes.extend_from_slice(&more),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(match types::http_error_code(&error) {
                        Some(code) => self.error(&code),
                        None => Error::Protocol(format!(
                            "the response of {} broke off: {}",
                            self.target.without_query(),
                            error.to_debug_string()
                        )),
                    });
                }
            }
        }
    }

    fn error(&self, code: &ErrorCode) -> Error {
        let origin = self.target.origin();
        let method = &self.request.method;
        // `error-code` has no words for most of what happened; its name has.
        let said = || format!("{method} {origin}: {}", words(code));
        match code {
            ErrorCode::HttpRequestDenied => Error::Denied(format!(
                "{method} {origin} is not granted; ask for it in plugin.toml under [capabilities]: http = [\"{method} {origin}\"]"
            )),
            ErrorCode::DestinationIpProhibited => Error::Denied(format!(
                "{origin} leads to an address that plugins may not reach; the operator can open it in http.private"
            )),
            ErrorCode::HttpRequestMethodInvalid
            | ErrorCode::HttpRequestUriInvalid
            | ErrorCode::HttpRequestUriTooLong
            | ErrorCode::HttpRequestLengthRequired
            | ErrorCode::HttpUpgradeFailed => Error::Invalid(said()),
            ErrorCode::DnsTimeout
            | ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout => Error::TimedOut(said()),
            ErrorCode::DnsError(payload) => {
                let why = payload.rcode.as_deref().unwrap_or("the name is not known");
                Error::Dns(format!("{method} {origin}: {why}"))
            }
            ErrorCode::DestinationNotFound => Error::Dns(said()),
            ErrorCode::DestinationUnavailable
            | ErrorCode::DestinationIpUnroutable
            | ErrorCode::ConnectionRefused
            | ErrorCode::ConnectionTerminated
            | ErrorCode::ConnectionLimitReached => Error::Connect(said()),
            ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError | ErrorCode::TlsAlertReceived(_) => {
                Error::Tls(said())
            }
            ErrorCode::HttpRequestBodySize(_)
            | ErrorCode::HttpRequestHeaderSectionSize(_)
            | ErrorCode::HttpRequestHeaderSize(_)
            | ErrorCode::HttpRequestTrailerSectionSize(_)
            | ErrorCode::HttpRequestTrailerSize(_)
            | ErrorCode::HttpResponseHeaderSectionSize(_)
            | ErrorCode::HttpResponseHeaderSize(_)
            | ErrorCode::HttpResponseBodySize(_)
            | ErrorCode::HttpResponseTrailerSectionSize(_)
            | ErrorCode::HttpResponseTrailerSize(_) => Error::TooLarge(said()),
            ErrorCode::InternalError(Some(message)) => Error::Protocol(format!("{method} {origin}: {message}")),
            ErrorCode::HttpResponseIncomplete
            | ErrorCode::HttpResponseTransferCoding(_)
            | ErrorCode::HttpResponseContentCoding(_)
            | ErrorCode::HttpProtocolError
            | ErrorCode::LoopDetected
            | ErrorCode::ConfigurationError
            | ErrorCode::InternalError(None) => Error::Protocol(said()),
        }
    }
}

/// `ErrorCode::ConnectionRefused` → `connection refused`; with what the host says besides.
fn words(code: &ErrorCode) -> String {
    let debug = format!("{code:?}");
    let debug = debug.strip_prefix("ErrorCode::").unwrap_or(&debug);
    let (name, payload) = debug.split_at(debug.find(['(', ' ']).unwrap_or(debug.len()));
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    let payload = payload.trim();
    if payload.is_empty() || payload == "(None)" { words } else { format!("{words} {payload}") }
}

fn header_error(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::InvalidSyntax => "no header",
        HeaderError::Forbidden => "the host's own",
        HeaderError::Immutable => "not to be changed",
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// When the whole exchange has to be over.
struct Deadline {
    timer: Option<Pollable>,
    limit: std::time::Duration,
}

impl Deadline {
    fn new(request: &Request) -> Deadline {
        let limit = request.timeout.unwrap_or_default();
        let timer = request
            .timeout
            .map(|limit| monotonic_clock::subscribe_duration(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)));
        Deadline { timer, limit }
    }

    /// Waits until something happens, or the time is over.
    fn wait(&self, pollable: &Pollable, what: &str) -> Result<(), Error> {
        let Some(timer) = &self.timer else {
            pollable.block();
            return Ok(());
        };
        match poll(&[pollable, timer]).contains(&0) {
            true => Ok(()),
            false => Err(Error::TimedOut(format!("no {what} within {:?}", self.limit))),
        }
    }
}
