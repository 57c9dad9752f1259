//! The host of a pattern.

use std::fmt;
use std::net::IpAddr;
use url::Host;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// `*`: any name and any address.
    Any,
    /// `*.example.com`: every name that ends in `.example.com`, at least one label longer.
    Below(String),
    Name(String),
    Address(IpAddr),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Result<HostPattern, String> {
        if text == "*" {
            return Ok(HostPattern::Any);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err("a * is the whole host, or its first label".into());
        }
        if name.contains('%') {
            return Err("its host is encoded; write it as it is".into());
        }
        match Host::parse(name).map_err(|e| format!("{name:?} is no host: {e}"))? {
            Host::Domain(name) if name.ends_with('.') => Err("its host ends in a dot; leave it out".into()),
            Host::Domain(name) if name.starts_with('.') || name.contains("..") => {
                Err(format!("{name:?} is no host: a label is empty"))
            }
            Host::Domain(name) if below => Ok(HostPattern::Below(name)),
            Host::Domain(name) => Ok(HostPattern::Name(name)),
            _ if below => Err("nothing is below an address".into()),
            Host::Ipv4(address) => Ok(HostPattern::Address(address.into())),
            Host::Ipv6(address) => Ok(HostPattern::Address(address.into())),
        }
    }

    pub(super) fn allows(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (_, Host::Domain(name)) if name.ends_with('.') => false,
            (HostPattern::Any, _) => true,
            (HostPattern::Below(suffix), Host::Domain(name)) => is_below(name, suffix),
            (HostPattern::Name(own), Host::Domain(name)) => own == name,
            (HostPattern::Address(own), Host::Ipv4(address)) => *own == IpAddr::V4(*address),
            (HostPattern::Address(own), Host::Ipv6(address)) => *own == IpAddr::V6(*address),
            _ => false,
        }
    }

    /// The narrower of the two, if they have anything in common.
    pub(super) fn meet(&self, other: &HostPattern) -> Option<HostPattern> {
        let narrower = |wide: &HostPattern, narrow: &HostPattern| match (wide, narrow) {
            (HostPattern::Any, _) => true,
            (HostPattern::Below(suffix), HostPattern::Below(name)) => name == suffix || is_below(name, suffix),
            (HostPattern::Below(suffix), HostPattern::Name(name)) => is_below(name, suffix),
            (wide, narrow) => wide == narrow,
        };
        match (narrower(self, other), narrower(other, self)) {
            (true, _) => Some(other.clone()),
            (_, true) => Some(self.clone()),
            _ => None,
        }
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).and_then(|label| label.strip_suffix('.')).is_some_and(|label| !label.is_empty())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Name(name) => f.write_str(name),
            HostPattern::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            // As the URL Standard writes it, which never mixes in an IPv4 part.
            HostPattern::Address(IpAddr::V6(address)) => write!(f, "{}", Host::<&str>::Ipv6(*address)),
        }
    }
}
