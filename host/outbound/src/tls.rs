//! Whom TLS trusts, for everybody here alike: the system's authorities, and the operator's. Its parts are handed over one by one: what
//! a process installed as its default is nobody's business here.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// The authorities: if `system`, the system's, for which `SSL_CERT_FILE` and `SSL_CERT_DIR` stand as they do for OpenSSL; and those
/// of a PEM file. There may be none.
///
/// # Errors
/// The file cannot be read, or holds no certificate; it is named.
pub(crate) fn roots(ca_file: Option<&Path>, system: bool) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if system {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = ca_file {
        add(&mut roots, path).map_err(|reason| format!("{}: {reason}", path.display()))?;
    }
    Ok(roots)
}

/// For one address, and the proxy before it: without authorities `https` leads nowhere, which is better said at the start.
///
/// # Errors
/// As [`roots`]; there is nobody to trust.
pub(crate) fn client_of(is_https: bool, ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let roots = roots(ca_file, is_https)?;
    if is_https && roots.is_empty() {
        return Err("is not set, and the system has no certificate authorities; name a PEM file with them".into());
    }
    client(roots)
}

/// For one address of an operator's own, with the system's authorities alone.
///
/// # Errors
/// The address is `https` and the system has none.
pub fn system(url: &url::Url) -> Result<ClientConfig, String> {
    let is_https = url.scheme() == "https";
    let roots = roots(None, is_https)?;
    if is_https && roots.is_empty() {
        return Err("the system has no certificate authorities; name a PEM file with them as SSL_CERT_FILE".into());
    }
    client(roots)
}

/// A client that trusts these.
///
/// # Errors
/// TLS cannot be set up at all.
pub(crate) fn client(roots: RootCertStore) -> Result<ClientConfig, String> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| format!("it is no PEM file of certificates: {error}"))?;
        found += 1;
        roots.add(certificate).map_err(|error| format!("certificate {found} cannot be used: {error}"))?;
    }
    if found == 0 { Err("there is no certificate in it; it takes a PEM file".into()) } else { Ok(()) }
}
