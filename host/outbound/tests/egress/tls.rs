//! TLS: whom the host believes.

use crate::house::*;
use agentry_outbound::egress::{Egress, EgressSettings, HttpError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tempfile::NamedTempFile;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// An authority of our own, and the file that the operator names.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Authority { issuer, file }
    }

    pub fn certify(&self, params: CertificateParams, alpn: &[u8]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(certificate.der().clone(), &key, alpn)
    }

    pub fn settings(&self) -> EgressSettings {
        EgressSettings { ca_file: Some(self.file.path().to_owned()), ..open() }
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair, alpn: &[u8]) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

pub fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

/// A server that speaks TLS, and what reaches it through it.
pub async fn https(acceptor: TlsAcceptor) -> (Server, mpsc::UnboundedReceiver<String>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let server = Server::new(move |stream| {
        let (acceptor, asked) = (acceptor.clone(), asked.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                keep(stream, asked).await;
            }
        }
    });
    (server.await, requests)
}

pub fn url(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/", server.address.port())
}

fn reason(error: HttpError, host: &str) -> String {
    match error {
        HttpError::Tls { host: own, reason } if own == host => reason,
        other => panic!("{other:?}"),
    }
}

const HTTP1: &[u8] = b"http/1.1";

#[tokio::test]
async fn the_operators_authority_is_believed() {
    let authority = Authority::new();
    let (server, mut requests) = https(authority.certify(named("localhost"), HTTP1)).await;
    let answer = get(&client(authority.settings()), url(&server, "localhost")).await.unwrap();
    assert_eq!(answer.body, "ok");
    assert!(soon(requests.recv()).await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    let (server, _requests) = https(authority.certify(named("127.0.0.1"), HTTP1)).await;
    get(&client(authority.settings()), url(&server, "127.0.0.1")).await.unwrap();
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (server, mut requests) = https(other.certify(named("localhost"), HTTP1)).await;
    for settings in [open(), authority.settings()] {
        let error = get(&client(settings), url(&server, "localhost")).await.unwrap_err();
        let said = reason(error, "localhost");
        assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    }
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    for (name, host) in [("other.test", "localhost"), ("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.1")] {
        let (server, mut requests) = https(authority.certify(named(name), HTTP1)).await;
        let error = get(&client(authority.settings()), url(&server, host)).await.unwrap_err();
        assert!(reason(error, host).contains("not valid for name"));
        assert!(requests.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_refused() {
    let key = KeyPair::generate().unwrap();
    let certificate = named("localhost").self_signed(&key).unwrap();
    let (server, _requests) = https(acceptor(certificate.der().clone(), &key, HTTP1)).await;
    let error = get(&client(open()), url(&server, "localhost")).await.unwrap_err();
    assert!(reason(error, "localhost").contains("invalid peer certificate"));
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_or_to_come_is_refused() {
    let authority = Authority::new();
    for (from, to, said) in [(1990, 2000, "expired"), (3000, 3100, "not valid yet")] {
        let mut params = named("localhost");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let (server, _requests) = https(authority.certify(params, HTTP1)).await;
        let error = get(&client(authority.settings()), url(&server, "localhost")).await.unwrap_err();
        let reason = reason(error, "localhost");
        assert!(reason.contains(said), "{reason}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_no_https_server() {
    let server = Server::new(plain).await;
    let error = get(&client(open()), url(&server, "localhost")).await.unwrap_err();
    assert!(matches!(error, HttpError::Tls { .. } | HttpError::Connect { .. }), "{error:?}");
}

/// Answers whatever comes in plain text.
async fn plain(mut stream: TcpStream) {
    let mut hello = [0; 5];
    let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_stops_the_start() {
    let file = NamedTempFile::new().unwrap();
    let path = file.path().to_owned();
    let error = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Egress::new(EgressSettings { ca_file: Some(path.clone()), ..open() }).unwrap_err().to_string()
    };
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, said) in [("", "no certificate"), ("text", "no certificate"), (damaged, "certificate 1")] {
        let error = error(text);
        assert!(
            error.contains(said) && error.contains(path.to_str().unwrap()) && error.contains("http.ca_file"),
            "{error}"
        );
    }
    let missing = Some(path.with_extension("missing"));
    let error = Egress::new(EgressSettings { ca_file: missing, ..open() }).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}
