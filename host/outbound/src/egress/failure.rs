//! The client's errors in words of our own: reqwest's have the URL with its query in them, and others the address.

use super::HttpError;
use crate::proxy;
use std::error::Error;

/// How a request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// Through the proxy, in a tunnel.
    Tunnel,
    /// To the proxy, as a whole: every connection is one to the proxy.
    Handed,
}

/// The proxy failed.
pub(super) fn of_proxy(host: &str, why: &str) -> HttpError {
    HttpError::Connect { host: host.to_owned(), reason: format!("the proxy of http.proxy: {why}") }
}

/// What went wrong.
pub(super) fn of(error: &reqwest::Error, host: &str, way: Way) -> HttpError {
    if way != Way::Direct
        && let Some(why) = proxy::failure(error)
    {
        return of_proxy(host, &why);
    }
    if way == Way::Handed && error.is_connect() {
        return of_proxy(host, &format!("it cannot be connected to: {}", proxy::innermost(error)));
    }
    let host = host.to_owned();
    if let Some(own) = find::<HttpError>(error) {
        return own.clone();
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return HttpError::Tls { host, reason: tls.to_string() };
    }
    if let Some(http) = find::<hyper::Error>(error) {
        return of_http(http);
    }
    let reason =
        find::<std::io::Error>(error).map_or_else(|| "for no reason that is known".into(), |e| e.kind().to_string());
    if error.is_connect() { HttpError::Connect { host, reason } } else { HttpError::Broken { reason } }
}

fn of_http(error: &hyper::Error) -> HttpError {
    if error.is_parse_too_large() {
        return HttpError::HeadTooLarge;
    }
    if error.is_incomplete_message() {
        return HttpError::Broken { reason: "closed before the message was complete".into() };
    }
    let reason = match find::<std::io::Error>(error) {
        Some(io) => io.kind().to_string(),
        None if error.is_parse() => format!("what came is not HTTP: {error}"),
        None => error.to_string(),
    };
    HttpError::Broken { reason }
}

/// The first of its kind in the chain of causes. An I/O error hides its cause from [`Error::source`].
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let hidden = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let hidden = hidden.map(|inner| inner as &(dyn Error + 'static));
    hidden.and_then(find).or_else(|| error.source().and_then(find))
}
