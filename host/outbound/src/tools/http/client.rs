//! The client that rmcp's transport is given. It reads the answer to a request to its end: an HTTP error is that answer, whatever its
//! body, and rmcp sees whole messages alone. What a server says besides on the way goes to the session by a channel.

use super::events;
use super::fault::{Failure, Fault, Loss, UNKNOWN, may_be_older, refusal};
use super::old::Old;
use super::read::{self, Reply};
use crate::tools::intake;
use crate::tools::link::{Asked, Link};
use crate::tools::negotiation::{Negotiation, PROBE, STATELESS, Verdict};
use crate::tools::words::causes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, JsonRpcMessage};
use rmcp::service::RxJsonRpcMessage;
use rmcp::transport::streamable_http_client::{SseError, StreamableHttpClient, StreamableHttpPostResponse};
use serde_json::{Map, Value, json};
use sse_stream::Sse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::mpsc;
use url::Url;

/// How many redirects of one request are followed.
const REDIRECTS: usize = 5;
/// Media types that are accepted as an answer.
const ACCEPT: &str = "application/json, text/event-stream";

pub(super) type Headers = HashMap<HeaderName, HeaderValue>;
pub(super) type Message = RxJsonRpcMessage<RoleClient>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// One session's client.
#[derive(Clone)]
pub(in crate::tools) struct Client {
    pub(super) inner: reqwest::Client,
    /// A proxy stands before the server.
    pub(super) is_proxied: bool,
    pub(super) url: Url,
    pub(super) link: Arc<Link>,
    /// Messages that are not the answer to the request whose stream they came on.
    pub(super) others: mpsc::Sender<Message>,
    /// The longest message.
    pub(super) most: usize,
    /// Streams that are open for what the server says unasked.
    pub(super) listening: Arc<AtomicUsize>,
    /// The transport of revision 2024-11-05, where the server has no other.
    pub(super) old: Arc<OnceLock<Old>>,
    /// A session that the server may not know any more: the next request begins another one.
    pub(super) doubted: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// Sends a request, and again to where it is redirected within the configured origin.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<reqwest::Response, Failure> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let mut request = self.inner.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = body {
                request = request.body(body.to_vec());
            }
            let response = request.send().await.map_err(|error| self.no_answer(error))?;
            // Only a proxy says so (RFC 9110, section 15.5.8).
            if self.is_proxied && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                return Err(Fault::fatal("its proxy wants other credentials (407); see tools.NAME.proxy"));
            }
            match self.redirect(&method, &url, &response)? {
                Some(target) => url = target,
                None => return Ok(response),
            }
        }
        Err(Fault::fatal(format!("it redirects more than {REDIRECTS} times")))
    }

    /// Where a response redirects to. Another origin would get the configured headers, so it has to be configured.
    fn redirect(&self, method: &Method, from: &Url, response: &reqwest::Response) -> Result<Option<Url>, Failure> {
        let status = response.status();
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let Some(target) = location.and_then(|location| joined(from, location)) else { return Ok(None) };
        let is_own = target.origin() == self.url.origin();
        // See other: a GET of another resource, which is not what was asked for.
        if is_own && (status != StatusCode::SEE_OTHER || *method == Method::GET) {
            return Ok(Some(target));
        }
        let place = format!("{}{}", target.origin().ascii_serialization(), target.path());
        let place = self.link.redactor().reason(&place);
        // Servers send these when they carried out what was posted.
        let is_open = *method == Method::POST && matches!(status.as_u16(), 301..=303);
        let behind = if is_open { format!("; {UNKNOWN}") } else { String::new() };
        Err(Fault::fatal(match is_own {
            true => format!(
                "it redirects to {place} with HTTP 303, which is followed for no request; set url to its endpoint{behind}"
            ),
            false => format!(
                "it redirects to {place} (HTTP {}), and no redirect leaves the configured origin; set url to that address if it is right{behind}",
                status.as_u16()
            ),
        }))
    }

    pub(super) fn no_answer(&self, error: reqwest::Error) -> Failure {
        let failure = Fault::no_answer(&error, self.is_proxied);
        // An address has a query, and a query may have a key.
        self.link.explain(&causes(&error.without_url()));
        failure
    }

    /// Posts a message with the protocol's headers.
    async fn post(&self, body: &Value, session: Option<&str>, headers: &Headers) -> Result<reqwest::Response, Failure> {
        let headers = self.headers(session, headers)?;
        self.send(Method::POST, &self.url, &headers, Some(body.to_string().as_bytes())).await
    }

    pub(super) fn headers(&self, session: Option<&str>, more: &Headers) -> Result<HeaderMap, Failure> {
        let mut headers: HeaderMap = more.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Without it a server may compress as it likes (RFC 9110, section 12.5.3).
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(session) = session {
            let session = HeaderValue::from_str(session)
                .map_err(|_| Fault::fatal("its session id cannot be sent back: it is no value of a header"))?;
            headers.insert("mcp-session-id", session);
        }
        Ok(headers)
    }

    /// Sends what has no answer. A server may answer it with anything.
    async fn tell(&self, message: &Value, session: Option<&str>, headers: &Headers) -> Result<(), Failure> {
        let status = match self.old.get() {
            Some(old) => old.post(self, message).await?.status(),
            None => self.post(message, session, headers).await?.status(),
        };
        if !status.is_success() {
            tracing::debug!(status = status.as_u16(), "a tool server rejected a message that has no answer");
        }
        Ok(())
    }

    /// Sends a request and waits for its answer.
    async fn ask(
        &self,
        message: &Value,
        id: &Value,
        session: Option<&str>,
        headers: &Headers,
    ) -> Result<Reply, Failure> {
        match self.old.get() {
            Some(old) => old.ask(self, message, id).await,
            None => {
                let response = self.post(message, session, headers).await?;
                read::reply(self, response, id, session, headers).await
            }
        }
    }

    /// Opens a session in a revision that both speak.
    async fn open(&self, initialize: Value, headers: &Headers) -> Result<StreamableHttpPostResponse, Failure> {
        let id = initialize["id"].clone();
        let mut negotiation = Negotiation::new(initialize);
        let mut refused = None;
        let mut is_http_error = false;
        loop {
            let mut headers = headers.clone();
            if negotiation.is_discovering() {
                headers.insert(HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static(STATELESS));
                headers.insert(HeaderName::from_static("mcp-method"), HeaderValue::from_static("server/discover"));
            }
            let (request, request_id) = (negotiation.request(), negotiation.id());
            let asking = self.ask(&request, &request_id, None, &headers);
            let reply = match negotiation.was_rejected() {
                true => {
                    tokio::time::timeout(PROBE, asking).await.unwrap_or_else(|_| Err(Fault::once("it did not answer")))
                }
                false => asking.await,
            };
            let (verdict, session) = match reply {
                Ok(Reply::Answer { members, status, .. }) if !status.is_success() && !may_be_older(status) => {
                    return Err(refusal(status, error_words(&members)));
                }
                Ok(Reply::Answer { members, session, status }) => {
                    is_http_error |= !status.is_success();
                    (negotiation.answered(members), session)
                }
                Ok(Reply::Elsewhere) => return Err(Fault::fatal("it accepted initialize and did not answer it")),
                Err(Failure::Client(fault)) if fault.may_be_old && self.old.get().is_none() => {
                    let old = Old::find(self).await?.ok_or(Failure::Client(fault))?;
                    let _ = self.old.set(old);
                    negotiation = Negotiation::new(negotiation.into_initialize());
                    continue;
                }
                Ok(Reply::Refused { status, words }) => {
                    if !may_be_older(status) {
                        return Err(refusal(status, &words));
                    }
                    is_http_error = true;
                    if !negotiation.was_rejected() {
                        refused = Some((status, words.clone()));
                    }
                    (negotiation.rejected(json!({"code": 0, "message": words})), None)
                }
                // Only the first answer is sure to be about what the server knows.
                Err(error) if !negotiation.was_rejected() => return Err(error),
                Err(_) => (negotiation.rejected(Value::Null), None),
            };
            let Verdict::Done(members) = verdict else { continue };
            if intake::is_error(&members) && is_http_error && self.old.get().is_none() {
                if let Some(old) = Old::find(self).await? {
                    let _ = self.old.set(old);
                    negotiation = Negotiation::new(negotiation.into_initialize());
                    continue;
                }
                if let Some((status, words)) = refused.filter(|_| !negotiation.knows_revisions()) {
                    return Err(refusal(status, &words));
                }
            }
            if members.get("result").is_some_and(|result| result["protocolVersion"] == STATELESS) {
                self.link.set_stateless();
            }
            let session = session.filter(|_| !self.link.is_stateless());
            return self.json(&id, Asked::Initialize, members, session);
        }
    }

    fn json(
        &self,
        id: &Value,
        asked: Asked,
        members: Map<String, Value>,
        session: Option<String>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let message = intake::answer(&self.link, id, asked, members);
        let message = message.ok_or_else(|| Fault::once(format!("its answer is none of the protocol; {UNKNOWN}")))?;
        Ok(StreamableHttpPostResponse::Json(message, session))
    }
}

