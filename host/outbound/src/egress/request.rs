//! What a guest asks for, judged before anything is sent.

use super::address::{is_near, is_opened, is_reachable};
use super::own::Own;
use super::{EgressSettings, Exchange, HttpError, HttpGrant, SecretHeader};
use crate::Proxy;
use crate::pattern::{self, Wish};
use crate::secret::{self, Redactor};
use agentry_defence::Defence;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, request::Parts};
use std::net::IpAddr;
use url::{Host, Position, Url};

/// The longest method, URL and headers of a request together, in bytes.
const MAX_HEAD: usize = 64 * 1_024;

/// A request that may be sent.
#[derive(Debug)]
pub(super) struct Judged {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// As the URL has it.
    pub host: String,
    pub port: u16,
    /// It carries a secret in plain text: only to what the operator opened.
    pub only_opened: bool,
    /// How long the guest says that its body is.
    pub declared: Option<u64>,
    /// The secrets that it carries, to be taken out of the answer.
    pub secrets: Redactor,
}

pub(super) fn judge(
    parts: Parts,
    exact: Option<u64>,
    grant: &HttpGrant,
    settings: &EgressSettings,
    exchange: &Exchange,
    own: &Own,
) -> Result<Judged, HttpError> {
    // Before anything whose cost grows with it.
    check_head(&parts.method, uri_length(&parts.uri), &parts.headers)?;
    let (method, url) = (parts.method, parse(&parts.uri)?);
    // A URL is written longer than it was spelled, where that was not ASCII.
    check_head(&method, url.as_str().len(), &parts.headers)?;
    if pattern::forbidden(method.as_str()) {
        return Err(invalid(format!("{method} is never sent for a plugin")));
    }
    let wish = Wish::new(&method, &url);
    let granted: Vec<_> = grant.requests.iter().filter(|pattern| pattern.allows_wish(&wish)).collect();
    if granted.is_empty() && Defence::HttpGrant.stands() {
        return Err(HttpError::Denied { method: method.to_string(), origin: url.origin().ascii_serialization() });
    }
    let (host, port) = (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default());
    let literal = literal(&url);
    let written = |address: IpAddr| granted.iter().any(|pattern| pattern.opens() == Some(address));
    // hyper asks no resolver about these, so they are judged here.
    let inside = |address| !written(address) && !is_reachable(address, port, &settings.private, own);
    if literal.is_some_and(inside) && Defence::WrittenAddress.stands() {
        return Err(HttpError::ForbiddenAddress { host });
    }
    let mut headers = parts.headers;
    let declared = clean(&mut headers, &url, exact)?;
    if declared.is_some_and(|bytes| bytes > exchange.request_bytes) && Defence::HttpRequestBody.stands() {
        return Err(HttpError::RequestTooLarge { limit: exchange.request_bytes });
    }
    let secrets = add_secrets(&mut headers, &wish, &url, grant)?;
    let only_opened = !secrets.is_empty() && url.scheme() == "http" && Defence::PlainSecret.stands();
    if only_opened && literal.is_some_and(|address| !written(address) && !is_opened(address, port, &settings.private)) {
        return Err(plain_secret(&host));
    }
    if settings.proxy.is_some() {
        // It resolves names: these would be the proxy's own machine, and what others lead to is not known here.
        if is_localhost(&url) && Defence::ResolvedAddress.stands() {
            return Err(HttpError::ForbiddenAddress { host });
        }
        if literal.is_some_and(|address| is_near(address, own)) && Defence::ResolvedAddress.stands() {
            return Err(invalid(format!(
                "{host} is an address of this machine or of its links, and http.proxy would connect to its own; use an address that leads to the same server from there"
            )));
        }
        if only_opened && literal.is_none() {
            return Err(plain_secret(&host));
        }
    }
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("agentry/", env!("CARGO_PKG_VERSION"))));
    // What is sent in plain text is the proxy's to repeat, with its own credentials.
    let of_proxy = settings.proxy.iter().filter(|_| url.scheme() == "http").flat_map(Proxy::secrets);
    let added = secrets.iter().flat_map(|secret| secret::of_header(secret.value.expose()));
    let secrets = Redactor::new(added.chain(of_proxy));
    Ok(Judged { method, url, headers, host, port, only_opened, declared, secrets })
}

/// Rejects a head whose length is beyond the limit.
fn check_head(method: &Method, url: usize, headers: &HeaderMap) -> Result<(), HttpError> {
    let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    if method.as_str().len() + url + headers > MAX_HEAD && Defence::HttpHead.stands() {
        return Err(invalid(format!("its method, URL and headers are longer than {MAX_HEAD} bytes")));
    }
    Ok(())
}

fn uri_length(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    uri.scheme_str().map_or(0, |scheme| scheme.len() + 3) + authority + path
}

fn invalid(reason: impl Into<String>) -> HttpError {
    HttpError::Invalid { reason: reason.into() }
}

