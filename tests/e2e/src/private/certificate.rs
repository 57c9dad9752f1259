//! Certificates of private services.

use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::User;

/// A certificate of `localhost` and 127.0.0.1 that is its own authority, and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, which is its own authority.
    pub certificate: PathBuf,
    /// The key, readable by the service's user alone.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in `folder`; the key is for `user` alone, since PostgreSQL refuses one that others may read.
    pub(super) fn make(folder: &Path, user: Option<User>) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost", "127.0.0.1"].map(String::from))
            .expect("a certificate is made");
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).expect("the certificate is written");
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&key).expect("a file for the key");
        std::io::Write::write_all(&mut file, made.signing_key.serialize_pem().as_bytes()).expect("the key is written");
        if let Some(user) = user {
            chown(&key, Some(user.id), Some(user.group)).expect("the key is given away");
        }
        Self { certificate, key }
    }
}
