//! Headers that the host adds.

use crate::house::*;
use agentry_outbound::Secret;
use agentry_outbound::egress::{Client, Egress, EgressSettings, HttpError, HttpGrant, SecretHeader};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::net::{TcpListener, TcpStream};

const CANARY: &str = "canary-7f3a";

fn secret(requests: &str, name: &'static str) -> SecretHeader {
    let value = Secret::new(format!("Bearer {CANARY}"));
    SecretHeader { requests: pattern(requests), name: http::HeaderName::from_static(name), value }
}

fn with(settings: EgressSettings, secrets: Vec<SecretHeader>) -> Client {
    Egress::new(settings).unwrap().client(HttpGrant { secrets, ..any() })
}

fn reason(error: HttpError) -> String {
    assert!(!format!("{error} {error:?}").contains(CANARY));
    match error {
        HttpError::Invalid { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_goes_with_the_requests_that_it_is_for_and_no_others() {
    let (server, mut requests) = listening().await;
    let port = server.address.port();
    let client = with(open(), vec![secret(&format!("GET http://127.0.0.1:{port}/v1"), "authorization")]);
    for (method, path, goes) in
        [("GET", "/v1/x", true), ("GET", "/", false), ("GET", "/v1x", false), ("POST", "/v1", false)]
    {
        let asked = http::Request::builder().method(method).uri(server.url(path)).body(empty()).unwrap();
        send(&client, asked, exchange()).await.unwrap();
        let seen = soon(requests.recv()).await.unwrap();
        assert_eq!(seen.contains(&format!("authorization: Bearer {CANARY}\r\n")), goes, "{seen}");
    }
    // Another host of the same address.
    get(&client, format!("http://localhost:{port}/v1")).await.unwrap();
    assert!(!soon(requests.recv()).await.unwrap().contains(CANARY));
}

#[tokio::test]
async fn a_secret_does_not_follow_a_redirect() {
    let (other, _requests) = listening().await;
    let moved = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", other.url("/"));
    let server = Server::answering(moved).await;
    let client = with(open(), vec![secret("* http://127.0.0.1:*", "authorization")]);
    assert_eq!(get(&client, server.url("/")).await.unwrap().head.status, 302);
    assert_eq!(other.accepted(), 0);
}

#[tokio::test]
async fn a_server_that_says_back_what_it_was_sent_gives_no_secret_away() {
    let body = format!("you sent Bearer {CANARY}, did you not: {CANARY}");
    let head = format!("HTTP/1.1 200 OK\r\nx-sent: {CANARY}\r\ncontent-length: {}\r\n\r\n", body.len());
    let server = Server::answering(format!("{head}{body}")).await;
    let client = with(open(), vec![secret("* http://127.0.0.1:*", "authorization")]);
    let answer = get(&client, server.url("/")).await.unwrap();
    assert_eq!(answer.head.headers["x-sent"], "*".repeat(CANARY.len()).as_str());
    let stars = |length: usize| "*".repeat(length);
    let wanted = format!("you sent {}, did you not: {}", stars(CANARY.len() + 7), stars(CANARY.len()));
    assert_eq!(String::from_utf8_lossy(&answer.body), wanted);
}

#[tokio::test]
async fn a_secret_that_a_server_encodes_is_covered_too() {
    let encoded = STANDARD.encode(format!("authorization: Bearer {CANARY}!"));
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{encoded}", encoded.len()));
    let server = server.await;
    let client = with(open(), vec![secret("* http://127.0.0.1:*", "authorization")]);
    let answer = get(&client, server.url("/")).await.unwrap();
    let seen = STANDARD.decode(String::from_utf8_lossy(&answer.body).replace('*', "A")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("authorization: ") && !seen.contains("canary") && !seen.contains("7f3a"), "{seen}");
}

#[tokio::test]
async fn a_guest_cannot_set_the_header_itself_where_the_host_does() {
    let (server, mut requests) = listening().await;
    let client = with(open(), vec![secret(&format!("GET {}", server.url("/v1")), "x-key")]);
    let own = |path: &str| {
        let mut asked = request(server.url(path));
        asked.headers_mut().insert("x-key", "mine".parse().unwrap());
        asked
    };
    assert!(reason(send(&client, own("/v1"), exchange()).await.unwrap_err()).contains("x-key"));
    assert_eq!(server.accepted(), 0);
    send(&client, own("/v2"), exchange()).await.unwrap();
    assert!(soon(requests.recv()).await.unwrap().contains("x-key: mine\r\n"));
}

#[tokio::test]
async fn two_secrets_for_one_header_are_refused() {
    let (server, mut requests) = listening().await;
    let url = server.url("/");
    let client = with(open(), vec![secret(&url, "x-key"), secret("http://*:*", "x-key")]);
    assert!(reason(get(&client, &url).await.unwrap_err()).contains("x-key"));
    let client = with(open(), vec![secret(&url, "x-key"), secret("http://*:*", "x-other")]);
    get(&client, &url).await.unwrap();
    assert_eq!(soon(requests.recv()).await.unwrap().matches(CANARY).count(), 2);
}

#[tokio::test]
async fn a_secret_in_plain_text_goes_only_to_what_the_operator_opened() {
    let (server, mut requests) = listening().await;
    let port = server.address.port();
    let secrets = || vec![secret("* http://*:*", "x-key")];
    for host in ["127.0.0.1", "localhost"] {
        get(&with(open(), secrets()), format!("http://{host}:{port}/")).await.unwrap();
        assert!(soon(requests.recv()).await.unwrap().contains(CANARY));
    }
    // A global address is refused before anything is connected to.
    let error = get(&with(open(), secrets()), "http://192.31.196.1/").await.unwrap_err();
    assert!(reason(error).contains("plain text"));
    // An address that is the operator's because it stands in the grant.
    let own = pattern(&server.url("/")).by_operator();
    let grant = HttpGrant { requests: vec![own], secrets: secrets() };
    get(&Egress::new(closed()).unwrap().client(grant), server.url("/")).await.unwrap();
    assert!(soon(requests.recv()).await.unwrap().contains(CANARY));
}

#[tokio::test]
async fn a_secret_in_plain_text_has_connections_of_its_own() {
    let (server, _requests) = listening().await;
    let client = with(open(), vec![secret(&server.url("/v1"), "x-key")]);
    for path in ["/", "/v1", "/", "/v1"] {
        get(&client, server.url(path)).await.unwrap();
    }
    // A kept connection may lead to where no secret may go.
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_value_that_no_header_has_is_refused_without_being_shown() {
    let (server, _requests) = listening().await;
    let bad = SecretHeader { value: Secret::new(format!("{CANARY}\r\nx: y")), ..secret("* http://*:*", "x-key") };
    assert!(reason(get(&with(open(), vec![bad]), server.url("/")).await.unwrap_err()).contains("x-key"));
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn nothing_that_can_be_printed_shows_a_secret() {
    let secrets = vec![secret("* http://*:*", "x-key")];
    let egress = Egress::new(open()).unwrap();
    let grant = HttpGrant { secrets, ..any() };
    let client = egress.client(grant.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = get(&client, format!("http://{address}/?q=query-canary")).await.unwrap_err();
    let server = Server::new(|stream: TcpStream| async move { drop(stream) }).await;
    let broken = get(&client, server.url("/?q=query-canary")).await.unwrap_err();
    let all = format!("{egress:?} {grant:?} {client:?} {refused:?} {refused} {broken:?} {broken}");
    assert!(all.contains("x-key") && !all.contains("canary"), "{all}");
}
