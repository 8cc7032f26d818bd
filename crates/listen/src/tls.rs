//! TLS for whoever connects, by rustls, and what both sides of a connection need of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::start::StartError;

/// TLS for those who connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// If set, callers may show a certificate of these authorities; it then names the caller.
    pub client_trust: Option<PathBuf>,
}

/// The cryptography that is used.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> StartError {
    StartError::new(path.display().to_string(), error)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| wrong(path, error))?;
    if found.is_empty() {
        return Err(wrong(path, "there is no certificate in this file; it must be PEM"));
    }
    Ok(found)
}

/// The authorities in a file of PEM.
///
/// # Errors
/// There is none that can be used: names the file.
pub fn roots(path: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates(path)?);
    if usable == 0 {
        return Err(wrong(path, "none of the certificates in this file can be used"));
    }
    Ok(roots)
}

/// What answers the handshake of whoever connects.
///
/// # Errors
/// A certificate or key is not there or cannot be used: says which.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, StartError> {
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key, error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&tls.certificate, error))?;
    let builder = match &tls.client_trust {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = roots(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| wrong(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| wrong(&tls.certificate, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Early data can be repeated by others on the way (RFC 8470).
    config.max_early_data_size = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
