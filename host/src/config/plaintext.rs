//! Connections to other machines: each is encrypted and checks the peer's certificate, or the operator has allowed plaintext by name.
//! Passwords of services, tokens, inputs and results pass over them.

use super::origin::{Origin, Problem};
use super::reader::Reader;
use super::secret::SecretUrl;
use std::net::{IpAddr, SocketAddr};
use url::Url;

/// A connection to another machine that is not encrypted, or whose peer is not checked.
pub(super) struct Exposed {
    /// Name of the setting with the address.
    key: &'static str,
    /// Name of the setting that allows plaintext.
    allow: &'static str,
    /// Problem, for a person.
    what: String,
    /// How to encrypt it instead.
    remedy: &'static str,
}

impl Exposed {
    /// Returns a warning for the log if plaintext is allowed, and else an error.
    pub fn allowed(self, allowed: bool, origin: &Origin) -> Result<String, Problem> {
        let Exposed { key, allow, what, remedy } = self;
        if allowed {
            return Ok(format!(
                "{key}: {what}; {allow} allows this, and other machines on the network path may read or change it"
            ));
        }
        let variable = super::environment::variable(allow);
        let what = format!(
            "{what}; {remedy}, or set {allow} = true ({variable}) if no other machine can read or change what passes over that network"
        );
        Err(Problem::invalid(key, origin, what))
    }
}

/// Checks whether AMQP to this address crosses a network without TLS.
pub(super) fn broker(url: &SecretUrl) -> Option<Exposed> {
    let url = parsed(url)?;
    if url.scheme() == "amqps" || url.host_str().is_none_or(is_here) {
        return None;
    }
    let what =
        format!("{} is not a loopback address, and amqp:// is not encrypted", url.host_str().unwrap_or_default());
    let remedy = "write amqps:// (port 5671)";
    Some(Exposed { key: "broker.url", allow: "broker.plaintext", what, remedy })
}

/// Checks whether requests to the broker's management API cross a network without TLS, and with them a password.
pub(super) fn management(url: &SecretUrl) -> Option<Exposed> {
    let url = parsed(url)?;
    if url.scheme() == "https" || url.host_str().is_none_or(is_here) {
        return None;
    }
    let what =
        format!("{} is not a loopback address, and http:// is not encrypted", url.host_str().unwrap_or_default());
    let remedy = "write https:// (port 15671)";
    Some(Exposed { key: "broker.management_url", allow: "broker.plaintext", what, remedy })
}

/// Checks whether SQL to this address crosses a network without TLS, or without a check of the server's certificate.
pub(super) fn database(url: &SecretUrl) -> Option<Exposed> {
    let url = parsed(url)?;
    let last = |names: [&str; 2]| {
        let of = url.query_pairs().filter(|(name, _)| names.contains(&name.as_ref())).last();
        of.map(|(_, value)| value.into_owned())
    };
    // As the client takes them: a parameter stands in for what is before the path. One that begins with a slash is a socket.
    let host = last(["host", "hostaddr"]).or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    let is_socket = host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
    if is_socket || host.is_empty() || is_here(&host) {
        return None;
    }
    let what = match last(["sslmode", "ssl-mode"]).as_deref() {
        Some("verify-full") => return None,
        Some("disable") => format!("{host} is not a loopback address, and sslmode=disable does not encrypt"),
        Some(mode) => {
            format!(
                "{host} is not a loopback address, and sslmode={mode} does not check the server's certificate and name"
            )
        }
        None => {
            format!("{host} is not a loopback address, and without an sslmode the server's certificate is not checked")
        }
    };
    let remedy = "add ?sslmode=verify-full (and sslrootcert=FILE for an authority of your own)";
    Some(Exposed { key: "database.url", allow: "database.plaintext", what, remedy })
}

/// Checks whether the API listens for other machines without TLS.
pub(super) fn api(listen: SocketAddr, is_encrypted: bool) -> Option<Exposed> {
    if is_encrypted || listen.ip().is_loopback() {
        return None;
    }
    let what = format!("{listen} is reachable from other machines without TLS, and so are tokens and results");
    let remedy = "set api.tls_cert and api.tls_key, or listen on 127.0.0.1";
    Some(Exposed { key: "api.listen", allow: "api.plaintext", what, remedy })
}

