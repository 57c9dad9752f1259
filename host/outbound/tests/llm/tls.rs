//! A provider behind TLS, with an authority of the operator's.

use super::site::*;
use agentry_outbound::llm::ProviderKind::OpenAi;
use agentry_outbound::llm::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// A certificate of its own making, in a file.
pub fn certificate(folder: &tempfile::TempDir) -> (PathBuf, rcgen::CertifiedKey<rcgen::KeyPair>) {
    certificate_for(folder, "localhost")
}

/// The same, for a name.
pub fn certificate_for(folder: &tempfile::TempDir, name: &str) -> (PathBuf, rcgen::CertifiedKey<rcgen::KeyPair>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, made.cert.pem()).unwrap();
    (path, made)
}

/// A server's half of TLS with it.
pub fn acceptor(made: &rcgen::CertifiedKey<rcgen::KeyPair>, alpn: &[u8]) -> TlsAcceptor {
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A server that answers once.
pub async fn serve(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let acceptor = acceptor(made, b"http/1.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that does not trust it goes here.
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let body = r#"{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    address
}

pub fn settings(address: SocketAddr, ca_file: PathBuf) -> ProviderSettings {
    let url = format!("https://localhost:{}/v1", address.port()).parse().unwrap();
    ProviderSettings { url, ca_file: Some(ca_file), ..provider(OpenAi, address) }
}

#[tokio::test]
async fn an_authority_of_the_operators_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, made) = certificate(&folder);
    let address = serve(&made).await;
    let reply = llm(settings(address, path)).chat(&question(), soon()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("fine"));
}

#[tokio::test]
async fn any_other_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = certificate(&folder);
    let other = tempfile::tempdir().unwrap();
    let address = serve(&certificate(&other).1).await;
    match error(llm(settings(address, path)).chat(&question(), soon()).await) {
        ChatError::Unavailable { reason } => assert!(reason.contains("certificate"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_ends_at_connect() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = certificate(&folder);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = Duration::from_millis(300);
    let settings = ProviderSettings { connect, ..settings(listener.local_addr().unwrap(), path) };
    let error = error(llm(settings).chat(&question(), soon()).await);
    assert_eq!(error, ChatError::TimedOut { stage: "connection", limit: connect });
}

#[test]
fn a_file_that_is_none_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for path in [folder.path().join("nowhere.pem"), empty] {
        let settings = settings(([127, 0, 0, 1], 1).into(), path.clone());
        let providers = [("lab".to_owned(), settings)].into();
        let error = Llm::new(LlmSettings { providers, models: Default::default() }).unwrap_err().to_string();
        assert!(error.starts_with("llm.providers.lab.ca_file: "), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
