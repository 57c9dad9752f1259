//! Requests of guests through the operator's proxy.

use crate::connect::{Manner, Proxy};
use crate::house::*;
use crate::tls::{Authority, https, named};
use agentry_outbound::Secret;
use agentry_outbound::egress::{Egress, EgressSettings, HttpError, HttpGrant, SecretHeader, Stage};

/// `me:open sesame`.
const CREDENTIALS: &str = "me:open%20sesame@";
const BASIC: &str = "bWU6b3BlbiBzZXNhbWU=";

fn through(proxy: &Proxy, settings: EgressSettings) -> EgressSettings {
    EgressSettings { proxy: Some(proxy.url(CREDENTIALS)), ..settings }
}

/// Why a host was not connected to.
fn reason(error: HttpError) -> String {
    match error {
        HttpError::Connect { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_request_is_handed_to_the_proxy_which_resolves() {
    let (server, mut requests) = listening().await;
    let proxy = Proxy::new(Manner::Wants(BASIC), server.address).await;
    let answer = get(&client(through(&proxy, closed())), "http://pages.invalid:8080/a?b").await.unwrap();
    assert_eq!(answer.body, "ok");
    assert_eq!(proxy.asked(), ["GET http://pages.invalid:8080/a?b HTTP/1.1"]);
    let asked = soon(requests.recv()).await.unwrap();
    assert!(asked.starts_with("GET /a?b HTTP/1.1") && asked.contains("host: pages.invalid:8080"), "{asked}");
}

#[tokio::test]
async fn request_over_tls_goes_through_a_tunnel() {
    let authority = Authority::new();
    let (server, _requests) = https(authority.certify(named("pages.invalid"), b"http/1.1")).await;
    let proxy = Proxy::new(Manner::Wants(BASIC), server.address).await;
    let settings = EgressSettings { private: Vec::new(), ..authority.settings() };
    let client = client(through(&proxy, settings));
    for _ in 0..2 {
        assert_eq!(get(&client, "https://pages.invalid/").await.unwrap().body, "ok");
    }
    assert_eq!(proxy.asked(), ["CONNECT pages.invalid:443 HTTP/1.1"], "one tunnel carries both requests");
    let error = get(&client, "https://other.invalid/").await.unwrap_err();
    assert!(matches!(error, HttpError::Tls { .. }), "the certificate is of another name: {error:?}");
}

#[tokio::test]
async fn patterns_and_addresses_are_judged_before_the_proxy() {
    let (server, _requests) = listening().await;
    let proxy = Proxy::new(Manner::Connects, server.address).await;
    let egress = Egress::new(through(&proxy, closed())).unwrap();
    let only = HttpGrant { requests: vec![pattern("GET http://pages.invalid")], secrets: Vec::new() };
    let error = get(&egress.client(only), "http://other.invalid/").await.unwrap_err();
    assert!(matches!(error, HttpError::Denied { .. }), "{error:?}");
    let client = egress.client(any());
    for host in [
        "10.0.0.1",
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "localhost",
        "a.localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "ip6-loopback",
    ] {
        for scheme in ["http", "https"] {
            let error = get(&client, format!("{scheme}://{host}/")).await.unwrap_err();
            assert!(matches!(error, HttpError::ForbiddenAddress { .. }), "{scheme}://{host}: {error:?}");
        }
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn opened_address_of_this_machine_is_not_asked_of_the_proxy() {
    let (server, _requests) = listening().await;
    let proxy = Proxy::new(Manner::Connects, server.address).await;
    let opened = ["127.0.0.0/8", "::1/128", "169.254.0.0/16"].map(|opened| network(opened, None));
    let client = client(through(&proxy, EgressSettings { private: opened.into(), ..closed() }));
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"] {
        for scheme in ["http", "https"] {
            let error = get(&client, format!("{scheme}://{host}/")).await.unwrap_err();
            let HttpError::Invalid { reason } = error else { panic!("{scheme}://{host}: {error:?}") };
            assert!(reason.contains("http.proxy"), "{reason}");
        }
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn secret_in_plain_text_goes_to_no_name_through_the_proxy() {
    let (server, mut requests) = listening().await;
    let proxy = Proxy::new(Manner::Connects, server.address).await;
    let secret = SecretHeader {
        requests: pattern("* http://*:*"),
        name: "x-key".parse().unwrap(),
        value: Secret::new("hunter2-hunter2"),
    };
    let grant = || HttpGrant { secrets: vec![secret.clone()], ..any() };
    let opened = EgressSettings { private: vec![network("10.0.0.0/8", None)], ..closed() };
    let client = Egress::new(through(&proxy, opened)).unwrap().client(grant());
    let error = get(&client, "http://pages.invalid/").await.unwrap_err();
    assert!(matches!(error, HttpError::Invalid { .. }), "{error:?}");
    assert_eq!(proxy.asked(), Vec::<String>::new());
    assert_eq!(get(&client, "http://10.0.0.1/").await.unwrap().body, "ok");
    assert!(soon(requests.recv()).await.unwrap().contains("hunter2-hunter2"));
}

#[tokio::test]
async fn each_failure_of_the_proxy_names_its_setting_and_shows_no_credentials() {
    let cases = [
        (Manner::Wants("bm90aGluZw=="), "https", "wants other credentials (407)"),
        (Manner::Wants("bm90aGluZw=="), "http", "wants other credentials (407)"),
        (Manner::Refuses(403), "https", "does not connect to the server"),
        (Manner::Closes, "https", "broke the connection"),
    ];
    for (manner, scheme, why) in cases {
        let proxy = Proxy::new(manner.clone(), ([127, 0, 0, 1], 1).into()).await;
        let error = get(&client(through(&proxy, closed())), format!("{scheme}://pages.invalid/")).await.unwrap_err();
        let shown = error.to_string();
        assert!(!shown.contains("sesame") && !shown.contains(&proxy.address.to_string()), "{shown}");
        let reason = reason(error);
        assert!(reason.contains("http.proxy") && reason.contains(why), "{manner:?} {scheme}: {reason}");
    }
    for proxy in ["http://127.0.0.1:1", "http://proxy.invalid:1"] {
        for scheme in ["http", "https"] {
            let settings = EgressSettings { proxy: Some(proxy.parse().unwrap()), ..closed() };
            let reason = reason(get(&client(settings), format!("{scheme}://pages.invalid/")).await.unwrap_err());
            assert!(reason.contains("http.proxy: it cannot be connected to"), "{proxy} {scheme}: {reason}");
            assert!(!reason.contains("proxy.invalid"), "{reason}");
        }
    }
}

#[tokio::test]
async fn proxy_that_never_answers_ends_at_connect() {
    let proxy = Proxy::new(Manner::Hangs, ([127, 0, 0, 1], 1).into()).await;
    let settings = EgressSettings { connect: SHORT, ..closed() };
    let error = get(&client(through(&proxy, settings)), "https://pages.invalid/").await.unwrap_err();
    assert_eq!(error, timed_out(Stage::Connect, SHORT));
}

#[tokio::test]
async fn credentials_that_the_proxy_repeats_are_covered() {
    let proxy = Proxy::new(Manner::Refuses(502), ([127, 0, 0, 1], 1).into()).await;
    let answer = get(&client(through(&proxy, closed())), "http://pages.invalid/").await.unwrap();
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.head.status, 502);
    assert!(shown.to_ascii_lowercase().contains("proxy-authorization") && !shown.contains(BASIC), "{shown}");
}
