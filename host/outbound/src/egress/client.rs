//! Sends.

use super::body::{Bounds, Fault, Incoming, Outgoing};
use super::failure::Way;
use super::mask::{self, Masked};
use super::own::Own;
use super::request::{Judged, judge, of_the_connection};
use super::resolve::{Guard, Names, OfProxy};
use super::stages::{Passage, Watched, later};
use super::{
    EgressError, EgressSettings, Exchange, HttpError, HttpGrant, PrivateNetwork, RequestBody, ResponseBody, Stage,
    failure,
};
use crate::tls;
use agentry_defence::Defence;
use http::{Method, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use rustls::client::Resumption;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Connections that a plugin keeps to one host when it does not use them, and for how long.
const IDLE_CONNECTIONS: usize = 4;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// The most bytes of a response's headers over HTTP/2, as RFC 9113 counts them. Over HTTP/1.1 hyper reads at most 100 headers and 400 KiB.
const MAX_HEADER_LIST: u32 = 64 * 1_024;
/// TLS sessions that a plugin may take up again.
const TLS_SESSIONS: usize = 64;

/// The way out. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    settings: Arc<EgressSettings>,
    private: Arc<[PrivateNetwork]>,
    names: Names,
    own: Arc<Own>,
    tls: rustls::ClientConfig,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One plugin's way out: connections are never shared with another plugin, whose grants may differ. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    settings: Arc<EgressSettings>,
    own: Arc<Own>,
    grant: Arc<HttpGrant>,
    http: Result<reqwest::Client, HttpError>,
    /// Its connections lead only to what the operator opened, so that no secret goes over another one in plain text.
    opened: Result<reqwest::Client, HttpError>,
}

impl Egress {
    /// Sets it up.
    ///
    /// # Errors
    /// A certificate file that cannot be read; nameservers that cannot be used; a system that does not list its addresses.
    pub fn new(settings: EgressSettings) -> Result<Egress, EgressError> {
        if let Some(proxy) = &settings.proxy {
            proxy.of_client().map_err(|reason| EgressError(format!("http.proxy: {reason}")))?;
        }
        let egress = Egress {
            names: Names::new(&settings)?,
            own: Own::new()?.into(),
            tls: tls_config(settings.ca_file.as_deref())?,
            private: settings.private.clone().into(),
            settings: settings.into(),
        };
        Ok(egress)
    }

    /// For one plugin.
    pub fn client(&self, grant: HttpGrant) -> Client {
        let (settings, grant) = (self.settings.clone(), Arc::new(grant));
        Client { settings, own: self.own.clone(), grant, http: self.http(), opened: self.http() }
    }

    /// A client with connections of its own.
    fn http(&self) -> Result<reqwest::Client, HttpError> {
        let mut tls = self.tls.clone();
        tls.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connector_layer(Watched)
            // Only for attempts that nobody waits for any more; the exchange's own limit is shorter.
            .connect_timeout(match Defence::HttpConnectTime.stands() {
                true => self.settings.connect.saturating_add(Duration::from_secs(1)),
                false => self.settings.total,
            })
            .redirect(match Defence::Redirects.stands() {
                true => reqwest::redirect::Policy::none(),
                false => reqwest::redirect::Policy::default(),
            })
            .retry(reqwest::retry::never())
            .referer(false)
            // Also if another crate of the build turns these features on.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_CONNECTION);
        let broken = |_| HttpError::Broken { reason: "the HTTP client cannot be set up".into() };
        let builder = match &self.settings.proxy {
            Some(proxy) => {
                let through = proxy.of_client().map_err(|reason| HttpError::Broken { reason })?;
                builder.dns_resolver(OfProxy::new(proxy)).proxy(through)
            }
            None => {
                let guard = Guard::new(self.names.clone(), self.private.clone(), self.own.clone());
                builder.dns_resolver(guard).no_proxy()
            }
        };
        // With TLS and the resolver given there is nothing left that can fail.
        builder.build().map_err(broken)
    }
}

/// What every client begins with. That nobody is trusted is no error, since plugins may need no TLS at all; it is said.
fn tls_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, EgressError> {
    let roots = tls::roots(ca_file, true).map_err(|reason| EgressError(format!("http.ca_file {reason}")))?;
    if roots.is_empty() {
        tracing::warn!(
            "the system has no certificate authorities; plugins reach no https server; name some in http.ca_file"
        );
    }
    tls::client(roots).map_err(EgressError)
}

