//! The protocol over streamable HTTP: rmcp's transport over a client of ours ([`client`]), which never leaves the configured origin.

mod client;
mod events;
mod fault;
mod old;
mod read;
mod sse;

pub(super) use fault::{Failure, words};

use super::link::{Link, is_answer};
use crate::{Proxy, Secret, tls};
use client::Client;
use events::{LONGEST_DELAY, RESUMES};
use http::{HeaderName, HeaderValue};
use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Headers that the protocol and HTTP set themselves.
const RESERVED: [&str; 10] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];
/// How many requests one session may have under way.
const IN_FLIGHT: usize = 64;
/// How many messages that answer nothing may wait to be read.
const OTHERS: usize = 64;

/// Where a server is, and how it is spoken to.
pub(super) struct Endpoint {
    client: reqwest::Client,
    is_proxied: bool,
    /// With its query, which may hold a key: never shown.
    url: url::Url,
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
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(connect)
            .build()
            .map_err(|error| ("url", format!("no client can be made for it: {}", error.without_url())))?;
        Ok(Endpoint { client, is_proxied: proxy.is_some(), url: url.clone() })
    }

    /// A connection that begins with the first message. An event of more than `most` bytes breaks its stream.
    pub(super) fn transport(&self, link: Arc<Link>, most: usize) -> HttpTransport {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .max_concurrent_requests(IN_FLIGHT)
            .max_sse_event_size(most);
        let mut resume = ExponentialBackoff::default();
        resume.max_times = Some(RESUMES);
        resume.max_delay = Some(LONGEST_DELAY);
        config.retry_config = Arc::new(resume);
        let (sender, others) = mpsc::channel(OTHERS);
        let client = Client {
            inner: self.client.clone(),
            is_proxied: self.is_proxied,
            url: self.url.clone(),
            link: link.clone(),
            others: sender,
            most,
            listening: Arc::default(),
            old: Arc::default(),
            doubted: Arc::default(),
        };
        HttpTransport { inner: StreamableHttpClientTransport::with_client(client, config), others, link }
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
    /// Messages that came on the way to an answer, or unasked.
    others: mpsc::Receiver<RxJsonRpcMessage<RoleClient>>,
    link: Arc<Link>,
}

impl Transport<RoleClient> for HttpTransport {
    type Error = <StreamableHttpClientTransport<Client> as Transport<RoleClient>>::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (answer, link) = (is_answer(&item), self.link.clone());
        link.sends(&item);
        let sending = Transport::<RoleClient>::send(&mut self.inner, item);
        async move {
            sending.await?;
            link.sent(answer);
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = tokio::select! {
            biased;
            Some(message) = self.others.recv() => return Some(message),
            message = Transport::<RoleClient>::receive(&mut self.inner) => message,
            () = self.link.ended() => None,
        };
        if message.is_none() {
            self.link.end("it broke the connection");
        }
        message
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.link.end("it was closed");
        Transport::<RoleClient>::close(&mut self.inner).await
    }
}
