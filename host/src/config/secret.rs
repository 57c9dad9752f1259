//! An address with a password in it, as a type that cannot be printed.

use crate::db::postgres::with_host;
use std::fmt;
use url::Url;

/// Parameters of a query that are shown; the value of any other may be a secret, and so may its name: in `amqp://u:1?x@h` it is
/// the rest of a password that began with a digit.
const SHOWN_PARAMETERS: &[&str] = &[
    "host",
    "port",
    "dbname",
    "user",
    "hostaddr",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "channel_binding",
    "connect_timeout",
    "cacertfile",
    "certfile",
    "keyfile",
    "verify",
    "server_name_indication",
    "application_name",
    "heartbeat",
    "channel_max",
    "frame_max",
    "connection_timeout",
    "auth_mechanism",
];

/// A URL that may hold a password. `Debug`, `Display` and `Serialize` show it without; [`SecretUrl::expose`] is the one
/// way to the whole, for the client that connects.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// Parse a URL whose scheme is one of `schemes`. The error never repeats the text.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<SecretUrl, String> {
        let authority =
            text.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
        if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
            return Err("it names several hosts; name one: the primary, or an address that leads to it".into());
        }
        let url = Url::parse(&with_host(text)).map_err(|e| format!("it is not a URL ({e})"))?;
        if !schemes.contains(&url.scheme()) {
            // What stands before the first colon of a mistyped URL may be anything, a password too.
            return Err(format!("its scheme is none of {}", schemes.join(", ")));
        }
        // `amqp:/user:password@host`, `amqp://user:12/34@host`, `amqp://user:1@2#3@host` and `amqp://user:1@2?3@host` are URLs too, with
        // a part of the password as their path, host, fragment or parameter.
        let is_known = |name: &str| SHOWN_PARAMETERS.contains(&name) || matches!(name, "password" | "options");
        let mut parameters = url.query().unwrap_or_default().split('&');
        let is_cut = parameters.any(|part| part.contains('@') && !is_known(part.split('=').next().unwrap_or_default()));
        if !url.has_authority() || url.path().contains('@') || url.fragment().is_some() || is_cut {
            return Err(
                "it is not of the form scheme://user:password@host/name; a / ? # @ in the password or the name \
                        is written %2F %3F %23 %40"
                    .into(),
            );
        }
        Ok(SecretUrl(url))
    }

    /// The whole URL, password included, for the client that connects. Never print it.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.0.password().is_some() || self.0.query_pairs().any(|(k, _)| k == "password")
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // Fails only for URLs that cannot have a password, and this one has.
            let _ = shown.set_password(Some("***"));
        }
        if shown.query().is_some() {
            let pairs: Vec<(String, String)> = shown
                .query_pairs()
                .map(|(k, v)| match k.as_ref() {
                    k if SHOWN_PARAMETERS.contains(&k) => (k.to_owned(), v.into_owned()),
                    "password" => ("password".to_owned(), "***".to_owned()),
                    _ => ("***".to_owned(), "***".to_owned()),
                })
                .collect();
            shown.query_pairs_mut().clear().extend_pairs(pairs);
        }
        shown.set_fragment(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

impl serde::Serialize for SecretUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [&str; 2] = ["amqp", "postgres"];

    #[test]
    fn a_password_is_never_printed_while_host_and_database_are() {
        let url =
            SecretUrl::parse("postgres://u:hunter2@db.example:5432/app?password=hunter2&sslmode=require", &SCHEMES)
                .unwrap();
        for shown in [url.to_string(), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("db.example:5432/app") && shown.contains("sslmode=require"), "{shown}");
        }
        assert!(url.expose().contains("hunter2") && url.has_password());
    }

    #[test]
    fn an_address_without_a_password_is_shown_as_it_is() {
        let url = SecretUrl::parse("amqp://127.0.0.1:5672/%2f", &SCHEMES).unwrap();
        assert_eq!(url.to_string(), "amqp://127.0.0.1:5672/%2f");
        assert!(!url.has_password());
    }

    #[test]
    fn a_password_that_is_cut_at_a_mark_is_refused_and_no_part_of_it_is_taken_for_a_host() {
        for text in [
            "postgres://u:x@Secret/w#rd@db.example/app",
            "postgres://u:x@Secret#rd@db.example/app",
            "postgres://u:x@Secret/w?rd@db.example/app",
            "amqp://u:x@Secret/w?r=d@db.example/app",
        ] {
            let error = SecretUrl::parse(text, &SCHEMES).unwrap_err();
            assert!(error.contains("%23") && !error.contains("Sec"), "{text}: {error}");
        }
        for text in ["postgres://db.example/app?user=me@server", "postgres://u:x%23y@db.example/app?password=a@b"] {
            SecretUrl::parse(text, &SCHEMES).unwrap();
        }
    }

    #[test]
    fn a_bad_url_is_not_repeated_in_its_error() {
        for text in ["hunter2", "hunter2:x", "amqp//u:hunter2@h", "amqp://u:hunter2@h:99999/"] {
            let error = SecretUrl::parse(text, &SCHEMES).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
    #[test]
    fn a_slip_that_makes_a_path_of_a_password_is_refused_and_not_repeated() {
        for text in ["amqp:/u:hunter2@h/v", "amqp:u:hunter2@h", "amqp:///u:hunter2@h", "amqp://u:1/hunter2@h/v"] {
            let error = SecretUrl::parse(text, &SCHEMES).unwrap_err();
            assert!(error.contains("scheme://user:password@host") && !error.contains("hunter2"), "{text}: {error}");
        }
        assert!(SecretUrl::parse("amqp://h/a%40b", &SCHEMES).is_ok());
        assert!(SecretUrl::parse("postgres:///app?host=/run/postgresql", &SCHEMES).is_ok());
        assert!(SecretUrl::parse("postgres://u:p@/app?host=/run/postgresql", &SCHEMES).is_ok());
    }

    #[test]
    fn a_parameter_that_nobody_knows_is_not_shown_by_name() {
        let url = SecretUrl::parse("amqp://u:1?hunter2&heartbeat=5", &SCHEMES).unwrap();
        assert_eq!(url.to_string(), "amqp://u:1?***=***&heartbeat=5");
    }
}
