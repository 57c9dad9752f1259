//! The protocol over streamable HTTP: rmcp's transport over a client of ours, which goes nowhere but to the configured address.

use super::link::{Link, is_answer, redact};
use super::words::causes;
use crate::{Proxy, Secret, proxy, tls};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use rmcp::RoleClient;
use rmcp::model::ClientJsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, InsufficientScopeError, SseError, StreamableHttpClient, StreamableHttpClientTransport,
    StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the protocol and HTTP set themselves.
const RESERVED: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];
/// How often a stream that broke is taken up again, before it counts as lost.
const RESUMES: usize = 5;
/// The longest wait before one is.
const RESUME_DELAY: Duration = Duration::from_secs(8);
/// How many requests one session may have under way.
const IN_FLIGHT: usize = 64;

/// Where a server is, and how it is spoken to.
pub(super) struct Endpoint {
    client: reqwest::Client,
    is_proxied: bool,
    /// With its query, which may hold a key: never shown.
    url: Arc<str>,
}

impl Endpoint {
    /// Checks what is needed to connect, and connects to nothing.
    pub(super) fn new(
        url: &url::Url,
        headers: &BTreeMap<String, Secret>,
        (proxy, ca_file): (Option<&Proxy>, Option<&Path>),
        connect: Duration,
    ) -> Result<Endpoint, (&'static str, String)> {
        let headers = headers.iter().map(|(name, value)| header(name, value));
        let headers = headers.collect::<Result<http::HeaderMap, String>>().map_err(|reason| ("headers", reason))?;
        let is_https = url.scheme() == "https" || proxy.is_some_and(Proxy::is_tls);
        let builder = match proxy {
            Some(proxy) => reqwest::Client::builder().proxy(proxy.of_client().map_err(|reason| ("proxy", reason))?),
            None => reqwest::Client::builder().no_proxy(),
        };
        let client = builder
            .tls_backend_preconfigured(tls::client_of(is_https, ca_file).map_err(|reason| ("ca_file", reason))?)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect)
            .build()
            .map_err(|error| ("url", format!("no client can be made for it: {}", error.without_url())))?;
        Ok(Endpoint { client, is_proxied: proxy.is_some(), url: url.as_str().into() })
    }

    /// A connection that begins with the first message. An event of more than `most` bytes breaks its stream.
    pub(super) fn transport(&self, link: Arc<Link>, most: usize) -> HttpTransport {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.clone())
            .max_concurrent_requests(IN_FLIGHT)
            .max_sse_event_size(most);
        let mut resume = ExponentialBackoff::default();
        resume.max_times = Some(RESUMES);
        resume.max_delay = Some(RESUME_DELAY);
        config.retry_config = Arc::new(resume);
        let client = Client { inner: self.client.clone(), is_proxied: self.is_proxied, link: link.clone() };
        HttpTransport { inner: StreamableHttpClientTransport::with_client(client, config), link }
    }
}

