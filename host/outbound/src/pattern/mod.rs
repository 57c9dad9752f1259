//! Which requests a grant allows: `METHOD[,METHOD] SCHEME://HOST[:PORT][/PATH-PREFIX]`.
//!
//! | part | what it says | left out |
//! |---|---|---|
//! | methods | upper-case tokens (RFC 9110, section 9.1); `*`: any. `CONNECT` and `TRACE` never | `GET` and `HEAD` |
//! | scheme | `http` or `https` | an error |
//! | host | a name; `*.example.com`: names below it, not itself; `*`: any; an IPv4 or `[IPv6]` address | an error |
//! | port | a number; `*`: any | the scheme's own |
//! | path | a prefix that ends where a segment ends: `/v1` allows `/v1` and `/v1/x`, not `/v1x` | any |
//!
//! Hosts and paths are compared as the URL Standard writes them (<https://url.spec.whatwg.org/>): IDNA, lower case, every
//! spelling of an IPv4 address, dot segments removed. A name that ends in a dot is another name to a URL and the same to DNS, so it
//! is allowed nowhere. A path that somebody behind the server's front could read differently (an encoded slash, backslash or dot
//! segment, however often encoded, or anything encoded more than twice) is allowed by no pattern that has a path.
//!
//! A pattern says which requests, never which addresses: a `*` opens no private address. See [`UrlPattern::by_operator`].

mod host;
mod path;
#[cfg(test)]
mod tests;

use agentry_defence::Defence;
use host::HostPattern;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// The longest text of a pattern, in bytes.
const MAX_BYTES: usize = 1_024;

/// One line of a grant. What is not said is not open: no method means `GET` and `HEAD`, no port means the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    methods: Methods,
    scheme: Scheme,
    host: HostPattern,
    /// `None`: any.
    port: Option<u16>,
    /// Without a slash at its end; empty: any path.
    path: String,
    /// Its address was written by the operator.
    opens: bool,
}

/// A request that is compared with patterns. Its path is examined once, whatever the number of patterns.
pub(crate) struct Wish<'a> {
    method: &'a http::Method,
    url: &'a url::Url,
    is_plain: OnceCell<bool>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no pattern of requests: {reason}; write it like \"GET https://api.example.com\" or \"GET,POST https://*.example.com:8443/v1/\""
)]
pub struct PatternError {
    /// What was written, or its beginning.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Methods {
    Any,
    These(BTreeSet<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl UrlPattern {
    /// What both allow; `None`: nothing. Neither can widen the other.
    pub fn meet(&self, other: &UrlPattern) -> Option<UrlPattern> {
        if self.scheme != other.scheme {
            return None;
        }
        Some(UrlPattern {
            methods: self.methods.meet(&other.methods)?,
            scheme: self.scheme,
            host: self.host.meet(&other.host)?,
            port: match (self.port, other.port) {
                (Some(a), Some(b)) if a != b => return None,
                (a, b) => a.or(b),
            },
            path: path::meet(&self.path, &other.path)?.to_owned(),
            // An address meets only itself or a star, so whoever wrote one wrote this one.
            opens: self.opens || other.opens,
        })
    }

    /// Whether a request is allowed. The URL's host is compared as the URL Standard writes it.
    pub fn allows(&self, method: &http::Method, url: &url::Url) -> bool {
        self.allows_wish(&Wish::new(method, url))
    }

    /// The same, where a request is compared with many patterns.
    pub(crate) fn allows_wish(&self, wish: &Wish<'_>) -> bool {
        let Wish { method, url, .. } = wish;
        self.methods.allow(method)
            && url.scheme() == self.scheme.name()
            && (url.username().is_empty() && url.password().is_none() || !Defence::Userinfo.stands())
            && url.host().is_some_and(|host| self.host.allows(&host))
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
            && path::allows(&self.path, url.path(), || wish.is_plain())
    }

    /// The pattern as the operator's own. The address in it, if there is one, was written on purpose by somebody who may, and is
    /// reached though it is loopback or private. A plugin's wish never opens an address: where it meets the operator's `*`, the
    /// address in the result is the plugin's. The mark is not part of the text, so that a pattern that is read again opens nothing.
    #[must_use]
    pub fn by_operator(mut self) -> UrlPattern {
        self.opens = self.host_literal().is_some();
        self
    }

    /// The address that stands as the host.
    pub fn host_literal(&self) -> Option<IpAddr> {
        match self.host {
            HostPattern::Address(address) => Some(address),
            _ => None,
        }
    }

    /// The address that the operator opened by writing it: see [`UrlPattern::by_operator`].
    pub fn opens(&self) -> Option<IpAddr> {
        self.host_literal().filter(|_| self.opens)
    }
}

impl<'a> Wish<'a> {
    pub fn new(method: &'a http::Method, url: &'a url::Url) -> Wish<'a> {
        Wish { method, url, is_plain: OnceCell::new() }
    }

    fn is_plain(&self) -> bool {
        *self.is_plain.get_or_init(|| path::is_plain(self.url.path()))
    }
}

impl Methods {
    fn parse(text: &str) -> Result<Methods, String> {
        if text == "*" {
            return Ok(Methods::Any);
        }
        let names: BTreeSet<String> = text.split(',').map(str::to_owned).collect();
        for name in &names {
            let plain = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!(
                    "{name:?} is no method; methods are upper-case, with commas and no spaces between"
                ));
            }
            if forbidden(name) {
                return Err(format!("{name} is never allowed"));
            }
        }
        Ok(Methods::These(names))
    }

    fn allow(&self, method: &http::Method) -> bool {
        match self {
            Methods::Any => !forbidden(method.as_str()),
            Methods::These(names) => names.contains(method.as_str()),
        }
    }

    fn meet(&self, other: &Methods) -> Option<Methods> {
        match (self, other) {
            (Methods::Any, one) | (one, Methods::Any) => Some(one.clone()),
            (Methods::These(a), Methods::These(b)) => {
                let both: BTreeSet<String> = a.intersection(b).cloned().collect();
                (!both.is_empty()).then_some(Methods::These(both))
            }
        }
    }
}