impl StreamableHttpClient for Client {
    type Error = Fault;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let session = session.as_deref();
        let body = serde_json::to_value(&message)?;
        let Some((id, asked)) = Asked::in_message(&message) else {
            // Without a session there is nothing to say: a request is cancelled by the end of its stream.
            if !(self.link.is_stateless() && is_of_session(&message)) {
                self.tell(&body, session, &headers).await?;
            }
            return Ok(StreamableHttpPostResponse::Accepted);
        };
        if asked == Asked::Initialize {
            return self.open(body, &headers).await;
        }
        let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if doubted.is_some() && doubted.as_deref() == session {
            return Err(Failure::SessionExpired);
        }
        let reply = self.ask(&body, &id, session, &headers).await;
        if !matches!(reply, Ok(Reply::Elsewhere)) {
            self.link.answered(Some(&id), false);
        }
        let reply = reply?;
        if let Some(session) = session.filter(|_| !self.link.is_stateless()) {
            let (loss, words) = reply.loss(&id);
            match loss {
                Loss::None => {}
                Loss::Unread => {
                    self.link.explain(&words);
                    return Err(Failure::SessionExpired);
                }
                Loss::Unsure => {
                    *self.doubted.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.to_owned());
                }
            }
        }
        match reply {
            Reply::Answer { members, session: new, status } if status.is_success() => {
                self.json(&id, asked, members, new)
            }
            // The answer is there, whatever the status.
            Reply::Answer { members, session: new, .. } if !intake::is_error(&members) => {
                self.json(&id, asked, members, new)
            }
            Reply::Answer { mut members, status, .. } => {
                let mut error = intake::error(members.remove("error").unwrap_or_default());
                let words = error["message"].as_str().unwrap_or_default().to_owned();
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    return Err(refusal(status, &words));
                }
                error["message"] = format!("HTTP {}: {words}", status.as_u16()).into();
                members.insert("error".into(), error);
                self.json(&id, asked, members, None)
            }
            Reply::Refused { status, words } => Err(refusal(status, &words)),
            Reply::Elsewhere => Ok(StreamableHttpPostResponse::Accepted),
        }
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
        _most: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.post_message(uri, message, session, auth_header, headers).await
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session: Arc<str>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        let headers = self.headers(Some(&session), &headers)?;
        self.send(Method::DELETE, &self.url, &headers, None).await.map(drop)
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _auth_header: Option<String>,
        headers: Headers,
    ) -> Result<Events, Failure> {
        let stream = events::listen(self, session.as_deref(), last_event.as_deref(), &headers).await?;
        Ok(stream.ok_or(Failure::ServerDoesNotSupportSse)?.boxed())
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
        _most: usize,
    ) -> Result<Events, Failure> {
        self.get_stream(uri, session, last_event, auth_header, headers).await
    }
}

/// An address that a server names, without credentials: they would stand in for the configured ones.
pub(super) fn joined(base: &Url, reference: &str) -> Option<Url> {
    let mut url = base.join(reference).ok()?;
    // A URL that cannot have credentials has none.
    let (_, _) = (url.set_username(""), url.set_password(None));
    Some(url)
}

/// The message of an answer's error.
fn error_words(members: &Map<String, Value>) -> &str {
    members.get("error").and_then(|error| error["message"].as_str()).unwrap_or_default()
}

/// Whether a notification has a meaning within a session alone.
fn is_of_session(message: &ClientJsonRpcMessage) -> bool {
    match message {
        JsonRpcMessage::Notification(notification) => matches!(
            notification.notification,
            ClientNotification::InitializedNotification(_) | ClientNotification::CancelledNotification(_)
        ),
        _ => false,
    }
}

/// Counts a stream for as long as it lives.
pub(super) struct Listening(Arc<AtomicUsize>);

impl Listening {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Listening {
        count.fetch_add(1, Ordering::AcqRel);
        Listening(count.clone())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
