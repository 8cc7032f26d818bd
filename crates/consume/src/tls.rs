//! How a connection to a broker is encrypted: whom we trust, and who we are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why the address of a broker cannot be used, for whoever wrote it. Nothing was sent. It shows no
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl AddressError {
    /// One with this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address of the broker: {}", self.0)
    }
}

impl std::error::Error for AddressError {}

/// Whom we trust, and who we are, as the options of an address say. All files are in PEM, and are
/// read anew for each connection: a certificate that was renewed needs no restart.
///
/// - `ca`: the certificates to trust instead of the system's;
/// - `cert` and `key`: our own certificate and its key, where the broker asks who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Tls {
    /// Takes these options out of an address, and gives the rest of it too.
    ///
    /// # Errors
    /// An option has no value, or one of `cert` and `key` stands alone.
    pub fn taken_from(address: &str) -> Result<(String, Self), AddressError> {
        let (base, query) = address.split_once('?').unwrap_or((address, ""));
        let (mut tls, mut rest) = (Self::default(), Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let file = match name {
                "ca" => &mut tls.ca,
                "cert" => &mut tls.cert,
                "key" => &mut tls.key,
                _ => {
                    rest.push(option);
                    continue;
                }
            };
            let value = percent_decode_str(value).decode_utf8();
            let value = value.ok().filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| AddressError(format!("`{name}` names no file")))?;
            *file = Some(PathBuf::from(&*value));
        }
        if tls.cert.is_some() != tls.key.is_some() {
            return Err(AddressError::new("`cert` and `key` go together"));
        }
        let rest = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        Ok((rest, tls))
    }

    /// Refuses them where nothing is encrypted; `secure` is how such an address begins.
    ///
    /// # Errors
    /// There is one.
    pub fn refused_for(&self, secure: &str) -> Result<(), AddressError> {
        let given = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        match given.into_iter().find(|(_, file)| file.is_some()) {
            None => Ok(()),
            Some((name, _)) => Err(AddressError(format!("`{name}` is for {secure}"))),
        }
    }

    /// Whether a broker that asks who we are is told.
    pub(crate) fn names_us(&self) -> bool {
        self.cert.is_some()
    }

    /// Reads the files: what encrypts one connection.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be; or there is nobody to trust.
    pub fn config(&self) -> Result<ClientConfig, AddressError> {
        let mut roots = RootCertStore::empty();
        let found = match &self.ca {
            Some(file) => certificates(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            let from = self.ca.as_ref().map(|file| file.display().to_string());
            let from = from.as_deref().unwrap_or("the system");
            return Err(AddressError(format!(
                "{from}: no certificate to trust, so no broker can be known"
            )));
        }
        // Named, so that it does not matter what else the process has.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| AddressError(error.to_string()))?
            .with_root_certificates(roots);
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(config.with_no_client_auth());
        };
        let read = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file(key, &error))?;
        let config = config.with_client_auth_cert(certificates(cert)?, read);
        config.map_err(|error| of_file(cert, &error))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, AddressError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| of_file(file, &error))
}

fn of_file(file: &Path, error: &dyn fmt::Display) -> AddressError {
    AddressError(format!("{}: {error}", file.display()))
}
