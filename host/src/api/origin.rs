//! Requests that a web page of another origin makes a browser send. A form on any page can send a `POST` without a body to an
//! address of this machine. The page cannot read the response, and need not. Browsers mark such requests.

use super::problem::Problem;
use axum::http::{HeaderMap, Method, StatusCode, header};

/// The relation between the page and the address of the request, set by the browser. `none`: the user caused it, not a page.
const SITE: &str = "sec-fetch-site";

/// Reject a request that changes something if a page of another origin sent it. Other clients send neither header and pass.
/// The browser itself keeps responses to `GET` from such pages, since no response allows them (CORS).
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    for value in headers.get_all(header::ORIGIN) {
        if !value.to_str().is_ok_and(|origin| is_own(origin, own)) {
            return Err(foreign("Origin", value, &format!("the Host header, which is {own:?}")));
        }
    }
    for value in headers.get_all(SITE) {
        if !matches!(value.as_bytes(), b"same-origin" | b"none") {
            return Err(foreign("Sec-Fetch-Site", value, "same-origin"));
        }
    }
    Ok(())
}

fn foreign(name: &str, value: &header::HeaderValue, expected: &str) -> Problem {
    let value = String::from_utf8_lossy(value.as_bytes());
    let detail = format!(
        "{name} is {value:?}: a web page of another origin sent this request; {name} must match {expected}, or be absent \
         as in requests of programs"
    );
    Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail)
}

/// Whether an origin is the host and port that the request was sent to. `null` is not.
fn is_own(origin: &str, host: &str) -> bool {
    let (authority, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(authority), _) => (authority, 80),
        // Behind a proxy that ends TLS.
        (_, Some(authority)) => (authority, 443),
        _ => return false,
    };
    let (ours, theirs) = (split(host, port), split(authority, port));
    !ours.0.is_empty() && ours.0.eq_ignore_ascii_case(theirs.0) && ours.1 == theirs.1
}

/// Name and port; a port that is not written is the scheme's. The last colon of a bare `[::1]` begins no port.
fn split(authority: &str, default: u16) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()),
        _ => (authority, Some(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_origin_is_own_if_host_and_port_are_those_of_the_request() {
        for (origin, host) in [
            ("http://127.0.0.1:7070", "127.0.0.1:7070"),
            ("http://LOCALHOST:7070", "localhost:7070"),
            ("http://[::1]:7070", "[::1]:7070"),
            ("http://localhost", "localhost:80"),
            ("http://[::1]", "[::1]"),
            ("https://tasks.example.com", "tasks.example.com"),
        ] {
            assert!(is_own(origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("null", "127.0.0.1:7070"),
            ("", ""),
            ("http://", ""),
            ("http://evil.example", "127.0.0.1:7070"),
            ("http://localhost:3000", "localhost:7070"),
            ("http://localhost", "localhost:7070"),
            ("http://localhost:7070", "127.0.0.1:7070"),
            ("http://localhost:7070.evil.example", "localhost:7070"),
            ("http://localhost:7070@evil.example", "localhost:7070"),
            ("chrome-extension://localhost:7070", "localhost:7070"),
        ] {
            assert!(!is_own(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn only_what_changes_something_is_checked_and_every_mark_counts() {
        let host = ("host", "localhost:7070");
        let own = ("origin", "http://localhost:7070");
        let foreign = ("origin", "http://evil.example");
        let site = |value| ("sec-fetch-site", value);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(check(&method, &headers(&[host, foreign, site("cross-site")])), Ok(()), "{method}");
        }
        for method in [Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            for marks in [&[host][..], &[host, own], &[host, own, site("same-origin")], &[host, site("none")]] {
                assert_eq!(check(&method, &headers(marks)), Ok(()), "{method} {marks:?}");
            }
            for marks in [
                &[host, foreign][..],
                &[host, own, foreign],
                &[own],
                &[host, ("origin", "null")],
                &[host, own, site("cross-site")],
                &[host, site("same-site")],
            ] {
                assert!(check(&method, &headers(marks)).is_err(), "{method} {marks:?}");
            }
        }
        let problem = check(&Method::POST, &headers(&[host, foreign])).unwrap_err();
        let told = format!("{problem:?}");
        assert!(told.contains("evil.example") && told.contains("localhost:7070"), "{told}");
    }
}
