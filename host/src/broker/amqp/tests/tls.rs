//! A broker behind TLS, and ports at which another protocol is spoken.

use super::{address, url};
use crate::broker::amqp::{AmqpBroker, AmqpOptions, Trust};
use crate::broker::conformance::soon;
use crate::broker::{Broker, BrokerError, Health};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// An authority with its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: String) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn ca_file(&self) -> PathBuf {
        self.write("ca.pem", self.issuer.pem())
    }

    /// A certificate for this name, and its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Trust in this authority, with a client's certificate that it issued.
    fn client(&self) -> Trust {
        let (certificate, key) = self.issue("client");
        Trust {
            ca_file: Some(self.ca_file()),
            cert_file: Some(self.write("client.pem", certificate.pem())),
            key_file: Some(self.write("client.key", key.serialize_pem())),
            name: None,
        }
    }

    /// TLS in front of RabbitMQ, with a certificate for this name; returns the port.
    async fn serve(&self, name: &str, asks_for_certificate: bool) -> u16 {
        let (certificate, key) = self.issue(name);
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(ring.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match asks_for_certificate {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = (url().host_str().unwrap().to_owned(), url().port().unwrap_or(5672));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to) = (acceptor.clone(), to.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(stream).await else { return };
                    let mut broker = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut broker).await;
                });
            }
        });
        port
    }
}

/// The tests' RabbitMQ by another scheme, host and port.
fn at(scheme: &str, host: &str, port: u16) -> url::Url {
    url()
        .as_str()
        .replacen("amqp://", &format!("{scheme}://"), 1)
        .parse::<url::Url>()
        .map(|mut url| {
            url.set_host(Some(host)).unwrap();
            url.set_port(Some(port)).unwrap();
            url
        })
        .unwrap()
}

fn options(url: &url::Url, trust: Trust) -> AmqpOptions {
    AmqpOptions { trust, ..AmqpOptions::new(address(url), "test-tls", "agentry/test/here/1") }
}

async fn refused(url: &url::Url, trust: Trust) -> String {
    match soon("an answer", AmqpBroker::connect(options(url, trust))).await.err() {
        Some(BrokerError::Refused(text)) => text,
        other => panic!("{url}: it should have been refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_broker_is_trusted_by_the_authority_of_its_settings_and_shown_a_certificate() {
    let authority = Authority::new();
    let trusting = || Trust { ca_file: Some(authority.ca_file()), ..Trust::default() };
    let port = authority.serve("localhost", false).await;
    let broker = soon("a connection", AmqpBroker::connect(options(&at("amqps", "localhost", port), trusting()))).await;
    let broker = broker.unwrap();
    assert!(broker.health().borrow().is_up());
    broker.close().await;
    let port = authority.serve("localhost", true).await;
    let url = at("amqps", "localhost", port);
    let broker = soon("a connection", AmqpBroker::connect(options(&url, authority.client()))).await.unwrap();
    broker.close().await;
    let text = refused(&url, trusting()).await;
    assert!(text.contains("broker.cert_file"), "{text}");
    let text = refused(&url, Trust { ca_file: Some(authority.ca_file()), ..Authority::new().client() }).await;
    assert!(text.contains("broker.cert_file"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_the_start_with_the_remedy() {
    let authority = Authority::new();
    let port = authority.serve("localhost", false).await;
    let text = refused(
        &at("amqps", "localhost", port),
        Trust { ca_file: Some(Authority::new().ca_file()), ..Trust::default() },
    )
    .await;
    assert!(text.contains("add its authority there"), "{text}");
    let trust = Trust { ca_file: Some(authority.ca_file()), ..Trust::default() };
    let text = refused(&at("amqps", "127.0.0.1", port), trust.clone()).await;
    assert!(text.contains("server_name_indication") && text.contains("localhost"), "{text}");
    let named = Trust { name: Some("localhost".into()), ..trust };
    AmqpBroker::connect(options(&at("amqps", "127.0.0.1", port), named)).await.unwrap().close().await;
}

#[tokio::test]
async fn another_protocol_at_the_port_is_named_with_the_remedy() {
    // TLS at the port of plain AMQP: the real RabbitMQ.
    let plain = url();
    let host = plain.host_str().unwrap().to_owned();
    let text = refused(&at("amqps", &host, plain.port().unwrap_or(5672)), Trust::default()).await;
    assert!(text.contains("does not speak TLS") && text.contains("amqp://"), "{text}");
    // Plain AMQP at a port of TLS.
    let port = Authority::new().serve("localhost", false).await;
    let text = refused(&at("amqp", "127.0.0.1", port), Trust::default()).await;
    assert!(text.contains("write amqps://"), "{text}");
    // A port of HTTP, such as that of the management plugin.
    let text = refused(&at("amqp", "127.0.0.1", http(None).await), Trust::default()).await;
    assert!(text.contains("HTTP") && text.contains("15672") && text.contains("5672"), "{text}");
}

/// A server that answers whatever comes as HTTP servers do, at this port or any.
async fn http(port: Option<u16>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read_exact(&mut [0; 8]).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    port
}

#[tokio::test]
async fn what_cannot_mend_itself_ends_the_start_also_if_the_broker_was_away_at_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let broker = AmqpBroker::start(options(&at("amqp", "127.0.0.1", port), Trust::default())).unwrap();
    let first = soon("the first outcome", broker.first_outcome()).await;
    assert!(matches!(first, Err(BrokerError::Unavailable(_))), "{first:?}");
    http(Some(port)).await;
    let mut health = broker.health();
    let speaks_http = |health: &Health| matches!(health, Health::Down(_, why) if why.contains("HTTP"));
    soon("another attempt", health.wait_for(speaks_http)).await.unwrap();
    let declared = soon("an answer", broker.declare(&["q".into()])).await;
    assert!(matches!(&declared, Err(BrokerError::Refused(why)) if why.contains("15672")), "{declared:?}");
    broker.close().await;
}
