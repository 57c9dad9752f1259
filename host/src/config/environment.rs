//! The variables `AGENTRY_*`.

use super::origin::{Problem, nearest};
use std::ffi::OsString;

const PREFIX: &str = "AGENTRY_";

/// Set to 1, a process stays open to debuggers, and so to every process of its user.
pub const DEBUGGABLE: &str = "AGENTRY_DEBUGGABLE";

/// Variables that only the clients of the command line use.
const OF_CLIENTS: [&str; 2] = ["AGENTRY_SERVER", "AGENTRY_TOKEN"];

/// Variables that are no settings: which file, what the clients of the command line use, and what is decided before settings are read.
const OTHERS: [&str; 5] = ["AGENTRY_CONFIG", OF_CLIENTS[0], OF_CLIENTS[1], "AGENTRY_LOG", DEBUGGABLE];

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Setting, variable, value.
    pub settings: Vec<(String, String, String)>,
    /// `AGENTRY_CONFIG`.
    pub config: Option<String>,
    /// `AGENTRY_LOG`.
    pub log: Option<String>,
}

/// The variable of a setting: `broker.url` is `AGENTRY_BROKER_URL`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Read every `AGENTRY_*` variable; unknown ones are problems.
pub(super) fn read(env: &[(OsString, OsString)], known: &[String], problems: &mut Vec<Problem>) -> Environment {
    let variables: Vec<(String, &String)> = known.iter().map(|key| (variable(key), key)).collect();
    let mut found = Environment::default();
    let mut sorted: Vec<_> = env.iter().collect();
    sorted.sort();
    for (name, value) in sorted {
        let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX)) else { continue };
        let Some(value) = value.to_str() else {
            problems.push(Problem(format!("env {name}: its value is not UTF-8")));
            continue;
        };
        if let Some((_, key)) = variables.iter().find(|(variable, _)| variable == name) {
            found.settings.push(((*key).clone(), name.to_owned(), bare(value).to_owned()));
        } else if OTHERS.contains(&name) {
            let value = Some(bare(value).to_owned()).filter(|v| !v.is_empty());
            match name {
                "AGENTRY_CONFIG" => found.config = value,
                "AGENTRY_LOG" => found.log = value,
                _ => {}
            }
        } else if !injected_by_kubernetes(name, value) && !of_this_build(name) {
            problems.push(unknown(name, &variables));
        }
    }
    found
}

/// A value without white space around it, and without quotes around the whole: files of variables have them, and what reads such a
/// file (`docker run --env-file`, systemd before version 245) may leave them and a carriage return in the value.
pub(super) fn bare(value: &str) -> &str {
    let value = value.trim();
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value).trim()
}

/// Whether a daemon reads settings from this variable.
pub(super) fn is_of_settings(name: &str) -> bool {
    name.starts_with(PREFIX) && !OF_CLIENTS.contains(&name)
}

/// Variables that only the build for tests of faults knows.
fn of_this_build(_name: &str) -> bool {
    #[cfg(feature = "failpoints")]
    if crate::failpoints::VARIABLES.contains(&_name) {
        return true;
    }
    false
}

fn unknown(name: &str, variables: &[(String, &String)]) -> Problem {
    if name.starts_with("AGENTRY_QUEUES_") {
        return Problem(format!("env {name}: [queues.NAME] is set in the settings file only; unset {name}"));
    }
    let known = variables.iter().map(|(variable, _)| variable.as_str()).chain(OTHERS);
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => "unset it; `agentry config show` lists every setting".into(),
    };
    Problem(format!("env {name}: unknown variable; {hint}"))
}

/// Kubernetes sets variables for every service of a namespace (`docs/concepts/services-networking/service`, "Environment
/// variables"): `AGENTRY_SERVICE_HOST`, `AGENTRY_SERVICE_PORT[_NAME]`, `AGENTRY_PORT`, `AGENTRY_PORT_7070_TCP[_PROTO|_PORT|_ADDR]`
/// for a service named `agentry`, and the same behind `AGENTRY_API_` for one named `agentry-api`.
fn injected_by_kubernetes(name: &str, value: &str) -> bool {
    let rest = &name[PREFIX.len() - 1..]; // with the underscore: `_SERVICE_HOST`
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let ends_with_port_of_protocol = || {
        let Some((_, tail)) = rest.rsplit_once("_PORT_") else { return false };
        let mut parts = tail.split('_');
        let number = parts.next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        let protocol = parts.next().is_some_and(|p| ["TCP", "UDP", "SCTP"].contains(&p));
        let what = parts.next().is_none_or(|w| ["PROTO", "PORT", "ADDR"].contains(&w));
        number && protocol && what && parts.next().is_none()
    };
    // `AGENTRY_PORT_7070_TCP_PORT` splits at its last `_PORT_`; only `…_TCP_PORT` ends in one without a tail.
    let of_protocol = ends_with_port_of_protocol();
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || of_protocol
        || (rest.ends_with("_PORT") && is_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, value: &str) -> Vec<Problem> {
        let known = ["broker.url".to_owned(), "worker.slots".to_owned()];
        let mut problems = Vec::new();
        read(&[(name.into(), value.into())], &known, &mut problems);
        problems
    }

    #[test]
    fn what_kubernetes_injects_is_ignored() {
        for (name, value) in [
            ("AGENTRY_SERVICE_HOST", "10.0.0.1"),
            ("AGENTRY_SERVICE_PORT", "7070"),
            ("AGENTRY_SERVICE_PORT_HTTP", "7070"),
            ("AGENTRY_PORT", "tcp://10.0.0.1:7070"),
            ("AGENTRY_PORT_7070_TCP", "tcp://10.0.0.1:7070"),
            ("AGENTRY_PORT_7070_TCP_PROTO", "tcp"),
            ("AGENTRY_PORT_7070_TCP_PORT", "7070"),
            ("AGENTRY_PORT_7070_TCP_ADDR", "10.0.0.1"),
            ("AGENTRY_API_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert_eq!(problems(name, value), [], "{name}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not() {
        for (name, value) in [("AGENTRY_PORT", "7070"), ("AGENTRY_PORT_TCP", "x"), ("AGENTRY_PORT_X_TCP", "x")] {
            assert_eq!(problems(name, value).len(), 1, "{name}");
        }
    }

    #[test]
    fn an_unknown_variable_is_told_with_the_nearest_known_one() {
        let text = problems("AGENTRY_WORKER_SLOT", "3")[0].to_string();
        assert_eq!(text, "env AGENTRY_WORKER_SLOT: unknown variable; did you mean AGENTRY_WORKER_SLOTS?");
        assert_eq!(problems("AGENTRY_TEST_POSTGRES", "x").len(), 1, "a test's variable is none of the daemon's");
    }

    #[test]
    fn quotes_and_white_space_around_a_value_are_not_part_of_it() {
        for (value, expected) in [
            ("\"amqp://h\"", "amqp://h"),
            ("'amqp://h'", "amqp://h"),
            (" amqp://h \r", "amqp://h"),
            ("\"\"", ""),
            ("\"a\",\"b\"", "\"a\",\"b\""),
            ("\"", "\""),
            ("it's", "it's"),
        ] {
            assert_eq!(bare(value), expected, "{value:?}");
        }
    }

    #[test]
    fn variables_of_the_client_and_of_others_are_left_alone() {
        assert_eq!(problems("AGENTRY_TOKEN", "x"), []);
        assert_eq!(problems("DATABASE_URL", "x"), []);
    }
}
