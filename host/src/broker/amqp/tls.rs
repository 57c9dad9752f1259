//! TLS under AMQP. Authorities are those of `broker.ca_file`, else the system's, for which `SSL_CERT_FILE` and `SSL_CERT_DIR` stand as
//! they do for OpenSSL. lapin's own TLS would bring a reader of PKCS#12 with ciphers long broken.

use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which broker is trusted, and what is shown to it. All paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of the authorities; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate and those of its issuers.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key; absent: it stands in `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name that the broker's certificate is for; absent: the host.
    pub name: Option<String>,
}

impl Trust {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Trust::default()
    }

    pub(super) fn ca(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    pub(super) fn has_certificate(&self) -> bool {
        self.cert_file.is_some()
    }

    /// Reads the files. The error names the setting, the file and what it takes.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.name {
            server_name(name).map_err(|e| format!("server_name_indication in broker.url is {name:?}: {e}"))?;
        }
        match self.is_default() || (self.ca_file.is_none() && self.cert_file.is_none() && self.key_file.is_none()) {
            true => Ok(()),
            false => self.config(RootCertStore::empty).map(drop),
        }
    }

    /// `system`: authorities where none are named.
    fn config(&self, system: impl FnOnce() -> RootCertStore) -> Result<ClientConfig, String> {
        let roots = match &self.ca_file {
            Some(file) => authorities(file)?,
            None => system(),
        };
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);
        let Some(file) = &self.cert_file else {
            return match &self.key_file {
                None => Ok(builder.with_no_client_auth()),
                Some(_) => Err("broker.key_file is set and broker.cert_file is not; set both, or neither".into()),
            };
        };
        let chain = certificates("broker.cert_file", file)?;
        let key_file = self.key_file.as_ref().unwrap_or(file);
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|cause| {
            file_error("broker.key_file", key_file, "the certificate's private key, not encrypted", &cause)
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|e| {
            let pair = format!("broker.cert_file ({}) and broker.key_file ({})", file.display(), key_file.display());
            let remedy = match e {
                rustls::Error::InconsistentKeys(_) => "; the key belongs to another certificate",
                _ => "",
            };
            format!("{pair} are no pair for TLS: {e}{remedy}")
        })
    }
}

fn file_error(key: &str, file: &Path, holds: &str, cause: &pem::Error) -> String {
    let cause = match cause {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "nothing of that is in it".into(),
        other => other.to_string(),
    };
    format!("{key} ({}) cannot be used: {cause}; it takes a PEM file with {holds}", file.display())
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(|cause| file_error(key, file, "certificates (BEGIN CERTIFICATE)", &cause))
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("broker.ca_file", file)?);
    match roots.is_empty() {
        true => Err(format!("broker.ca_file ({}) holds no certificate that can be read", file.display())),
        false => Ok(roots),
    }
}

/// Begins TLS on a connection to `host`, which the server's certificate must name.
pub(super) async fn begin<S>(stream: S, host: &str, trust: &Trust) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Read anew with each connection, which is seldom: authorities and certificates that are renewed count.
    let system = match trust.ca_file {
        Some(_) => RootCertStore::empty(),
        None => system()?,
    };
    let config = trust.config(|| system).map_err(io::Error::other)?;
    let name = server_name(trust.name.as_deref().unwrap_or(host)).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn server_name(host: &str) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    ServerName::try_from(unbracketed(host).to_owned())
}

fn system() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(io::Error::other(format!("the system has no certificate authorities{reason}; set broker.ca_file")));
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
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that sends back four bytes, and its certificate, which names `localhost` and `::1`.
    async fn server() -> (SocketAddr, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "::1".to_owned()]).unwrap();
        let (certificate, pem) = (made.cert.der().clone(), made.cert.pem());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
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
        (address, pem)
    }

    async fn echoed(address: SocketAddr, host: &str, trust: &Trust) -> io::Result<[u8; 4]> {
        let mut stream = begin(Tokio::current().tcp_connect_addr(address).await?, host, trust).await?;
        stream.write_all(b"AMQP").await?;
        stream.flush().await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_server_is_believed_for_its_name_and_by_a_known_authority_alone() {
        let (address, certificate) = server().await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, pem: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).unwrap();
            Trust { ca_file: Some(path), ..Trust::default() }
        };
        let known = file("known.pem", &certificate);
        known.check().unwrap();
        for host in ["localhost", "[::1]"] {
            assert_eq!(&echoed(address, host, &known).await.unwrap(), b"AMQP", "{host}");
        }
        let other = echoed(address, "broker.example", &known).await.unwrap_err().to_string();
        assert!(other.contains("broker.example"), "{other}");
        let named = Trust { name: Some("localhost".into()), ..known };
        assert_eq!(&echoed(address, "broker.example", &named).await.unwrap(), b"AMQP", "server_name_indication");
        let strange = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let unknown = echoed(address, "localhost", &file("strange.pem", &strange.cert.pem())).await.unwrap_err();
        assert!(unknown.to_string().contains("certificate"), "{unknown}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
        std::fs::write(&empty, "nothing").unwrap();
        let why = |trust: Trust| trust.check().unwrap_err();
        let ca = |path: &Path| Trust { ca_file: Some(path.to_owned()), ..Trust::default() };
        assert!(why(ca(&missing)).contains("broker.ca_file") && why(ca(&missing)).contains("missing.pem"));
        assert!(why(ca(&empty)).contains("BEGIN CERTIFICATE"));
        let [one, other] = [(), ()].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let cert_file = write("one.pem", one.cert.pem());
        let key_file = write("other.key", other.signing_key.serialize_pem());
        let pair = Trust { cert_file: cert_file.clone(), key_file: key_file.clone(), ..Trust::default() };
        assert!(why(pair).contains("broker.key_file"));
        assert!(why(Trust { key_file, ..Trust::default() }).contains("broker.cert_file is not"));
        assert!(why(Trust { cert_file, ..Trust::default() }).contains("private key"));
        let both = write("both.pem", format!("{}{}", one.cert.pem(), one.signing_key.serialize_pem()));
        Trust { cert_file: both, ..Trust::default() }.check().unwrap();
    }
}
