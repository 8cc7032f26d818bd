//! A private authority, and the certificates that it gives to servers and clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;

use crate::postgres::server_user;

/// An authority that nobody trusts who was not told to. Its servers are named `localhost`, and not
/// by their addresses.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    given: AtomicUsize,
}

/// A certificate and its key, each a file in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, which only its owner may read.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        // No two of them have one name: who knows one must not look for the other's signature.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder, given: AtomicUsize::new(0) }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate of a client of this name.
    pub fn client(&self, name: &str) -> Pair {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.give(self.folder.path(), name, Vec::new(), usage)
    }

    /// A certificate of a server, and a copy of [`Self::certificate`] beside it, in a folder that
    /// the server may read.
    pub fn server(&self, folder: &Path) -> Pair {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        fs::copy(self.certificate(), folder.join("ca.pem")).unwrap();
        self.give(folder, "localhost", vec!["localhost".to_owned()], usage)
    }

    fn give(
        &self,
        folder: &Path,
        name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Pair {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str, text: String| {
            let file = folder.join(format!("{number}-{kind}.pem"));
            fs::write(&file, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&file, mode).unwrap();
            if let Some((user, group)) = server_user() {
                std::os::unix::fs::chown(&file, Some(user), Some(group)).unwrap();
            }
            file
        };
        let certificate = file("certificate", certificate.pem());
        Pair { certificate, key: file("key", key.serialize_pem()) }
    }
}
