//! Names to addresses: once for each connection, every address judged, and only those that passed handed on.

use super::address::{is_opened, is_reachable};
use super::own::Own;
use super::stages::Passage;
use super::{EgressError, EgressSettings, HttpError, PrivateNetwork};
use crate::Proxy;
use agentry_defence::Defence;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// The most names that one plugin asks the system for at once: each takes a thread until the system answers, and nothing stops it.
const SYSTEM_LOOKUPS: usize = 8;

/// Who resolves names.
#[derive(Clone)]
pub(super) enum Names {
    System,
    Servers(Arc<TokioResolver>),
}

impl Names {
    /// Asks exactly the servers that are named, without the system's search domains and its file of hosts; without any, the system.
    pub fn new(settings: &EgressSettings) -> Result<Names, EgressError> {
        if settings.nameservers.is_empty() {
            return Ok(Names::System);
        }
        let mut config = ResolverConfig::default();
        for server in &settings.nameservers {
            let on_its_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(on_its_port).to_vec();
            config.add_name_server(NameServerConfig::new(server.ip(), true, connections));
        }
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // What a name means is asked anew for each connection; connections are kept, so this is no burden.
        options.cache_size = 0;
        let resolver =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        let resolver = resolver.build().map_err(|e| EgressError(format!("http.nameservers: {e}")))?;
        Ok(Names::Servers(Arc::new(resolver)))
    }

    async fn addresses(&self, name: &str, lookups: Arc<Semaphore>) -> Result<Vec<IpAddr>, String> {
        match self {
            Names::System => system(name.to_owned(), lookups).await,
            Names::Servers(resolver) => {
                let mut fully = Name::from_ascii(name).map_err(|_| "it is not a name of DNS")?;
                fully.set_fqdn(true);
                let found = resolver.lookup_ip(fully).await.map_err(|e| told(&e))?;
                Ok(found.iter().collect())
            }
        }
    }
}

async fn system(name: String, lookups: Arc<Semaphore>) -> Result<Vec<IpAddr>, String> {
    let permit = lookups.acquire_owned().await.map_err(|_| "the client is gone")?;
    // A task of its own: whoever waits may give up, and the thread is busy all the same.
    let lookup = tokio::spawn(async move {
        let _permit = permit;
        tokio::net::lookup_host((name, 0)).await.map(|found| found.map(|address| address.ip()).collect())
    });
    match lookup.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the lookup was abandoned".into()),
    }
}

/// In words that do not name the servers.
fn told(error: &NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name".into()
    } else if error.is_no_records_found() {
        "the name has no address".into()
    } else if matches!(error, NetError::Timeout) {
        "the name servers do not answer".into()
    } else {
        "the name servers give no usable answer".into()
    }
}

/// What reqwest asks. Answers addresses that may be reached, and an [`HttpError`] if there is none.
pub(super) struct Guard {
    names: Names,
    private: Arc<[PrivateNetwork]>,
    own: Arc<Own>,
    lookups: Arc<Semaphore>,
}

impl Guard {
    pub fn new(names: Names, private: Arc<[PrivateNetwork]>, own: Arc<Own>) -> Guard {
        Guard { names, private, own, lookups: Arc::new(Semaphore::new(SYSTEM_LOOKUPS)) }
    }
}

impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (names, private, lookups) = (self.names.clone(), self.private.clone(), self.lookups.clone());
        let (own, passage) = (self.own.clone(), Passage::current());
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let Some(passage) = passage else {
                return Err(HttpError::Dns { host, reason: "asked by no exchange".into() }.into());
            };
            passage.resolving();
            let again = lookups.clone();
            let found = names.addresses(&host, lookups).await;
            let found = found.map_err(|reason| HttpError::Dns { host: host.clone(), reason })?;
            let mut good = judged(&host, found, &passage, (&private, &own))?;
            // Never in what is shipped: as if the connector asked for itself, after the judge.
            if !Defence::LookedUpOnce.stands() {
                let again = names.addresses(&host, again).await.unwrap_or_default();
                good = again.into_iter().map(|address| SocketAddr::new(address, passage.port)).collect();
            }
            passage.connecting();
            Ok(Box::new(good.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Resolver for a client whose connections all lead to the operator's proxy: only its name is resolved, by the system, and its
/// addresses are not judged.
pub(super) struct OfProxy {
    name: Option<String>,
    lookups: Arc<Semaphore>,
}

impl OfProxy {
    pub fn new(proxy: &Proxy) -> OfProxy {
        OfProxy { name: proxy.name().map(str::to_owned), lookups: Arc::new(Semaphore::new(SYSTEM_LOOKUPS)) }
    }
}

impl reqwest::dns::Resolve for OfProxy {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let is_its = self.name.as_deref() == Some(name.as_str());
        let (name, lookups, passage) = (name.as_str().to_owned(), self.lookups.clone(), Passage::current());
        Box::pin(async move {
            let Some(passage) = passage.filter(|_| is_its) else {
                return Err(HttpError::Dns { host: name, reason: "asked past the proxy".into() }.into());
            };
            passage.resolving();
            // Without the name: a guest may read it.
            let found = system(name, lookups).await.map_err(|_| "its name has no address")?;
            passage.connecting();
            // Port 0 is replaced with that of the proxy's address.
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as reqwest::dns::Addrs)
        })
    }
}

/// Those that may be reached. A name with both kinds keeps the good ones: that is what a name server at the edge of two networks
/// answers, and a connection to the others is never made.
fn judged(
    host: &str,
    found: Vec<IpAddr>,
    passage: &Passage,
    (private, own): (&[PrivateNetwork], &Own),
) -> Result<Vec<SocketAddr>, HttpError> {
    let host = host.to_owned();
    if found.is_empty() {
        return Err(HttpError::Dns { host, reason: "the name has no address".into() });
    }
    let port = passage.port;
    let mut good: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| is_reachable(*address, port, private, own) || !Defence::ResolvedAddress.stands())
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if good.is_empty() {
        return Err(HttpError::ForbiddenAddress { host });
    }
    if passage.only_opened {
        good.retain(|address| is_opened(address.ip(), port, private));
        if good.is_empty() {
            return Err(super::request::plain_secret(&host));
        }
    }
    good.truncate(MAX_ADDRESSES);
    Ok(good)
}
