//! HTTP requests on a guest's behalf. One way out: a URL is parsed once, its name resolved once, every address judged, and the
//! connection made to exactly those; no redirects, no proxies but the operator's, no decompression, and a deadline at every stage.
//!
//! In the order in which an exchange meets them:
//!
//! | rule | from | where |
//! |---|---|---|
//! | http or https, no user name, no `CONNECT` or `TRACE`; read once, and sent as it was read | URL Standard; RFC 9110, 9.3 | `request` |
//! | the method, host, port and path are granted | `crate::pattern` | `request` |
//! | an address as the host is global and not this host's, or the operator's | IANA's registries; RFC 6890 | `address`, `own` |
//! | no header of the connection's; `Host` and `Content-Length` fit, or are not there | RFC 9110, 7.6.1; RFC 9112, 6 and 11.2 | `request` |
//! | secrets are the host's to add; in plain text only to what the operator opened | | `request` |
//! | a name's addresses are judged, and only those connected to that passed | | `resolve` |
//! | resolving, connecting and TLS together, the head, each piece of a body, and the whole have their time | | `stages`, `body` |
//! | TLS 1.2 or newer, with the system's authorities and the operator's | RFC 8446; RFC 9525 | `tls` |
//! | bodies are counted as they pass, still compressed | | `body` |
//! | secrets that a server sends back are covered | | `mask` |
//! | what goes wrong is told without addresses and queries | | `failure` |
//!
//! A name that resolves to good and bad addresses is connected to the good ones. It is resolved anew for each connection, so an
//! answer that changes is judged anew; a connection that is kept goes where it went. The guest's headers of the response are all but
//! the connection's; a 3xx is an answer like any other.
//!
//! HTTP/2 is spoken where a server offers it with TLS (ALPN), since providers do and many requests then share one connection; never
//! in plain text, where nothing is offered. A connection is for one name and port: what RFC 9113, 9.1.1 allows, to use it for
//! another name of its certificate, is not done, so that no name goes unjudged. What is dropped ends its stream, and no more.
//!
//! With a proxy of the operator's (`http.proxy`) the proxy resolves names and makes connections. Patterns hold, and so do the rules
//! for an address as the host and for `localhost`, which would be the proxy's. What other names lead to is for the proxy to judge. A
//! secret in plain text then goes to an address that the operator opened alone, never to a name.
//!
//! Not defended: a server that is granted and sends back a secret in a spelling that is not looked for (compressed, say); a NAT64 prefix of the operator's own
//! network, which is not known here (RFC 7050); a public address that the operator's own router leads inward, to this host or another.
//!
//! reqwest rather than hyper alone: the pool, HTTP/2 and TLS are the same as in the rest of the host, and its resolver, connector and
//! TLS are ours to give.

mod address;
mod body;
mod client;
mod failure;
mod mask;
mod own;
mod request;
mod resolve;
mod stages;

pub use client::{Client, Egress};

use crate::pattern::UrlPattern;
use crate::{Proxy, Secret};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// A request's body; its length is counted while it passes.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// A response's body: ends with an error when it is too long, too slow, or broken off.
pub type ResponseBody = UnsyncBoxBody<Bytes, HttpError>;

/// What holds for every plugin: the operator's `[http]`.
#[derive(Clone, Debug)]
pub struct EgressSettings {
    /// Who resolves names; empty: the system.
    pub nameservers: Vec<SocketAddr>,
    /// Networks that are not global, or this host's own, and may be reached all the same, each for one port or all.
    pub private: Vec<PrivateNetwork>,
    /// The proxy that all requests go through; `None`: they go directly.
    pub proxy: Option<Proxy>,
    /// Certificate authorities in addition to the system's: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// To a connection, TLS included.
    pub connect: Duration,
    /// From the request to the response's head.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// The whole exchange.
    pub total: Duration,
}

/// Addresses that the operator opens on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateNetwork {
    /// Which.
    pub network: ipnet::IpNet,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// A header that the host puts into requests to named hosts. The guest never sees its value, and cannot set it itself.
#[derive(Clone, Debug)]
pub struct SecretHeader {
    /// Which requests get it.
    pub requests: UrlPattern,
    /// The header's name.
    pub name: http::HeaderName,
    /// Its value.
    pub value: Secret,
}

/// What one plugin may do.
#[derive(Clone, Debug, Default)]
pub struct HttpGrant {
    /// The requests that were granted.
    pub requests: Vec<UrlPattern>,
    /// Which of the operator's secret headers are for this plugin.
    pub secrets: Vec<SecretHeader>,
}

/// What holds for one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When it is over, whatever happens.
    pub until: Instant,
    /// What the guest wishes; the shorter of it and the operator's holds.
    pub connect: Option<Duration>,
    /// Likewise.
    pub first_byte: Option<Duration>,
    /// Likewise.
    pub between_bytes: Option<Duration>,
    /// The most that the request's body may have, in bytes.
    pub request_bytes: u64,
    /// The most that the response's body may have, in bytes.
    pub response_bytes: u64,
}

/// Why there is no response, or not all of it. Holds no secret, and no address that the guest did not name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts say they are")]
pub enum HttpError {
    #[error(
        "{method} {origin} is not granted; ask for it in plugin.toml under [capabilities]: http = [\"{method} {origin}\"]"
    )]
    Denied { method: String, origin: String },
    #[error("{host} leads to an address that plugins may not reach; the operator can open it in http.private")]
    ForbiddenAddress { host: String },
    #[error("the request is not valid: {reason}")]
    Invalid { reason: String },
    #[error("{host} has no address: {reason}")]
    Dns { host: String, reason: String },
    #[error("{host} cannot be connected to: {reason}")]
    Connect { host: String, reason: String },
    #[error("TLS with {host} failed: {reason}")]
    Tls { host: String, reason: String },
    #[error("no {stage} within {limit:?}")]
    TimedOut { stage: Stage, limit: Duration },
    #[error("the request's body is longer than {limit} bytes")]
    RequestTooLarge { limit: u64 },
    #[error("the response's body is longer than {limit} bytes")]
    ResponseTooLarge { limit: u64 },
    #[error("the response's head is too large")]
    HeadTooLarge,
    #[error("the connection broke: {reason}")]
    Broken { reason: String },
}

/// Where an exchange was when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its name says")]
pub enum Stage {
    Resolve,
    Connect,
    FirstByte,
    Body,
    Total,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Resolve => "address",
            Stage::Connect => "connection",
            Stage::FirstByte => "response",
            Stage::Body => "further bytes",
            Stage::Total => "end",
        })
    }
}

/// Why the settings cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("set up HTTP for plugins: {0}")]
pub struct EgressError(pub String);
