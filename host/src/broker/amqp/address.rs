//! Where RabbitMQ is. Holds a password, so it cannot be printed with one.

use super::tls::Trust;
use lapin::types::MAX_SHORT_STRING_LENGTH;
use lapin::uri::{AMQPScheme, AMQPUri};
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
    trust: Trust,
}

/// The query keys that are understood: those of RabbitMQ's own clients.
const KEYS: [&str; 10] = [
    "heartbeat",
    "connection_timeout",
    "channel_max",
    "frame_max",
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "keyfile",
    "verify",
    "server_name_indication",
];
/// Those of them that are about TLS.
const OF_TLS: [&str; 5] = ["cacertfile", "certfile", "keyfile", "verify", "server_name_indication"];
/// The least number of channels that a daemon needs on one connection; 0 is no limit.
const CHANNELS: u64 = 16;
/// The least that `connection_timeout` may be: it counts milliseconds, and other clients count seconds.
const LEAST_TIMEOUT: u64 = 100;

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
        let trust = parameters(&url)?;
        let mut uri: AMQPUri = text.parse().map_err(|_| "its query or its percent-encoding is not valid".to_owned())?;
        uri.authority.host = host;
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        if uri.vhost.len() > MAX_SHORT_STRING_LENGTH {
            return Err(format!("its virtual host's name has {} bytes; AMQP allows 255", uri.vhost.len()));
        }
        Ok(AmqpAddress { uri, trust })
    }
}

/// Checks the parameters of the query, and reads those about TLS.
fn parameters(url: &Url) -> Result<Trust, String> {
    if url.query().is_some_and(|query| query.contains('@')) {
        // The rest of a password: it is not repeated.
        return Err("its query holds a @; a ? or @ in the password is written %3F or %40".into());
    }
    let mut trust = Trust::default();
    let mut seen = Vec::new();
    for (key, value) in url.query_pairs() {
        if !KEYS.contains(&&*key) {
            return Err(format!("the query of the address has {key:?}; known are {}", KEYS.join(", ")));
        }
        if seen.contains(&key) {
            return Err(format!("the query of the address has {key} twice"));
        }
        if OF_TLS.contains(&&*key) && url.scheme() != "amqps" {
            return Err(format!("the query of the address has {key}, which is for amqps://"));
        }
        let number = |least: u64, most: u64, what: &str| match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            _ => Err(format!("{key} of the address is {value:?}; it takes {what}")),
        };
        let file = || match value.starts_with('/') {
            true => Ok(Some(value.to_string().into())),
            false => Err(format!("{key} of the address is {value:?}; it takes an absolute path")),
        };
        match &*key {
            "heartbeat" => number(0, 65_535, "seconds from 0 to 65535")?,
            "channel_max" if value != "0" => {
                number(CHANNELS, 65_535, &format!("0 (no limit), or {CHANNELS} to 65535"))?
            }
            "frame_max" if value != "0" => number(4_096, u32::MAX.into(), "0 (no limit), or bytes from 4096")?,
            "connection_timeout" => {
                number(LEAST_TIMEOUT, 3_600_000, "milliseconds from 100 to 3600000, such as 10000 for ten seconds")?;
            }
            "auth_mechanism" if !["plain", "amqplain", "external"].iter().any(|m| value.eq_ignore_ascii_case(m)) => {
                return Err(format!("{key} of the address is {value:?}; it takes plain, amqplain or external"));
            }
            "verify" if value != "verify_peer" => {
                return Err(format!(
                    "verify of the address is {value:?}; the broker's certificate is always verified: name its authority in \
                     broker.ca_file, and another name of it in server_name_indication"
                ));
            }
            "cacertfile" => trust.ca_file = file()?,
            "certfile" => trust.cert_file = file()?,
            "keyfile" => trust.key_file = file()?,
            "server_name_indication" => trust.name = Some(value.to_string()),
            _ => {}
        }
        seen.push(key);
    }
    Ok(trust)
}

impl AmqpAddress {
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    /// Whether it is `amqps://`.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// Settings of TLS, from the address and from the settings file. One of them has each, not both.
    ///
    /// # Errors
    /// Something that is said twice, or is said of TLS where there is none; a file that cannot be used.
    pub fn trust(&self, settings: &Trust) -> Result<Trust, String> {
        let files = |trust: &Trust| [trust.ca_file.clone(), trust.cert_file.clone(), trust.key_file.clone()];
        let (here, there) = (files(&self.trust), files(settings));
        let names =
            [("cacertfile", "broker.ca_file"), ("certfile", "broker.cert_file"), ("keyfile", "broker.key_file")];
        for ((parameter, setting), (here, there)) in names.into_iter().zip(here.iter().zip(&there)) {
            if there.is_some() && !self.is_tls() {
                return Err(format!(
                    "{setting} is set, and broker.url is not amqps://; write amqps://, or remove {setting}"
                ));
            }
            if here.is_some() && there.is_some() {
                return Err(format!("{setting} and the parameter {parameter} of broker.url are both set; set one"));
            }
        }
        let [ca_file, cert_file, key_file] = [0, 1, 2].map(|i| here[i].clone().or_else(|| there[i].clone()));
        let trust = Trust { ca_file, cert_file, key_file, name: self.trust.name.clone() };
        trust.check()?;
        Ok(trust)
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
    fn parameters_of_tls_and_settings_make_one_whole() {
        let address: AmqpAddress =
            "amqps://h?verify=verify_peer&server_name_indication=rabbit&heartbeat=5&auth_mechanism=PLAIN"
                .parse()
                .unwrap();
        assert_eq!(address.trust(&Trust::default()).unwrap().name.as_deref(), Some("rabbit"));
        let missing = Trust { ca_file: Some("/missing/ca.pem".into()), ..Trust::default() };
        let why = |text: &str, settings: &Trust| text.parse::<AmqpAddress>().unwrap().trust(settings).unwrap_err();
        assert!(why("amqps://h", &missing).contains("broker.ca_file (/missing/ca.pem)"));
        assert!(why("amqps://h?cacertfile=/missing/ca.pem", &Trust::default()).contains("/missing/ca.pem"));
        assert!(why("amqps://h?cacertfile=/other.pem", &missing).contains("both set"));
        assert!(why("amqp://h", &missing).contains("not amqps://"));
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
            ("amqp://u:1?p4ss@h", "is written %3F"),
            ("amqp://h?heartbeat=soon", "heartbeat of the address is \"soon\""),
            ("amqp://h?heartbeat=5&heartbeat=6", "heartbeat twice"),
            ("amqp://h?connection_timeout=30", "such as 10000 for ten seconds"),
            ("amqp://h?channel_max=2", "16 to 65535"),
            ("amqp://h?auth_mechanism=kerberos", "plain, amqplain or external"),
            ("amqp://h?cacertfile=/ca.pem", "is for amqps://"),
            ("amqps://h?cacertfile=ca.pem", "an absolute path"),
            ("amqps://h?verify=verify_none", "always verified"),
            ("rabbit:5672", "its scheme is \"rabbit\""),
            ("amqp://u:p4ss@h:99999", "not an address"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("p4ss"), "{error}");
        }
    }
}
