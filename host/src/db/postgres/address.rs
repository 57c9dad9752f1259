//! `database.url`: where it leads, and nowhere else. What the client would fill in from the environment (PGHOST, PGUSER, PGPASSWORD,
//! ~/.pgpass …) must stand in the address, and what it would pass over is rejected.

use super::super::DbError;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;
use url::Url;

const FORM: &str = "write postgres://user:password@host:5432/database";

/// Parameters that the client understands.
const KNOWN: [&str; 18] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "options",
    "application_name",
    "statement-cache-capacity",
];
/// Names of the file of authorities.
const ROOTS: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
/// Parameters of libpq and of hosted databases that change nothing with these values, and are passed over.
const EMPTY: [(&str, &[&str]); 7] = [
    ("channel_binding", &["disable", "prefer"]),
    ("gssencmode", &["disable", "prefer"]),
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "utf-8", "auto"]),
    ("load_balance_hosts", &["disable"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
];
/// Others of theirs, each with the remedy.
const REFUSED: [(&str, &str); 7] = [
    ("channel_binding", "the client has no channel binding: remove it, and write sslmode=verify-full"),
    ("target_session_attrs", "the daemon writes: name the primary, and remove it"),
    ("sslnegotiation", "the client negotiates TLS as PostgreSQL before 17 does: remove it"),
    ("connect_timeout", "remove it, and set database.timeout_seconds"),
    ("schema", "remove it, and set database.schema"),
    ("connection_limit", "remove it, and set database.pool"),
    ("pool_timeout", "remove it, and set database.timeout_seconds"),
];

/// The address with a host where libpq allows none: `postgres://user@/database?host=/run/postgresql`. The parameter stands in for it.
pub fn with_host(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Cow::Borrowed(text) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let named = rest.split_once('?').is_some_and(|(_, query)| {
        query.split('&').any(|pair| pair.starts_with("host=") || pair.starts_with("hostaddr="))
    });
    match matches!(scheme, "postgres" | "postgresql") && authority.ends_with('@') && named {
        true => Cow::Owned(format!("{scheme}://{authority}localhost{}", &rest[authority.len()..])),
        false => Cow::Borrowed(text),
    }
}

/// Checks an address as far as that is possible without a connection.
///
/// # Errors
/// The reason, without its password.
pub fn check(text: &str) -> Result<(), String> {
    destination(text).map(drop).map_err(|error| error.to_string())
}

pub(super) fn destination(text: &str) -> Result<PgConnectOptions, DbError> {
    let refuse = |what: String| DbError::Refused(format!("database.url {what}"));
    let incomplete = |what: &str| refuse(format!("{what}; {FORM}"));
    // The parser's own words may quote the address, password and all.
    let mut url = Url::parse(&with_host(text)).map_err(|e| incomplete(&format!("does not read: {e}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(incomplete(&format!("begins with {}:", url.scheme())));
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let value = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let given = |key: &str| value(key).is_some();
    if url.host_str().is_none_or(str::is_empty) && !given("host") && !given("hostaddr") {
        return Err(incomplete("names no host"));
    }
    let hosts = [url.host_str(), value("host"), value("hostaddr")];
    if hosts.into_iter().flatten().any(|host| host.contains(',') && !host.starts_with('/')) {
        return Err(refuse("names several hosts; name one: the primary, or an address that leads to it".into()));
    }
    if url.username().is_empty() && !given("user") {
        return Err(incomplete("names no user"));
    }
    if url.path().trim_matches('/').is_empty() && !given("dbname") {
        return Err(incomplete("names no database"));
    }
    environment(&given).map_err(refuse)?;
    let mut kept = Vec::with_capacity(pairs.len());
    for (key, value) in &pairs {
        if EMPTY.iter().any(|(known, values)| known == key && values.contains(&value.as_str())) {
            continue;
        }
        if let Some((_, remedy)) = REFUSED.iter().find(|(known, _)| known == key) {
            return Err(refuse(format!("has {key}={value:?}: {remedy}")));
        }
        let is_option = key.starts_with("options[") && key.ends_with(']');
        if !is_option && !KNOWN.contains(&key.as_str()) {
            // The name may be the rest of a password that holds a question mark.
            let name = if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !text_has_at(&url) {
                key
            } else {
                "one"
            };
            return Err(refuse(format!("has a parameter that is not known ({name}); known are {}", KNOWN.join(", "))));
        }
        if ROOTS.contains(&key.as_str()) && value == "system" {
            // The client takes the system's authorities where no file is named.
            continue;
        }
        if ROOTS.contains(&key.as_str()) || ["sslcert", "ssl-cert", "sslkey", "ssl-key"].contains(&key.as_str()) {
            readable(key, value).map_err(refuse)?;
        }
        kept.push((key.clone(), value.clone()));
    }
    let system = ROOTS.iter().any(|root| value(root) == Some("system"));
    let mode = value("sslmode").or(value("ssl-mode"));
    if system && mode.is_some_and(|mode| mode != "verify-full") {
        return Err(refuse("has sslrootcert=system, which goes with sslmode=verify-full alone".into()));
    }
    match kept.is_empty() {
        true => url.set_query(None),
        false => drop(url.query_pairs_mut().clear().extend_pairs(&kept)),
    }
    let mut options = PgConnectOptions::from_str(url.as_str()).map_err(|_| incomplete("does not read"))?;
    if let Some(host) = url.host_str().and_then(|host| host.strip_prefix('[')?.strip_suffix(']'))
        && !given("host")
        && !given("hostaddr")
    {
        options = options.host(host);
    }
    if url.port().is_none() && !given("port") {
        options = options.port(5432);
    }
    if url.password().is_none() && !given("password") {
        options = options.password("");
    }
    if mode.is_none() {
        options = options.ssl_mode(if system { PgSslMode::VerifyFull } else { PgSslMode::Prefer });
    }
    // Values travel in binary form, which it does not concern, and poolers reject it.
    Ok(options.extra_float_digits(None))
}

fn text_has_at(url: &Url) -> bool {
    url.query().is_some_and(|query| query.contains('@'))
}

/// These the client reads where the address is silent, and no call takes them back.
fn environment(given: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let obeyed = [
        ("PGOPTIONS", "options[NAME]=VALUE"),
        ("PGSSLROOTCERT", "sslrootcert=FILE"),
        ("PGSSLCERT", "sslcert=FILE"),
        ("PGSSLKEY", "sslkey=FILE"),
    ];
    for (variable, instead) in obeyed {
        let overridden = instead.split_once('=').is_some_and(|(key, _)| given(key));
        if !overridden && std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
            return Err(format!(
                "leaves a choice to the environment variable {variable}: unset it, and add ?{instead} if it is wanted; {FORM}"
            ));
        }
    }
    Ok(())
}

/// A file of TLS that can be read. What it holds is checked with the first connection.
fn readable(key: &str, value: &str) -> Result<(), String> {
    match std::fs::read(Path::new(value)) {
        Ok(bytes) if bytes.windows(11).any(|window| window == b"-----BEGIN ") => Ok(()),
        Ok(_) => Err(format!("has {key}={value:?}, which is not a PEM file")),
        Err(error) => Err(format!("has {key}={value:?}, which cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_leaves_a_choice_to_the_environment_is_refused_without_showing_its_password() {
        for (url, what) in [
            ("postgres://user:secret@/db", "host"),
            ("postgres://:secret@host/db", "user"),
            ("postgres://user:secret@host", "database"),
            ("mysql://user:secret@host/db", "mysql"),
            ("user:secret@host/db", ""),
            ("postgres://user:secret@host:99999/db", ""),
            ("postgres://user:secret@host/db?sslmode=nonsense", ""),
            ("postgres://user:secret@one,two/db", "several hosts"),
            ("postgres://user:secret@/db?host=one,two", "several hosts"),
            ("postgres://user:secret@host/db?channel_binding=require", "sslmode=verify-full"),
            ("postgres://user:secret@host/db?target_session_attrs=standby", "primary"),
            ("postgres://user:secret@host/db?connect_timeout=10", "database.timeout_seconds"),
            ("postgres://user:secret@host/db?schema=public", "database.schema"),
            ("postgres://user:secret@host/db?sslmod=require", "(sslmod)"),
            ("postgres://user:1?secret@host/db", "names no user"),
            ("postgres://user:secret@host/db?sslrootcert=/missing/ca.pem", "/missing/ca.pem"),
            ("postgres://user:secret@host/db?sslrootcert=/dev/null", "not a PEM file"),
            ("postgres://user:secret@host/db?sslrootcert=system&sslmode=require", "sslmode=verify-full"),
        ] {
            let error = destination(url).unwrap_err().to_string();
            assert!(error.contains("database.url") && error.contains(what), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let options = destination("postgres://me@there/mine").unwrap();
        assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("there", 5432, "me"));
        assert_eq!(options.get_database(), Some("mine"));
    }

    #[test]
    fn every_form_of_an_address_that_others_hand_out_is_read() {
        for (url, host, user, database) in [
            ("postgresql://me:p%40ss%2Fword@there/mine", "there", "me", "mine"),
            ("postgres://me@there:6432/mine?sslmode=verify-full&sslrootcert=system", "there", "me", "mine"),
            ("postgres://me@there/mine?sslrootcert=system", "there", "me", "mine"),
            ("postgres://me@there/mine?channel_binding=prefer&target_session_attrs=read-write", "there", "me", "mine"),
            ("postgres://me%2Bx@[::1]:5433/my%20db", "::1", "me+x", "my db"),
            ("postgres://ignored@/ignored?host=there&user=me&dbname=mine", "there", "me", "mine"),
            ("postgres://me@there/mine?options=-c%20work_mem%3D8MB", "there", "me", "mine"),
        ] {
            let options = destination(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (options.get_host(), options.get_username(), options.get_database()),
                (host, user, Some(database))
            );
        }
        for url in [
            "postgres:///mine?host=/run/postgresql&user=me",
            "postgres://me:secret@/mine?host=/run/postgresql",
            "postgres://me@%2Frun%2Fpostgresql/mine",
        ] {
            let options = destination(url).unwrap();
            assert_eq!(options.get_socket().map(|path| path.as_path()), Some(Path::new("/run/postgresql")), "{url}");
        }
        let mode = destination("postgres://me@there/mine?sslrootcert=system").unwrap().get_ssl_mode();
        assert!(matches!(mode, PgSslMode::VerifyFull), "{mode:?}");
    }
}
