//! Why there is no response, or not one to work with.

use crate::Failure;
use std::time::Duration;

/// Why there is no response, or not one to work with. Not shown by `Display`, so that `?` knows what becomes of it;
/// [`message`](Error::message) says it to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Nobody granted it, or the name leads to an address that plugins may not reach. Permanent, code `denied`.
    Denied(String),
    /// The request is none: its URL, a header, a method. Permanent, code `invalid_request`.
    Invalid(String),
    /// It took too long; says at which stage, as far as it is known. Retried, code `timed_out`.
    TimedOut(String),
    /// The name has no address. Retried, code `dns`.
    Dns(String),
    /// There is no connection. Retried, code `connect`.
    Connect(String),
    /// There is no trust. Retried, code `tls`: certificates are renewed.
    Tls(String),
    /// The request or the response is larger than somebody allows. Permanent, code `too_large`.
    TooLarge(String),
    /// What came is no HTTP, not whole, or not what it claims to be. Retried, code `protocol`.
    Protocol(String),
    /// The status is no success, as [`error_for_status`](super::Response::error_for_status) found. Code `http_404` and the
    /// like: retried for 408, 425, 429 and 5xx, not before `retry_after`; otherwise permanent.
    Status {
        /// The status.
        status: u16,
        /// What the server's `Retry-After` says, from now.
        retry_after: Option<Duration>,
        /// For a person.
        message: String,
    },
    /// Called outside a component. Permanent, code `outside_component`.
    Outside,
}

impl Error {
    /// What happened, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Error::Denied(message)
            | Error::Invalid(message)
            | Error::TimedOut(message)
            | Error::Dns(message)
            | Error::Connect(message)
            | Error::Tls(message)
            | Error::TooLarge(message)
            | Error::Protocol(message)
            | Error::Status { message, .. } => message,
            Error::Outside => "HTTP works inside a component only; a native test gives the plugin a stand-in",
        }
    }

    /// Whether the same request may do better later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::TimedOut(_) | Error::Dns(_) | Error::Connect(_) | Error::Tls(_) | Error::Protocol(_) => true,
            Error::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Error::Denied(_) | Error::Invalid(_) | Error::TooLarge(_) | Error::Outside => false,
        }
    }

    /// The failure's code.
    fn code(&self) -> String {
        match self {
            Error::Denied(_) => "denied".into(),
            Error::Invalid(_) => "invalid_request".into(),
            Error::TimedOut(_) => "timed_out".into(),
            Error::Dns(_) => "dns".into(),
            Error::Connect(_) => "connect".into(),
            Error::Tls(_) => "tls".into(),
            Error::TooLarge(_) => "too_large".into(),
            Error::Protocol(_) => "protocol".into(),
            Error::Status { status, .. } => format!("http_{status}"),
            Error::Outside => "outside_component".into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.message();
        let failure = if error.is_temporary() { Failure::retry(message) } else { Failure::permanent(message) };
        let failure = failure.with_code(error.code());
        match error {
            Error::Status { retry_after: Some(after), .. } => failure.with_after(after),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(failure: &Failure) -> (bool, &str) {
        match failure {
            Failure::Retry { code: Some(code), .. } => (true, code),
            Failure::Permanent { code: Some(code), .. } => (false, code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_error_knows_what_becomes_of_it() {
        let said = || "why".to_owned();
        let status = |status| Error::Status { status, retry_after: None, message: said() };
        for (error, retried, code) in [
            (Error::Denied(said()), false, "denied"),
            (Error::Invalid(said()), false, "invalid_request"),
            (Error::TimedOut(said()), true, "timed_out"),
            (Error::Dns(said()), true, "dns"),
            (Error::Connect(said()), true, "connect"),
            (Error::Tls(said()), true, "tls"),
            (Error::TooLarge(said()), false, "too_large"),
            (Error::Protocol(said()), true, "protocol"),
            (status(301), false, "http_301"),
            (status(404), false, "http_404"),
            (status(408), true, "http_408"),
            (status(425), true, "http_425"),
            (status(429), true, "http_429"),
            (status(500), true, "http_500"),
            (status(503), true, "http_503"),
            (Error::Outside, false, "outside_component"),
        ] {
            fn returned(error: Error) -> Result<(), Failure> {
                Err(error)?
            }
            let failure = returned(error.clone()).unwrap_err();
            assert_eq!(code_of(&failure), (retried, code), "{error:?}");
        }
    }

    #[test]
    fn a_retry_waits_as_long_as_the_server_asks() {
        let after = Duration::from_secs(7);
        let error = Error::Status { status: 503, retry_after: Some(after), message: "busy".into() };
        assert!(matches!(error.into(), Failure::Retry { after: Some(seconds), .. } if seconds == after));
    }
}