fn header(name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue), String> {
    let header: HeaderName = name.parse().map_err(|_| format!("{name:?} cannot be a header's name"))?;
    if RESERVED.contains(&header.as_str()) {
        return Err(format!("{name:?} is set by the protocol itself; leave it out"));
    }
    let mut value = HeaderValue::from_str(value.expose())
        .map_err(|_| format!("the value of {name:?} cannot be sent: it has a line end or another control character"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

/// rmcp's transport, and the end of the session where it ends.
pub(super) struct HttpTransport {
    inner: StreamableHttpClientTransport<Client>,
    link: Arc<Link>,
}

impl Transport<RoleClient> for HttpTransport {
    type Error = <StreamableHttpClientTransport<Client> as Transport<RoleClient>>::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (answer, link) = (is_answer(&item), self.link.clone());
        let sending = Transport::<RoleClient>::send(&mut self.inner, item);
        async move {
            sending.await?;
            link.sent(answer);
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = tokio::select! {
                biased;
                message = Transport::<RoleClient>::receive(&mut self.inner) => message,
                () = self.link.ended() => None,
            };
            let Some(message) = message else {
                self.link.end("it broke the connection");
                return None;
            };
            if self.link.welcomes(&message) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.link.end("it was closed");
        Transport::<RoleClient>::close(&mut self.inner).await
    }
}

/// reqwest's client as rmcp speaks to it. What comes back passes here before rmcp sees (and may log) it, and leaves its
/// credentials and addresses.
#[derive(Clone)]
pub(super) struct Client {
    inner: reqwest::Client,
    is_proxied: bool,
    link: Arc<Link>,
}

/// No answer came. A guest may read it: it has no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoAnswer(&'static str);

/// What rmcp is told of a request that failed.
pub(super) type Failure = StreamableHttpError<NoAnswer>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type Headers = HashMap<HeaderName, HeaderValue>;

impl NoAnswer {
    fn new(error: &reqwest::Error, is_proxied: bool) -> NoAnswer {
        NoAnswer(match () {
            () if is_proxied && proxy::failure(error).is_some() => {
                "its proxy does not connect to it; see tools.NAME.proxy"
            }
            () if error.is_timeout() => "it took too long to be reached",
            () if is_proxied && error.is_connect() => "it cannot be reached through its proxy; see tools.NAME.proxy",
            () if error.is_connect() => "it cannot be reached",
            () => "it broke the connection",
        })
    }
}

/// What a guest may read of a transport's error.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Client(error)) => error.to_string(),
        Some(Failure::HttpStatus(error)) => format!("it answered {error}"),
        Some(Failure::AuthRequired(_)) => "it wants other credentials".to_owned(),
        Some(Failure::InsufficientScope(_)) => "its credentials do not allow this".to_owned(),
        Some(Failure::UnexpectedContentType(kind)) => {
            format!(
                "it answered with the content type {:?}, which is none of the protocol",
                kind.as_deref().unwrap_or("")
            )
        }
        Some(Failure::UnexpectedServerResponse(words)) => format!("its answer is none of the protocol: {words}"),
        _ => causes(error),
    }
}

impl Client {
    fn error(&self, error: StreamableHttpError<reqwest::Error>) -> Failure {
        type From = StreamableHttpError<reqwest::Error>;
        let redactor = self.link.redactor();
        match error {
            From::Client(error) => {
                let told = NoAnswer::new(&error, self.is_proxied);
                // An address has a query, and a query may have a key.
                self.link.explain(&causes(&error.without_url()));
                Failure::Client(told)
            }
            From::Sse(error) => Failure::Sse(error),
            From::Io(error) => Failure::Io(error),
            From::HttpStatus(error) => Failure::HttpStatus(error),
            From::ResponseBodyTooLarge { max_size } => Failure::ResponseBodyTooLarge { max_size },
            From::UnexpectedContentType(kind) => {
                Failure::UnexpectedContentType(kind.map(|kind| redactor.reason(&kind)))
            }
            From::ServerDoesNotSupportSse => Failure::ServerDoesNotSupportSse,
            From::ServerDoesNotSupportDeleteSession => Failure::ServerDoesNotSupportDeleteSession,
            From::AuthRequired(error) => {
                Failure::AuthRequired(AuthRequiredError::new(redactor.reason(&error.www_authenticate_header)))
            }
            From::InsufficientScope(error) => Failure::InsufficientScope(InsufficientScopeError::new(
                redactor.reason(&error.www_authenticate_header),
                None,
            )),
            From::SessionExpired => Failure::SessionExpired,
            From::UnexpectedServerResponse(words) => Failure::UnexpectedServerResponse(redactor.reason(&words).into()),
            error => Failure::UnexpectedServerResponse(redactor.reason(&error.to_string()).into()),
        }
    }

    fn answer(&self, answer: StreamableHttpPostResponse) -> Result<StreamableHttpPostResponse, Failure> {
        match answer {
            StreamableHttpPostResponse::Json(message, session) if !self.link.redactor().is_idle() => {
                let mut value = serde_json::to_value(message)?;
                redact(self.link.redactor(), &mut value);
                Ok(StreamableHttpPostResponse::Json(serde_json::from_value(value)?, session))
            }
            StreamableHttpPostResponse::Sse(events, session) => {
                Ok(StreamableHttpPostResponse::Sse(self.events(events), session))
            }
            answer => Ok(answer),
        }
    }

    fn events(&self, events: Events) -> Events {
        if self.link.redactor().is_idle() {
            return events;
        }
        let redactor = self.link.redactor().clone();
        events
            .map(move |event| {
                event.map(|mut event| {
                    event.data = event.data.map(|data| match serde_json::from_str(&data) {
                        Ok(mut value) => {
                            redact(&redactor, &mut value);
                            value.to_string()
                        }
                        Err(_) => redactor.text(&data),
                    });
                    event
                })
            })
            .boxed()
    }
}

impl StreamableHttpClient for Client {
    type Error = NoAnswer;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let answer = self.inner.post_message(uri, message, session_id, auth_header, custom_headers).await;
        self.answer(answer.map_err(|error| self.error(error))?)
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        most: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let answer = self
            .inner
            .post_message_with_max_sse_event_size(uri, message, session_id, auth_header, custom_headers, most)
            .await;
        self.answer(answer.map_err(|error| self.error(error))?)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), Failure> {
        let deleted = self.inner.delete_session(uri, session_id, auth_header, custom_headers).await;
        deleted.map_err(|error| self.error(error))
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<Events, Failure> {
        let events = self.inner.get_stream(uri, session_id, last_event_id, auth_header, custom_headers).await;
        Ok(self.events(events.map_err(|error| self.error(error))?))
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        most: usize,
    ) -> Result<Events, Failure> {
        let events = self
            .inner
            .get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, custom_headers, most)
            .await;
        Ok(self.events(events.map_err(|error| self.error(error))?))
    }
}