/// A secret in plain text goes only where the operator opened the network on purpose.
pub(super) fn plain_secret(host: &str) -> HttpError {
    invalid(format!(
        "a secret header for {host} would be sent in plain text; use https, or the operator opens {host} in http.private"
    ))
}

/// The one place where a URL is read: what is judged is what is sent.
fn parse(uri: &Uri) -> Result<Url, HttpError> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        return Err(invalid("its URL does not begin with http:// or https:// and a host"));
    }
    let url = Url::parse(&uri.to_string()).map_err(|e| invalid(format!("its URL cannot be read: {e}")))?;
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let userinfo = authority.contains('@') || !url.username().is_empty() || url.password().is_some();
    if userinfo && Defence::Userinfo.stands() {
        return Err(invalid("its URL has a user name; credentials are sent in a header"));
    }
    match url.host() {
        Some(Host::Domain(name)) if name.ends_with('.') => Err(invalid("its host ends in a dot; leave it out")),
        Some(_) if url.port() != Some(0) => Ok(url),
        _ => Err(invalid("its URL leads nowhere")),
    }
}

/// Whether a name is that of the machine that resolves it (RFC 6761, section 6.3; hosts files of most systems).
fn is_localhost(url: &Url) -> bool {
    let name = url.domain().unwrap_or_default().trim_end_matches('.');
    ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"].contains(&name)
        || name.ends_with(".localhost")
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Headers that speak of the connection, which is the host's (RFC 9110, section 7.6.1), or of who the message is for. Some are
/// refused rather than dropped, so that nobody relies on them.
fn clean(headers: &mut HeaderMap, url: &Url, exact: Option<u64>) -> Result<Option<u64>, HttpError> {
    let root = format!("{}/", &url[..Position::BeforePath]);
    for value in headers.get_all(header::HOST) {
        // Whoever made the request wrote it as the guest spelled it, which need not be as URLs write it.
        let said = value.to_str().ok().and_then(|said| Url::parse(&format!("{}://{said}/", url.scheme())).ok());
        if said.is_none_or(|said| said.as_str() != root) {
            return Err(invalid("its Host header differs from its URL; leave it out"));
        }
    }
    headers.remove(header::HOST);
    for value in headers.get_all(header::CONNECTION) {
        if !value.as_bytes().eq_ignore_ascii_case(b"keep-alive") && !value.as_bytes().eq_ignore_ascii_case(b"close") {
            return Err(invalid("its Connection header asks for more than keep-alive or close; leave it out"));
        }
    }
    headers.remove(header::CONNECTION);
    let ours = |name: &&HeaderName| of_the_connection(name) || **name == header::EXPECT;
    if let Some(name) = headers.keys().find(ours).filter(|_| Defence::HttpHeaders.stands()) {
        return Err(invalid(format!("the header {name} is the host's to set; leave it out")));
    }
    let declared = declared(headers, exact)?;
    headers.remove(header::CONTENT_LENGTH);
    Ok(declared)
}

/// How long the body is, if anybody says so.
fn declared(headers: &HeaderMap, exact: Option<u64>) -> Result<Option<u64>, HttpError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(said) = lengths.next() else { return Ok(exact) };
    if lengths.next().is_some() {
        return Err(invalid("it has more than one Content-Length; leave them out"));
    }
    // `parse` alone would take a sign.
    let digits = said.to_str().ok().filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
    match digits.and_then(|text| text.parse::<u64>().ok()) {
        Some(said) if exact.is_none_or(|exact| exact == said) => Ok(Some(said)),
        _ => Err(invalid("its Content-Length is not its body's length; leave it out")),
    }
}

/// Whether a header belongs to one connection, in a request or a response.
pub(super) fn of_the_connection(name: &HeaderName) -> bool {
    let names = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"];
    names.contains(&name.as_str()) || name.as_str().starts_with("proxy-")
}

/// What was added is answered.
fn add_secrets<'g>(
    headers: &mut HeaderMap,
    wish: &Wish<'_>,
    url: &Url,
    grant: &'g HttpGrant,
) -> Result<Vec<&'g SecretHeader>, HttpError> {
    let mut added: Vec<&SecretHeader> = Vec::new();
    let meant = |secret: &&SecretHeader| secret.requests.allows_wish(wish) || !Defence::SecretOrigin.stands();
    for secret in grant.secrets.iter().filter(meant) {
        let name = &secret.name;
        if added.iter().any(|other| other.name == *name) {
            return Err(invalid(format!("two secrets of the operator's are for its header {name}")));
        }
        if headers.contains_key(name) {
            return Err(invalid(format!(
                "its header {name} is the host's to set for {}; leave it out",
                url.authority()
            )));
        }
        let mut value = HeaderValue::from_str(secret.value.expose())
            .map_err(|_| invalid(format!("the operator's value of the header {name} cannot be sent")))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        added.push(secret);
    }
    Ok(added)
}
