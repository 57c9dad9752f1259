//! Who is asking, and whether they may.

use super::problem::Problem;
use super::share::Share;
use super::steering::Actor;
use super::tokens::{Scope, Token};
use super::{ApiState, Tokens, origin};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of the path and the query of a request.
const URI: usize = 8 * 1_024;
/// Headers of a request. hyper rejects more than 100 by itself.
const HEADERS: usize = 64;
/// Bytes of the headers of a request, names and values.
const HEADER_BYTES: usize = 32 * 1_024;

/// Paths that anybody may ask.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// The name of everybody who may call an API without tokens.
const ANYONE: &str = "api";

/// A share, and a place of it.
type Taken = (Share, OwnedSemaphorePermit);

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// No valid token, and one is needed.
    Unknown,
    /// May read.
    Reader,
    /// May do everything.
    Operator,
}

/// Let a request through, or say why not.
pub(super) async fn guard(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    let mut response = match admit(&state, &request) {
        Ok((caller, actor, taken)) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(actor);
            let place = taken.map(|(share, place)| {
                request.extensions_mut().insert(share);
                place
            });
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(problem) => problem.into_response(),
    };
    // Answers hold what producers and guests wrote: a browser must not take one for a page or a script.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns the caller, the caller's name, and a reserved place of the caller's share. Paths without a token take no place.
fn admit(state: &ApiState, request: &Request) -> Result<(Caller, Actor, Option<Taken>), Problem> {
    bounded(request)?;
    let tokens = state.parts.tokens.as_ref();
    if tokens.is_none() {
        addressed_to_us(request.headers())?;
    }
    // With tokens too: a proxy may add one to whatever comes.
    origin::check(request.method(), request.headers())?;
    let (caller, token) = caller(tokens, request.headers());
    let is_open = OPEN.contains(&request.uri().path());
    permitted(caller, request.method(), is_open, request.headers().contains_key(header::AUTHORIZATION))?;
    if !is_open && state.parts.readiness.borrow().is_loading() {
        let detail = "the daemon is starting: plugins are being compiled; retry when /readyz is 200";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", detail));
    }
    let share = if is_open { None } else { Some(state.share(token.as_ref())) };
    let taken = share.map(|share| share.request().map(|place| (share.clone(), place))).transpose()?;
    let actor = Actor(token.map_or_else(|| ANYONE.into(), |token| token.name.as_str().into()));
    Ok((caller, actor, taken))
}

/// Rejects a head that is larger than any that a client needs.
fn bounded(request: &Request) -> Result<(), Problem> {
    let uri = request.uri().path_and_query().map_or(0, |both| both.as_str().len());
    if uri > URI {
        let detail = format!("path and query have {uri} bytes; allowed are {URI}: send shorter filters");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let (headers, too_large) = (request.headers(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    if headers.len() > HEADERS {
        let detail = format!("the request has {} headers; allowed are {HEADERS}", headers.len());
        return Err(Problem::new(too_large, "headers_too_large", detail));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES {
        let detail = format!("the headers of the request have {bytes} bytes; allowed are {HEADER_BYTES}");
        return Err(Problem::new(too_large, "headers_too_large", detail));
    }
    Ok(())
}

/// Returns the caller and the token, if there is an accepted one.
fn caller(tokens: Option<&Tokens>, headers: &HeaderMap) -> (Caller, Option<Token>) {
    let Some(tokens) = tokens else { return (Caller::Operator, None) };
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match bearer.and_then(|token| tokens.find(token)) {
        None => (Caller::Unknown, None),
        Some(token) if token.scope == Scope::Read => (Caller::Reader, Some(token)),
        Some(token) => (Caller::Operator, Some(token)),
    }
}

fn permitted(caller: Caller, method: &Method, open: bool, authorized: bool) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match caller {
        _ if open => Ok(()),
        Caller::Operator => Ok(()),
        Caller::Reader if reads => Ok(()),
        Caller::Reader => {
            let detail = "this token's scope is read; what changes something needs one whose scope is full";
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
        }
        Caller::Unknown if authorized => {
            let detail = "the token is not one of api.tokens_file: Authorization: Bearer TOKEN (AGENTRY_TOKEN for the \
                          command line)";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
        }
        Caller::Unknown => {
            let detail = "a token of api.tokens_file is needed: Authorization: Bearer TOKEN (AGENTRY_TOKEN for the \
                          command line)";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
        }
    }
}

/// Without tokens everything that reaches loopback may call, a browser on this machine too. A page whose name was made to
/// point to 127.0.0.1 (DNS rebinding) gives itself away by that name: only numeric addresses and localhost are ours.
fn addressed_to_us(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let host = host.to_str().unwrap_or("?");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let detail = format!(
        "the request is for the host {host:?}; without api.tokens_file only numeric addresses and localhost are answered"
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn without_a_file_of_tokens_everybody_may_do_everything() {
        assert_eq!(caller(None, &HeaderMap::new()).0, Caller::Operator);
    }

    #[test]
    fn with_one_a_token_says_what_is_allowed() {
        let tokens = Tokens::of("r read 0123456789abcdef\nf full fedcba9876543210");
        let of = |value: &str| caller(Some(&tokens), &headers(header::AUTHORIZATION, value)).0;
        assert_eq!(of("Bearer 0123456789abcdef"), Caller::Reader);
        assert_eq!(of("bearer fedcba9876543210"), Caller::Operator);
        assert_eq!(of("Basic fedcba9876543210"), Caller::Unknown);
        assert_eq!(of("Bearer nobody"), Caller::Unknown);
        assert!(permitted(Caller::Reader, &Method::GET, false, true).is_ok());
        assert!(permitted(Caller::Reader, &Method::POST, false, true).is_err());
        for (authorized, says) in [(true, "is not one of api.tokens_file"), (false, "is needed")] {
            let problem = permitted(Caller::Unknown, &Method::GET, false, authorized).unwrap_err();
            assert!(format!("{problem:?}").contains(says), "{problem:?}");
        }
        assert!(permitted(Caller::Unknown, &Method::GET, true, false).is_ok());
    }

    #[test]
    fn a_page_that_renamed_loopback_is_refused() {
        for host in ["127.0.0.1:7070", "localhost", "localhost:7070", "[::1]:7070", "[::1]", "10.0.0.1"] {
            assert!(addressed_to_us(&headers(header::HOST, host)).is_ok(), "{host}");
        }
        for host in ["evil.example:7070", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(addressed_to_us(&headers(header::HOST, host)).is_err(), "{host}");
        }
    }
}
