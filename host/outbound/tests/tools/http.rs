//! What a plugin sees of a server over streamable HTTP.

use crate::http_server::HttpServer;
use crate::*;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Settings for an endpoint.
pub fn at(url: url::Url, headers: &[(&str, &str)], ca_file: Option<&Path>) -> ServerSettings {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    let transport = Transport::Http { url, headers, proxy: None, ca_file: ca_file.map(Path::to_owned) };
    ServerSettings { transport, start: PATIENCE, call: PATIENCE, output_bytes: 64 << 10 }
}

fn reason(error: ToolError) -> String {
    match error {
        ToolError::Unavailable { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_is_answered_in_json_or_as_events_with_the_configured_headers() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[("x-team", "blue")], None));
    let session = session(&tools);
    assert_eq!(text(&session, "echo", json!({"text": "a"})).await, "a");
    for tool in ["headers", "stream"] {
        let headers = text(&session, tool, json!({})).await;
        assert!(headers.contains("x-team: blue; "), "{headers}");
        assert!(headers.contains("mcp-session-id: session-1; "), "{headers}");
        assert!(headers.contains("mcp-protocol-version: 2025-06-18; "), "{headers}");
    }
    tools.close().await;
    assert_eq!(server.seen.count("DELETE"), 1, "the session is not closed");
}

#[tokio::test]
async fn each_plugin_has_a_session_of_its_own() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let (one, other) = (session(&tools), tools.session("another", granted("it", &["*"])));
    assert!(text(&one, "headers", json!({})).await.contains("session-1"));
    assert!(text(&other, "headers", json!({})).await.contains("session-2"));
    assert!(text(&one, "headers", json!({})).await.contains("session-1"));
}

#[tokio::test]
async fn a_session_that_expired_is_opened_again() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let session = session(&tools);
    assert_eq!(text(&session, "expire", json!({})).await, "forgotten");
    assert!(text(&session, "headers", json!({})).await.contains("session-2"));
    assert_eq!(server.seen.count("headers"), 1);
}

#[tokio::test]
async fn a_call_that_hangs_is_cancelled_at_the_server_and_the_session_goes_on() {
    let server = HttpServer::start("well").await;
    let mut settings = at(server.url(), &[], None);
    settings.call = Duration::from_secs(1);
    let tools = only(settings);
    let session = session(&tools);
    let late = call(&session, "hang", json!({})).await.unwrap_err();
    assert_eq!(late, ToolError::TimedOut { server: "it".into(), limit: Duration::from_secs(1), sent: true });
    assert!(server.seen.cancelled().await.is_number());
    assert!(text(&session, "headers", json!({})).await.contains("session-1"));
}

#[tokio::test]
async fn what_is_no_server_of_the_protocol_is_told_so() {
    for (mode, words) in
        [("html", "text/html"), ("unauthorized", "it wants other credentials"), ("silent", "within 1s")]
    {
        let server = HttpServer::start(mode).await;
        let mut settings = at(server.url(), &[], None);
        settings.start = Duration::from_secs(1);
        let told = reason(call(&session(&only(settings)), "echo", json!({})).await.unwrap_err());
        assert!(told.contains(words), "{mode}: {told}");
    }
}

#[tokio::test]
async fn a_server_that_fails_for_once_keeps_its_session() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let session = session(&tools);
    let told = reason(call(&session, "busy", json!({})).await.unwrap_err());
    assert!(told.contains("HTTP 503"), "{told}");
    assert!(text(&session, "headers", json!({})).await.contains("session-1"));
    assert_eq!(server.seen.count("busy"), 1, "the call was repeated");
}