/// Reads the setting `allow` and returns the warnings of [`Exposed::allowed`], or the first of its errors.
pub(super) fn check<const N: usize>(
    read: &mut Reader,
    exposed: [Option<Exposed>; N],
    allow: &str,
) -> Result<Vec<String>, Problem> {
    let allowed = read.flag(allow)?;
    let judge = |exposed: Exposed| {
        let origin = read.origin(exposed.key);
        exposed.allowed(allowed, &origin)
    };
    exposed.into_iter().flatten().map(judge).collect()
}

fn parsed(url: &SecretUrl) -> Option<Url> {
    // It was parsed when it was read.
    Url::parse(url.expose()).ok()
}

/// Whether a host is `localhost` or a loopback address.
fn is_here(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Result<IpAddr, _> = name.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) => address.to_canonical().is_loopback(),
        // A resolver may map names below localhost to other machines.
        Err(_) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(of: fn(&SecretUrl) -> Option<Exposed>, url: &str) -> Option<String> {
        let url = SecretUrl::parse(url, &["amqp", "amqps", "postgres"]).unwrap();
        of(&url).map(|exposed| exposed.allowed(false, &Origin::Default).unwrap_err().0)
    }

    #[test]
    fn a_broker_beyond_this_machine_needs_tls() {
        for url in [
            "amqp://u:p@127.0.0.1",
            "amqp://u:p@localhost:5672/v",
            "amqp://u:p@[::1]:5672",
            "amqp://u:p@127.9.9.9",
            "amqps://u:p@broker.example",
        ] {
            assert_eq!(told(broker, url), None, "{url}");
        }
        for url in [
            "amqp://u:p@broker",
            "amqp://u:p@10.0.0.1",
            "amqp://u:p@[fd00::1]",
            "amqp://u:p@localhost.example",
            "amqp://u:p@a.localhost",
        ] {
            let told = told(broker, url).unwrap_or_else(|| panic!("{url}"));
            assert!(told.contains("amqps://") && told.contains("broker.plaintext = true"), "{told}");
            assert!(told.contains("AGENTRY_BROKER_PLAINTEXT") && !told.contains("u:p"), "{told}");
        }
    }

    #[test]
    fn a_database_beyond_this_machine_needs_tls_that_is_checked() {
        for url in [
            "postgres://u:p@127.0.0.1/d",
            "postgres://u:p@localhost/d?sslmode=disable",
            "postgres://u:p@[::1]:5432/d",
            "postgres://u:p@%2Frun%2Fpostgresql/d",
            "postgres://u:p@h/d?host=/run/postgresql",
            "postgres://u:p@db.example/d?sslmode=verify-full",
            "postgres://u:p@db.example/d?ssl-mode=verify-full",
        ] {
            assert_eq!(told(database, url), None, "{url}");
        }
        for url in [
            "postgres://u:p@db.example/d",
            "postgres://u:p@db.example/d?sslmode=require",
            "postgres://u:p@db.example/d?sslmode=verify-ca",
            "postgres://u:p@localhost/d?host=db.example",
            "postgres://u:p@db.example/d?sslmode=verify-full&sslmode=disable",
            "postgres://u:p@10.1.2.3/d",
        ] {
            let told = told(database, url).unwrap_or_else(|| panic!("{url}"));
            assert!(told.contains("sslmode=verify-full") && told.contains("database.plaintext = true"), "{told}");
            assert!(!told.contains("u:p"), "{told}");
        }
    }

    #[test]
    fn an_api_beyond_this_machine_needs_tls() {
        assert!(api("127.0.0.1:7070".parse().unwrap(), false).is_none());
        assert!(api("[::1]:7070".parse().unwrap(), false).is_none());
        assert!(api("0.0.0.0:7070".parse().unwrap(), true).is_none());
        let exposed = api("0.0.0.0:7070".parse().unwrap(), false).unwrap();
        let told = exposed.allowed(true, &Origin::Default).unwrap();
        assert!(told.contains("0.0.0.0:7070") && told.contains("api.plaintext"), "{told}");
    }
}
