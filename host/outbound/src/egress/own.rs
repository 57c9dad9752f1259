//! The addresses of this host's interfaces. A global one is as near as loopback: what listens on it may trust whoever comes from
//! here, and a firewall before the host does not see the connection.

use super::EgressError;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old the list of addresses gets: one that is added is refused no later.
const FRESH: Duration = Duration::from_secs(5);

/// The addresses of this host.
#[derive(Debug)]
pub(super) struct Own(Mutex<Known>);

#[derive(Debug)]
struct Known {
    addresses: BTreeSet<IpAddr>,
    /// When they were listed; `None`: they are not listed again.
    at: Option<Instant>,
}

impl Own {
    /// Lists them.
    ///
    /// # Errors
    /// The system does not list them.
    pub fn new() -> Result<Own, EgressError> {
        let addresses = list().map_err(|error| EgressError(format!("the addresses of this host: {error}")))?;
        Ok(Own(Mutex::new(Known { addresses, at: Some(Instant::now()) })))
    }

    /// Whether an address is one of them, as it is written or as the IPv4 address that it is another spelling of.
    pub fn has(&self, address: IpAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at.is_some_and(|at| at.elapsed() >= FRESH) {
            known.at = Some(Instant::now());
            match list() {
                Ok(addresses) => known.addresses = addresses,
                Err(error) => tracing::warn!(%error, "cannot list the addresses of this host; using the last list"),
            }
        }
        known.addresses.contains(&address.to_canonical())
    }

    /// These, for a test.
    #[cfg(test)]
    pub fn of(addresses: &[&str]) -> Own {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Own(Mutex::new(Known { addresses, at: None }))
    }
}

fn list() -> std::io::Result<BTreeSet<IpAddr>> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_are_listed_again_when_they_are_old() {
        let own = Own::new().unwrap();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(own.has(loopback) && own.has("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!own.has("192.0.2.1".parse().unwrap()));
        let long_ago = Instant::now().checked_sub(FRESH).unwrap();
        *own.0.lock().unwrap() = Known { addresses: BTreeSet::new(), at: Some(long_ago) };
        assert!(own.has(loopback));
    }
}
