//! A proxy that the operator names, for connections that cannot be made directly. Those of the environment (`HTTPS_PROXY`) are
//! never used: what a guest reaches must not depend on who started the daemon.
//!
//! `https` goes through it in a tunnel (CONNECT, RFC 9110, section 9.3.6), so that it sees names and ports alone. `http` goes to it as
//! a whole request. In both cases the proxy resolves the name and makes the connection.

use crate::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// Variables with which other programs are told of a proxy.
const VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// An HTTP proxy, such as `http://user:password@proxy.example:3128`. `Debug` and `Display` show it without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Without credentials.
    url: Url,
    credentials: Option<Credentials>,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: Secret,
}

impl FromStr for Proxy {
    type Err = String;

    /// Reads an address. The error never repeats it, since it may hold a password.
    fn from_str(text: &str) -> Result<Proxy, String> {
        let takes = "it takes an HTTP proxy such as http://user:password@proxy.example:3128";
        let quoting = "a / ? # @ % in the password is written %2F %3F %23 %40 %25";
        let text = text.trim();
        // As other programs take it.
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&text).map_err(|error| format!("it is not a URL ({error}); {quoting}; {takes}"))?;
        match url.scheme() {
            "http" | "https" => {}
            "socks4" | "socks4a" | "socks5" | "socks5h" => return Err(format!("SOCKS is not supported; {takes}")),
            _ => return Err(format!("its scheme is not http or https; {takes}")),
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("it has a path, a query or a fragment; {quoting}; {takes}"));
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Credentials {
                user: decoded(user),
                password: Secret::new(password.map(decoded).unwrap_or_default()),
            }),
        };
        // Only URLs without a host have no user.
        let (_, _) = (url.set_username(""), url.set_password(None));
        Ok(Proxy { url, credentials })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// For a client of reqwest: all of its requests go through it.
    pub(crate) fn of_client(&self) -> Result<reqwest::Proxy, String> {
        let proxy = reqwest::Proxy::all(self.url.clone()).map_err(|_| "no client can be set up for it".to_owned())?;
        let Some(basic) = self.basic() else { return Ok(proxy) };
        let mut value = HeaderValue::from_str(&basic).map_err(|_| "its credentials cannot be sent".to_owned())?;
        value.set_sensitive(true);
        Ok(proxy.custom_http_auth(value))
    }

    /// Texts to redact.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let password = self.credentials.iter().map(|credentials| credentials.password.expose().to_owned());
        password.chain(self.basic().into_iter().flat_map(|basic| crate::secret::of_header(&basic))).collect()
    }

    /// Whether TLS is spoken with the proxy itself.
    pub(crate) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Its name, as a resolver is asked for it; `None`: it is an address.
    pub(crate) fn name(&self) -> Option<&str> {
        self.url.domain()
    }

    fn basic(&self) -> Option<String> {
        let Credentials { user, password } = self.credentials.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose()))))
    }
}

/// A user or a password without its percent-encoding (RFC 3986, section 2.1).
pub(crate) fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Why a connection failed at a proxy; `None`: it failed behind it.
pub(crate) fn failure(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // reqwest's tunnel has an error of a type that cannot be named.
        if let Some(what) = error.to_string().strip_prefix("tunnel error: ") {
            return Some(match what {
                "proxy authorization required" => "it wants other credentials (407)".into(),
                "unsuccessful" => "it does not connect to the server (its response to CONNECT is not 200)".into(),
                "failed to create underlying connection" => format!("it cannot be connected to: {}", innermost(error)),
                _ => "it broke the connection while the tunnel was set up".into(),
            });
        }
        let hidden = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = hidden.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// The innermost cause, which has no address in it.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) => io.kind().to_string(),
        None => cause.to_string(),
    }
}

/// Warning about a proxy of the environment that is not used; `None`: it names none. Values stay out: they hold
/// passwords.
pub fn unused(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<String> {
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let set: Vec<&str> = VARIABLES.into_iter().filter(|name| is_set(name)).collect();
    let is = if set.len() == 1 { "is" } else { "are" };
    (!set.is_empty()).then(|| {
        format!(
            "{} {is} set and not used; for a proxy, set llm.providers.NAME.proxy, tools.NAME.proxy or http.proxy",
            set.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_credentials() {
        for (text, shown, basic) in [
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("https://10.0.0.1/", "https://10.0.0.1", None),
            ("http://me:open%20sesame%40%2B+@proxy:3128", "http://proxy:3128", Some("me:open sesame@++")),
            ("http://me@proxy:3128", "http://proxy:3128", Some("me:")),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!((proxy.to_string().as_str(), format!("{proxy:?}")), (shown, format!("Proxy({shown})")));
            assert_eq!(proxy.basic(), basic.map(|basic| format!("Basic {}", STANDARD.encode(basic))), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_proxy_is_rejected_without_its_password() {
        for (text, why) in [
            ("socks5://me:hunter2@proxy:1080", "SOCKS is not supported"),
            ("ftp://me:hunter2@proxy", "not http or https"),
            ("http://me:hunter2/x@proxy:3128", "%2F"),
            ("http://proxy:3128/path", "a path"),
            ("http://me:hunter2@", "not a URL"),
            ("", "not a URL"),
        ] {
            let error = text.parse::<Proxy>().unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn proxies_of_the_environment_are_named_without_their_values() {
        let set = |names: &'static [&str]| {
            unused(move |name| names.contains(&name).then(|| "http://me:hunter2@proxy:3128".into()))
        };
        assert_eq!(set(&[]), None);
        let one = "HTTPS_PROXY is set and not used; for a proxy, set llm.providers.NAME.proxy, tools.NAME.proxy or http.proxy";
        assert_eq!(set(&["HTTPS_PROXY"]).as_deref(), Some(one));
        let two = set(&["http_proxy", "all_proxy", "NO_PROXY"]).unwrap();
        assert!(two.starts_with("http_proxy, all_proxy are set and not used"), "{two}");
        assert_eq!(unused(|_| Some("".into())), None);
    }
}