#[tokio::test]
async fn too_large_an_answer_is_refused_before_it_is_whole() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let session = session(&tools);
    let refused = call(&session, "big", json!({})).await.unwrap_err();
    assert_eq!(refused, ToolError::TooLarge { server: "it".into(), tool: "big".into(), limit: 64 << 10 });
    let event = call(&session, "big_event", json!({})).await.unwrap_err();
    assert!(matches!(event, ToolError::Unavailable { .. } | ToolError::TooLarge { .. }), "{event:?}");
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_ends_the_call() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let told = reason(call(&session(&tools), "cut", json!({})).await.unwrap_err());
    assert!(!told.is_empty());
    assert_eq!(server.seen.count("cut"), 1, "the call was repeated");
}

#[tokio::test]
async fn a_list_that_changes_is_heard_of_over_the_stream() {
    let server = HttpServer::start("well").await;
    let tools = only(at(server.url(), &[], None));
    let session = session(&tools);
    session.list(later()).await.unwrap();
    eventually("the stream is open", || async { (server.seen.count("GET") > 0).then_some(()) }).await;
    text(&session, "grow", json!({})).await;
    eventually("the new tool is listed", || async {
        session.list(later()).await.unwrap().iter().any(|tool| tool.name == "grown").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_told_at_once_and_found_again() {
    let server = HttpServer::start("well").await;
    let (url, address) = (server.url(), server.address);
    let tools = only(at(url, &[], None));
    let session = session(&tools);
    assert_eq!(text(&session, "echo", json!({"text": "a"})).await, "a");
    server.stop().await;
    eventually("it is missed", || async { call(&session, "echo", json!({})).await.err() }).await;
    let trouble = eventually("it is in trouble", || async { tools.health()[0].trouble.clone() }).await;
    assert!(trouble.starts_with("it ") && !trouble.contains(&address.to_string()), "{trouble}");
    let back = HttpServer::on(TcpListener::bind(address).await.unwrap(), "well");
    eventually("it works again", || async { call(&session, "echo", json!({"text": "b"})).await.ok() }).await;
    assert_eq!(tools.health()[0].trouble, None);
    assert!(tools.health()[0].restarts >= 1);
    assert_eq!(back.seen.count("initialize"), 1);
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_by_name() {
    let missing = Path::new("/no/such/authority.pem");
    let url = |url: &str| url.parse::<url::Url>().unwrap();
    for (settings, key) in [
        (at(url("http://mcp.example.com/"), &[], None), "url"),
        (at(url("https://user:password-1@mcp.example.com/"), &[], None), "url"),
        (at(url("ws://127.0.0.1/"), &[], None), "url"),
        (at(url("https://mcp.example.com/"), &[("a b", "c")], None), "headers"),
        (at(url("https://mcp.example.com/"), &[("x-key", "secret-1\nx: y")], None), "headers"),
        (at(url("https://mcp.example.com/"), &[("Mcp-Session-Id", "secret-1")], None), "headers"),
        (at(url("https://mcp.example.com/"), &[], Some(missing)), "ca_file"),
    ] {
        let error = Tools::new(BTreeMap::from([("it".to_owned(), settings)])).unwrap_err();
        assert_eq!(error.key, key, "{error}");
        let words = format!("{error} {error:?}");
        assert!(!words.contains("secret-1") && !words.contains("password-1"), "{words}");
    }
}

/// A listener that speaks TLS.
struct TlsListener {
    tcp: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_through_the_named_authority_and_not_without_it() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("authority.pem");
    std::fs::write(&ca_file, cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = HttpServer::on(TlsListener { tcp, acceptor: Arc::new(config).into() }, "well");
    let url: url::Url = format!("https://localhost:{}/mcp", server.address.port()).parse().unwrap();

    let trusting = only(at(url.clone(), &[], Some(&ca_file)));
    let said = call(&session(&trusting), "echo", json!({"text": "a"})).await;
    assert!(said.is_ok(), "{said:?} {:?}", trusting.health());
    let strict = only(at(url, &[], None));
    let told = reason(call(&session(&strict), "echo", json!({})).await.unwrap_err());
    assert!(told.starts_with("it cannot be reached; it is tried again in "), "{told}");
    let trouble = strict.health()[0].trouble.clone().unwrap();
    assert!(trouble.contains("certificate"), "{trouble}");
}
