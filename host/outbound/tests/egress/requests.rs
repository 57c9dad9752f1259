//! What leaves the host, and what does not.

use crate::house::*;
use agentry_outbound::egress::{Egress, Exchange, HttpError, HttpGrant, RequestBody};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

type Piece = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

/// A body whose length nobody knows.
fn pieces(pieces: Vec<&'static str>) -> RequestBody {
    let pieces = pieces.into_iter().map(|piece| Piece::Ok(Frame::data(piece.into())));
    StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
}

fn post(url: &str, body: RequestBody) -> http::Request<RequestBody> {
    http::Request::post(url).body(body).unwrap()
}

fn invalid(error: HttpError) -> String {
    match error {
        HttpError::Invalid { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_leaves_as_the_guest_made_it() {
    let (server, mut requests) = listening().await;
    let client = client(open());
    let mut asked = post(&server.url("/a/../b?q=%20&r=1"), full("hello"));
    asked.headers_mut().insert("x-own", "1".parse().unwrap());
    send(&client, asked, exchange()).await.unwrap();
    let seen = soon(requests.recv()).await.unwrap();
    let mut lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines.remove(0), "POST /b?q=%20&r=1 HTTP/1.1");
    lines.sort_unstable();
    let agent = format!("user-agent: agentry/{}", env!("CARGO_PKG_VERSION"));
    let host = format!("host: {}", server.address);
    assert_eq!(lines, ["", "accept: */*", "content-length: 5", "hello", host.as_str(), agent.as_str(), "x-own: 1"]);
}

#[tokio::test]
async fn the_guests_user_agent_stands() {
    let (server, mut requests) = listening().await;
    let mut asked = request(server.url("/"));
    asked.headers_mut().insert("user-agent", "mine/1".parse().unwrap());
    send(&client(open()), asked, exchange()).await.unwrap();
    let seen = soon(requests.recv()).await.unwrap();
    assert!(seen.contains("user-agent: mine/1\r\n") && !seen.contains("agentry"), "{seen}");
}

#[tokio::test]
async fn what_is_not_granted_is_denied_with_the_line_to_add() {
    let (server, _requests) = listening().await;
    let port = server.address.port();
    let patterns = [
        "GET http://127.0.0.1:1",
        "POST https://*:*",
        "GET http://*.test:*",
        &format!("GET http://127.0.0.1:{port}/v1"),
    ];
    let grant = HttpGrant { requests: patterns.map(pattern).to_vec(), secrets: Vec::new() };
    let client = Egress::new(open()).unwrap().client(grant);
    let denied = |method: &str| HttpError::Denied { method: method.into(), origin: format!("http://127.0.0.1:{port}") };
    for path in ["/", "/v1x", "/v1/../x", "/v1/%2e%2e/x", "/v1/%2f"] {
        assert_eq!(get(&client, server.url(path)).await.unwrap_err(), denied("GET"), "{path}");
    }
    let error = send(&client, post(&server.url("/v1"), empty()), exchange()).await.unwrap_err();
    assert_eq!(error, denied("POST"));
    assert!(error.to_string().contains(&format!("http = [\"POST http://127.0.0.1:{port}\"]")), "{error}");
    assert_eq!(server.accepted(), 0);
    get(&client, server.url("/v1/x")).await.unwrap();
    let nothing = Egress::new(open()).unwrap().client(HttpGrant::default());
    assert_eq!(get(&nothing, server.url("/v1")).await.unwrap_err(), denied("GET"));
}

#[tokio::test]
async fn tunnels_and_traces_are_refused() {
    let (server, _requests) = listening().await;
    for method in ["CONNECT", "TRACE"] {
        let asked = http::Request::builder().method(method).uri(server.url("/")).body(empty()).unwrap();
        assert!(invalid(send(&client(open()), asked, exchange()).await.unwrap_err()).contains(method));
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn headers_of_the_connection_are_refused_by_name() {
    let (server, _requests) = listening().await;
    let client = client(open());
    let wrong = [
        ("host", "other.test"),
        ("host", "127.0.0.1"),
        ("host", ""),
        ("host", "/"),
        ("connection", "upgrade"),
        ("connection", "close, x-secret"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("http2-settings", "x"),
        ("expect", "100-continue"),
        ("content-length", "4"),
        ("content-length", "6"),
        ("content-length", "+5"),
        ("content-length", "5, 5"),
        ("content-length", ""),
        ("content-length", "99999999999999999999999"),
    ];
    for (name, value) in wrong {
        let mut asked = post(&server.url("/"), full("hello"));
        asked.headers_mut().insert(name, value.parse().unwrap());
        let reason = invalid(send(&client, asked, exchange()).await.unwrap_err());
        assert!(reason.to_lowercase().contains(name), "{name}: {value}: {reason}");
    }
    let mut asked = post(&server.url("/"), full("hello"));
    asked.headers_mut().append("content-length", "5".parse().unwrap());
    asked.headers_mut().append("content-length", "5".parse().unwrap());
    assert!(invalid(send(&client, asked, exchange()).await.unwrap_err()).contains("more than one"));
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn headers_that_say_what_is_so_anyway_are_no_harm() {
    let (server, mut requests) = listening().await;
    let client = client(open());
    let (host, other_spelling) = (server.address.to_string(), format!("0x7F.1:{}", server.address.port()));
    let harmless = [
        ("host", host.as_str()),
        ("host", &other_spelling),
        ("connection", "keep-alive"),
        ("Connection", "Close"),
        ("content-length", "5"),
    ];
    for (name, value) in harmless {
        let mut asked = post(&server.url("/"), full("hello"));
        asked.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        send(&client, asked, exchange()).await.unwrap();
        let seen = soon(requests.recv()).await.unwrap();
        assert!(!seen.contains("connection:") && seen.matches("host:").count() == 1, "{seen}");
        assert_eq!(seen.matches("content-length: 5\r\n").count(), 1, "{seen}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (server, _requests) = listening().await;
    let mut asked = request(server.url("/"));
    for n in 0..9 {
        asked.headers_mut().append("x-long", format!("{n}{}", "x".repeat(8_000)).parse().unwrap());
    }
    assert!(invalid(send(&client(open()), asked, exchange()).await.unwrap_err()).contains("65536"));
    let mut asked = request(server.url("/"));
    *asked.method_mut() = "A".repeat(1 << 20).parse().unwrap();
    assert!(invalid(send(&client(open()), asked, exchange()).await.unwrap_err()).contains("65536"));
    // Its length is checked before it is compared with a grant.
    let mut asked = request(server.url("/"));
    asked.headers_mut().append("x-long", "x".repeat(65_536).parse().unwrap());
    let ungranted = Egress::new(open()).unwrap().client(HttpGrant::default());
    assert!(invalid(send(&ungranted, asked, exchange()).await.unwrap_err()).contains("65536"));
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_body_beyond_the_cap_is_refused() {
    let (server, mut requests) = listening().await;
    let client = client(open());
    let capped = |request_bytes| Exchange { request_bytes, ..exchange() };
    send(&client, post(&server.url("/"), full("hello")), capped(5)).await.unwrap();
    assert!(soon(requests.recv()).await.unwrap().ends_with("hello"));
    // Its length is known: nothing is sent.
    let error = send(&client, post(&server.url("/"), full("hello")), capped(4)).await.unwrap_err();
    assert_eq!((error, server.accepted()), (HttpError::RequestTooLarge { limit: 4 }, 1));
    // It is not: it is counted.
    let error = send(&client, post(&server.url("/"), pieces(vec!["hel", "lo"])), capped(4)).await.unwrap_err();
    assert_eq!(error, HttpError::RequestTooLarge { limit: 4 });
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_declared_is_refused() {
    let (server, mut requests) = listening().await;
    let client = client(open());
    let declared = |length: &str, body| {
        let mut asked = post(&server.url("/"), body);
        asked.headers_mut().insert("content-length", length.parse().unwrap());
        asked
    };
    send(&client, declared("5", pieces(vec!["hel", "lo"])), exchange()).await.unwrap();
    let seen = soon(requests.recv()).await.unwrap();
    assert!(seen.contains("content-length: 5\r\n") && seen.ends_with("hello"), "{seen}");
    for length in ["4", "6"] {
        let error = send(&client, declared(length, pieces(vec!["hel", "lo"])), exchange()).await.unwrap_err();
        assert!(invalid(error).contains("Content-Length"), "{length}");
    }
    // The cap is for what is declared as well.
    let capped = Exchange { request_bytes: 5, ..exchange() };
    let error = send(&client, declared("6", pieces(vec!["hello", "!"])), capped).await.unwrap_err();
    assert_eq!(error, HttpError::RequestTooLarge { limit: 5 });
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_body_that_fails_is_told() {
    let (server, mut requests) = listening().await;
    let broken = [Piece::Ok(Frame::data("hel".into())), Err("the guest gave up".into())];
    let body = StreamBody::new(futures_util::stream::iter(broken)).boxed_unsync();
    let error = send(&client(open()), post(&server.url("/"), body), exchange()).await.unwrap_err();
    assert!(invalid(error).contains("the guest gave up"));
    assert!(requests.try_recv().is_err(), "a request that is not whole is none");
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_is_refused() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut asked = post(&server.url("/"), pieces(vec!["hello"]));
    *asked.method_mut() = http::Method::GET;
    let error = send(&client(open()), asked, exchange()).await.unwrap_err();
    assert!(invalid(error).contains("Content-Length"));
    // A stream with nothing in it is no body.
    let mut asked = post(&server.url("/"), pieces(vec![]));
    *asked.method_mut() = http::Method::GET;
    send(&client(open()), asked, exchange()).await.unwrap();
}
