//! TLS under AMQP: the system's certificate authorities, for which `SSL_CERT_FILE` and `SSL_CERT_DIR` stand as they do for
//! OpenSSL. lapin's own TLS would bring a reader of PKCS#12 with ciphers long broken.

use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;

/// Begins TLS on a connection to `host`, which the server's certificate must name.
pub(super) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(stream: S, host: &str) -> io::Result<TlsStream<S>> {
    // Read anew with each connection, which is seldom: authorities that are added later count.
    trusting(stream, host, system()?).await
}

async fn trusting<S>(stream: S, host: &str, roots: RootCertStore) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(unbracketed(host).to_owned()).map_err(io::Error::other)?;
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn system() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(io::Error::other(format!("the system has no certificate authorities{reason}; set SSL_CERT_FILE")));
    }
    Ok(roots)
}

/// An IPv6 address as certificates have it.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_rs::Tokio;
    use async_rs::traits::Reactor;
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that sends back four bytes, and its certificate, which names `localhost` and `::1`.
    async fn server() -> (SocketAddr, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "::1".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut bytes = [0; 4];
                    if stream.read_exact(&mut bytes).await.is_ok() {
                        let _ = stream.write_all(&bytes).await;
                    }
                });
            }
        });
        (address, certificate)
    }

    async fn echoed(address: SocketAddr, host: &str, roots: RootCertStore) -> io::Result<[u8; 4]> {
        let mut stream = trusting(Tokio::current().tcp_connect_addr(address).await?, host, roots).await?;
        stream.write_all(b"AMQP").await?;
        stream.flush().await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_server_is_believed_for_its_name_and_by_a_known_authority_alone() {
        let (address, certificate) = server().await;
        let known = || {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).unwrap();
            roots
        };
        for host in ["localhost", "[::1]"] {
            assert_eq!(&echoed(address, host, known()).await.unwrap(), b"AMQP", "{host}");
        }
        let other = echoed(address, "broker.example", known()).await.unwrap_err().to_string();
        assert!(other.contains("broker.example"), "{other}");
        let strange = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(strange.cert.der().clone()).unwrap();
        let unknown = echoed(address, "localhost", roots).await.unwrap_err().to_string();
        assert!(unknown.contains("certificate"), "{unknown}");
    }
}