impl Client {
    /// Sends a request, and answers when the response's head is there. Dropping the future, or the body, ends the exchange.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn send(
        &self,
        request: http::Request<RequestBody>,
        exchange: Exchange,
    ) -> Result<http::Response<ResponseBody>, HttpError> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let judged = judge(parts, body.size_hint().exact(), &self.grant, &self.settings, &exchange, &self.own)?;
        let limits = Limits::new(&self.settings, &exchange, began);
        if limits.total.is_zero() {
            return Err(limits.over());
        }
        let passage = Passage::new(judged.port, judged.only_opened);
        let http = if judged.only_opened { self.opened.clone()? } else { self.http.clone()? };
        let way = match (&self.settings.proxy, judged.url.scheme()) {
            (None, _) => Way::Direct,
            (Some(_), "https") => Way::Tunnel,
            (Some(_), _) => Way::Handed,
        };
        let (method, host, fault) = (judged.method.clone(), judged.host.clone(), Fault::default());
        let secrets = judged.secrets.clone();
        let mut body = Outgoing::new(body, exchange.request_bytes, judged.declared, fault.clone());
        // hyper frames no body of an unknown length here, and would lose it without a word.
        let unframed = matches!(method, Method::GET | Method::HEAD) && judged.declared.is_none();
        let exchanged = async {
            if unframed {
                body.ends_empty().await?;
            }
            let response = http.execute(assembled(judged, body)).await;
            response.map_err(|error| fault.get().cloned().unwrap_or_else(|| failure::of(&error, &host, way)))
        };
        let response = tokio::select! {
            biased;
            response = passage.cover(exchanged) => response?,
            overdue = passage.overdue(began, limits.connect, limits.first_byte) => return Err(overdue),
            () = sleep_until(limits.end) => return Err(limits.over()),
        };
        // Only a proxy says so (RFC 9110, section 15.5.8).
        if way == Way::Handed && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(failure::of_proxy(&host, "it wants other credentials (407)"));
        }
        let answer = received(response, &method, &limits, exchange.response_bytes, host, fault)?;
        if secrets.is_idle() || !Defence::HttpMask.stands() {
            return Ok(answer.map(BodyExt::boxed_unsync));
        }
        let (mut head, body) = answer.into_parts();
        mask::headers(&secrets, &mut head.headers);
        Ok(http::Response::from_parts(head, Masked::new(body, secrets).boxed_unsync()))
    }
}

/// What holds for one exchange: the shorter of the guest's wish and the operator's limit.
struct Limits {
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
    total: Duration,
    end: Instant,
}

impl Limits {
    fn new(settings: &EgressSettings, exchange: &Exchange, began: Instant) -> Limits {
        let shorter = |defence: Defence, own: Duration, wish: Option<Duration>| match defence.stands() {
            true => wish.map_or(own, |wish| wish.min(own)),
            false => Duration::MAX,
        };
        let until = exchange.until.saturating_duration_since(began);
        let total = shorter(Defence::HttpTotalTime, settings.total, None).min(until);
        Limits {
            connect: shorter(Defence::HttpConnectTime, settings.connect, exchange.connect),
            first_byte: shorter(Defence::HttpFirstByteTime, settings.first_byte, exchange.first_byte),
            idle: shorter(Defence::HttpIdleTime, settings.idle, exchange.between_bytes),
            total,
            end: later(began, total),
        }
    }

    fn over(&self) -> HttpError {
        HttpError::TimedOut { stage: Stage::Total, limit: self.total }
    }
}

fn assembled(judged: Judged, body: Outgoing) -> reqwest::Request {
    let mut request = reqwest::Request::new(judged.method, judged.url);
    *request.headers_mut() = judged.headers;
    if !body.is_end_stream() {
        *request.body_mut() = Some(reqwest::Body::wrap(body));
    }
    request
}

fn received(
    response: reqwest::Response,
    method: &Method,
    limits: &Limits,
    bytes: u64,
    host: String,
    fault: Fault,
) -> Result<http::Response<Incoming>, HttpError> {
    let (head, body) = http::Response::from(response).into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HttpError::Broken { reason: "the server switched to another protocol, unasked".into() });
    }
    // These have the length of a body that does not come.
    let bodiless = *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless && body.size_hint().lower() > bytes && Defence::HttpResponseBody.stands() {
        return Err(HttpError::ResponseTooLarge { limit: bytes });
    }
    let bounds = Bounds { bytes, idle: limits.idle, end: limits.end, total: limits.total };
    let mut answer = http::Response::new(Incoming::new(body, bounds, host, fault));
    // Not its extensions: they hold the server's address.
    *answer.status_mut() = head.status;
    *answer.version_mut() = head.version;
    *answer.headers_mut() = head.headers;
    strip(answer.headers_mut());
    Ok(answer)
}

/// Removes what was about the connection: what the standard lists, and what `Connection` names (RFC 9110, section 7.6.1).
fn strip(headers: &mut http::HeaderMap) {
    let named =
        headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let named: Vec<String> = named.map(|name| name.trim().to_ascii_lowercase()).collect();
    let gone = |name: &&header::HeaderName| of_the_connection(name) || named.iter().any(|one| one == name.as_str());
    for name in headers.keys().filter(gone).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}
