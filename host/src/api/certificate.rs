//! The API's own TLS: a certificate and its key, as PEM files. Renewed files are read again without a restart.

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Time between two looks at the files, at least. They are looked at by a handshake.
const LOOK: Duration = Duration::from_secs(5);

/// An invalid certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that cannot be read, or does not hold what its setting takes.
    #[error("read {key} ({}): {cause}; it takes a PEM file with {holds}, not encrypted", path.display())]
    File {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// Expected content.
        holds: &'static str,
        /// Reason.
        cause: pem::Error,
    },
    /// A key that belongs to another certificate, or a pair that TLS cannot use.
    #[error("use api.tls_cert ({}) with api.tls_key ({}): {cause}{}", certificate.display(), key.display(), remedy(cause))]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Reason.
        cause: rustls::Error,
    },
}

/// A remedy for what is often wrong with a certificate.
fn remedy(cause: &rustls::Error) -> &'static str {
    let text = cause.to_string();
    match () {
        () if text.contains("UnsupportedCertVersion") => {
            "; it takes X.509 version 3, which openssl makes with extensions"
        }
        () if text.contains("KeyMismatch") => "; the key belongs to another certificate",
        () => "",
    }
}

/// The API's certificate and key. Clones share them.
#[derive(Clone)]
pub struct Certificate(Arc<Mutex<Current>>);

struct Current {
    files: [PathBuf; 2],
    /// Both files' times of change when they were read, as far as they could be told.
    read: [Option<SystemTime>; 2],
    looked: Instant,
    /// Why the files cannot be used as they are now.
    trouble: Option<String>,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, a key that is another certificate's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Certificate, CertificateError> {
        let files = [certificate.to_owned(), key.to_owned()];
        let read = changes(&files);
        let config = Arc::new(config(&files)?);
        Ok(Certificate(Arc::new(Mutex::new(Current { files, read, looked: Instant::now(), trouble: None, config }))))
    }

    /// Performs the TLS handshake of a new connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.current(LOOK);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reads the files again if they have changed, as a handshake does.
    pub(super) fn look(&self) {
        let _ = self.current(LOOK);
    }

    /// Why the files cannot be used as they are now.
    pub fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// Returns the current certificate. Reads changed files again; an invalid pair leaves the former one in use, since a renewal
    /// writes two files.
    fn current(&self, look: Duration) -> Arc<ServerConfig> {
        // A panic under the lock leaves a whole value: every change is one assignment.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= look {
            current.looked = Instant::now();
            let changes = changes(&current.files);
            if changes == current.read {
                current.trouble = None;
            } else {
                match config(&current.files) {
                    Ok(config) => {
                        (current.config, current.read, current.trouble) = (Arc::new(config), changes, None);
                        tracing::info!("certificate of the API reloaded");
                    }
                    Err(error) => {
                        let trouble = format!("the former certificate of the API stays in use: failed to {error}");
                        tracing::warn!("{trouble}");
                        current.trouble = Some(trouble);
                    }
                }
            }
        }
        current.config.clone()
    }
}

fn changes(files: &[PathBuf; 2]) -> [Option<SystemTime>; 2] {
    [0, 1].map(|at| files[at].metadata().and_then(|found| found.modified()).ok())
}

fn config([certificate, key]: &[PathBuf; 2]) -> Result<ServerConfig, CertificateError> {
    let refuse = |key, path: &Path, holds| {
        let path = path.to_owned();
        move |cause| CertificateError::File { key, path, holds, cause }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    let chain =
        chain.map_err(refuse("api.tls_cert", certificate, "the certificate, and those of its issuers after it"))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(refuse("api.tls_key", key, "the certificate's private key"))?;
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let made = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let made = made.and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut made =
        made.map_err(|cause| CertificateError::Pair { certificate: certificate.clone(), key: key.clone(), cause })?;
    made.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new pair in `folder`, and the two paths.
    fn pair(folder: &Path) -> [PathBuf; 2] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = ["cert.pem", "key.pem"].map(|name| folder.join(name));
        std::fs::write(&files[0], made.cert.pem()).unwrap();
        std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn refused(files: [&Path; 2]) -> String {
        Certificate::load(files[0], files[1]).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = pair(folder.path());
        assert!(Certificate::load(&cert, &key).is_ok());
        let text = refused([&folder.path().join("none.pem"), &key]);
        assert!(text.contains("api.tls_cert (") && text.contains("none.pem"), "{text}");
        let text = refused([&key, &key]);
        assert!(text.contains("api.tls_cert (") && text.contains("the certificate, and"), "{text}");
        let text = refused([&cert, &cert]);
        assert!(text.contains("api.tls_key (") && text.contains("private key"), "{text}");
        let other = tempfile::tempdir().unwrap();
        let text = refused([&cert, &pair(other.path())[1]]);
        assert!(text.contains("api.tls_cert (") && text.contains("api.tls_key ("), "{text}");
    }

    #[test]
    fn files_that_are_renewed_are_read_again_and_half_a_renewal_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path());
        // Changed in the past, so that each write below changes the time, whatever the file system's grain.
        for file in &files {
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        }
        let shown = Certificate::load(&files[0], &files[1]).unwrap();
        let first = shown.current(Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &shown.current(Duration::ZERO)), "nothing changed");
        let renewed = tempfile::tempdir().unwrap();
        let [cert, key] = pair(renewed.path());
        std::fs::copy(cert, &files[0]).unwrap();
        assert!(Arc::ptr_eq(&first, &shown.current(Duration::ZERO)), "the key is still the old one");
        assert!(shown.trouble().unwrap().contains("the former certificate"));
        std::fs::copy(key, &files[1]).unwrap();
        assert!(!Arc::ptr_eq(&first, &shown.current(Duration::ZERO)), "both are new");
        assert_eq!(shown.trouble(), None);
    }
}
