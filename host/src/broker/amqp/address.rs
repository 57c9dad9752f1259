//! Where RabbitMQ is. Holds a password, so it cannot be printed with one.

use lapin::types::MAX_SHORT_STRING_LENGTH;
use lapin::uri::AMQPUri;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// An AMQP address: `amqp://user:password@host:5672/vhost` or `amqps://…`.
///
/// No path, or `/` alone, is the virtual host `/`; a `/` within a name is written `%2F`. Without user and password it is
/// RabbitMQ's own default, `guest`. `Display` and `Debug` show everything but the password.
#[derive(Clone)]
pub struct AmqpAddress {
    uri: AMQPUri,
}

/// The query keys that are understood.
const KEYS: [&str; 5] = ["heartbeat", "connection_timeout", "channel_max", "frame_max", "auth_mechanism"];

impl FromStr for AmqpAddress {
    type Err = String;

    /// The error names what is wrong and never holds the text, which has a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("not an address: {e}"))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(format!("its scheme is {:?}; it must be amqp or amqps", url.scheme()));
        }
        // Not left to lapin: it puts localhost where there is no host, or an IPv6 address.
        let host =
            url.host_str().filter(|h| !h.is_empty()).ok_or("it names no host; write amqp://user:password@HOST")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if url.path().trim_start_matches('/').contains('/') {
            return Err("its path has several parts; a / in the virtual host's name is written %2F".into());
        }
        if let Some((key, _)) = url.query_pairs().find(|(key, _)| !KEYS.contains(&&**key)) {
            return Err(format!(
                "the query of the address has {key:?}; known are {}; for an authority of your own set SSL_CERT_FILE to its PEM file",
                KEYS.join(", ")
            ));
        }
        let mut uri: AMQPUri = text.parse().map_err(|_| "its query or its percent-encoding is not valid".to_owned())?;
        uri.authority.host = host;
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        if uri.vhost.len() > MAX_SHORT_STRING_LENGTH {
            return Err(format!("its virtual host's name has {} bytes; AMQP allows 255", uri.vhost.len()));
        }
        Ok(AmqpAddress { uri })
    }
}

impl AmqpAddress {
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// A foreign text with the password blanked, should it hold it.
    pub(super) fn redact(&self, text: &str) -> String {
        let password = &self.uri.authority.userinfo.password;
        if password.is_empty() || password == self.user() || !text.contains(password.as_str()) {
            return text.to_owned();
        }
        text.replace(password.as_str(), "***")
    }
}

impl fmt::Display for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        let (open, close) = if authority.host.contains(':') { ("[", "]") } else { ("", "") };
        let vhost = self.uri.vhost.replace('%', "%25").replace('/', "%2F");
        write!(
            f,
            "{}://{}@{open}{}{close}:{}/{vhost}",
            self.uri.scheme, authority.userinfo.username, authority.host, authority.port
        )
    }
}

impl fmt::Debug for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        text.parse::<AmqpAddress>().map(|a| a.to_string())
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address: AmqpAddress = "amqp://me:s3cret@rabbit:5673/%2Fteam".parse().unwrap();
        assert_eq!(address.to_string(), "amqp://me@rabbit:5673/%2Fteam");
        assert!(!format!("{address:?}").contains("s3cret"));
        assert_eq!(address.redact("failed at amqp://me:s3cret@rabbit"), "failed at amqp://me:***@rabbit");
        assert_eq!(address.vhost(), "/team");
    }

    #[test]
    fn no_part_of_an_address_is_ignored_or_made_up() {
        assert_eq!(shown("amqp://rabbit").unwrap(), "amqp://guest@rabbit:5672/%2F");
        assert_eq!(shown("amqp://rabbit/").unwrap(), "amqp://guest@rabbit:5672/%2F");
        assert_eq!(shown("amqps://[::1]/x").unwrap(), "amqps://guest@[::1]:5671/x");
        for (text, says) in [
            ("http://rabbit", "its scheme is \"http\"; it must be amqp or amqps"),
            ("amqp://", "it names no host"),
            ("amqp://h/a/b", "several parts"),
            ("amqp://h?hartbeat=3", "\"hartbeat\"; known are heartbeat"),
            ("rabbit:5672", "its scheme is \"rabbit\""),
            ("amqp://u:p4ss@h:99999", "not an address"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("p4ss"), "{error}");
        }
    }
}