/// `CONNECT` makes a tunnel of a connection, and `TRACE` tells the guest which headers the host added.
pub(crate) fn forbidden(method: &str) -> bool {
    (method == "CONNECT" || method == "TRACE") && Defence::HttpMethods.stands()
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl std::str::FromStr for UrlPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<UrlPattern, PatternError> {
        parse(text).map_err(|reason| PatternError { text: text.chars().take(200).collect(), reason })
    }
}

fn parse(text: &str) -> Result<UrlPattern, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, and {MAX_BYTES} are allowed", text.len()));
    }
    if let Some(odd) = text.chars().find(|c| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        return Err(format!("{odd:?} has no place in it"));
    }
    let (methods, rest) = match text.trim().rsplit_once(' ') {
        Some((methods, rest)) => (Methods::parse(methods.trim_end())?, rest),
        None => (Methods::parse("GET,HEAD")?, text.trim()),
    };
    let (scheme, rest) =
        rest.split_once("://").ok_or("it has no scheme; http:// or https:// stands before the host")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => return Err(format!("{other:?} is no scheme of requests; http and https are")),
    };
    for (sign, what) in [('?', "query"), ('#', "fragment"), ('@', "user name"), ('\\', "backslash")] {
        if rest.contains(sign) {
            return Err(format!("a pattern has no {what}"));
        }
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_port(authority, scheme)?;
    Ok(UrlPattern { methods, scheme, host: HostPattern::parse(host)?, port, path: path::parse(path)?, opens: false })
}

fn split_port(authority: &str, scheme: Scheme) -> Result<(&str, Option<u16>), String> {
    // The colons of an IPv6 address stand in brackets.
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[after_host..].find(':') else { return Ok((authority, Some(scheme.port()))) };
    let (host, port) = (&authority[..after_host + colon], &authority[after_host + colon + 1..]);
    if port == "*" {
        return Ok((host, None));
    }
    let digits = !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number > 0 => Ok((host, Some(number))),
        _ => Err(format!("{port:?} is no port; 1 to 65535 and * are")),
    }
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.methods {
            Methods::Any => f.write_str("*")?,
            Methods::These(names) => f.write_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(","))?,
        }
        write!(f, " {}://{}", self.scheme.name(), self.host)?;
        match self.port {
            None => f.write_str(":*")?,
            Some(port) if port == self.scheme.port() => {}
            Some(port) => write!(f, ":{port}")?,
        }
        f.write_str(&self.path)
    }
}
