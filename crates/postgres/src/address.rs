//! Where the server is, and whether what is said to it is encrypted.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The names of risks that can be taken.
pub const RISKS: [&str; 1] = ["asynchronous"];
/// How long a connection may take to be made.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the kernel goes on sending what is not acknowledged: a call that was given up must
/// not arrive much later.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// A server and a database, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. It prints itself
/// without the password.
///
/// Options follow `?`, with `&` between them. Beside those of [`Config`] there are
///
/// - `sslrootcert`: a file with the certificates to trust instead of the system's, in PEM;
/// - `sslcert` and `sslkey`: files with our own certificate and its key in PEM, where the server
///   asks for one;
/// - `accept`: risks of [`RISKS`] that are taken, with `,` between them.
#[derive(Clone)]
pub struct Address {
    /// Boxed, since it is large beside the addresses of other stores.
    config: Box<Config>,
    files: Files,
    /// Whether standbys may follow for which no commit waits.
    asynchronous: bool,
    shown: String,
}

/// Whom we trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Files {
    roots: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    /// Connections to other machines are encrypted and the server's certificate is checked against
    /// those that the system trusts, unless the address says `sslmode=disable`; to this machine
    /// they are not, unless it says `sslmode=require`. `verify-full` is another word for it here.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(AddressError("it must begin with postgres://".to_owned()));
        }
        let (text, files, risks) = options(text).map_err(AddressError)?;
        let mut config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            AddressError(source.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_hosts().is_empty() {
            return Err(AddressError("it names no host".to_owned()));
        }
        if !text.contains("sslmode=") {
            let here = config.get_hosts().iter().all(is_here);
            config.ssl_mode(if here { SslMode::Disable } else { SslMode::Require });
        } else if config.get_ssl_mode() == SslMode::Prefer {
            // Whoever sits in between could say that the server has no TLS.
            return Err(AddressError("sslmode must be require or disable".to_owned()));
        }
        if config.get_ssl_mode() == SslMode::Disable && files != Files::default() {
            let text = "`sslrootcert`, `sslcert` and `sslkey` are for `sslmode=require`";
            return Err(AddressError(text.to_owned()));
        }
        config.connect_timeout(CONNECT_MAX).tcp_user_timeout(UNACKNOWLEDGED_MAX);
        config.keepalives_idle(Duration::from_secs(10));
        if config.get_application_name().is_none() {
            config.application_name("onlyonce");
        }
        if 1 < config.get_hosts().len() {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let shown = shown(&config);
        let mut made = Self { config: Box::new(config), files, asynchronous: false, shown };
        if let Some(other) = risks.iter().find(|risk| !made.accept(risk)) {
            let text = format!("`accept={other}` is none of {}", RISKS.join(", "));
            return Err(AddressError(text));
        }
        Ok(made)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        (&self.config, &self.files, self.asynchronous)
            == (&other.config, &other.files, other.asynchronous)
    }
}

impl Eq for Address {}

impl Address {
    /// Takes a risk of [`RISKS`]; says whether there is one of this name.
    pub fn accept(&mut self, risk: &str) -> bool {
        let known = RISKS.contains(&risk);
        self.asynchronous |= known;
        known
    }

    /// Whether standbys may follow for which no commit waits.
    pub(crate) const fn takes_asynchronous(&self) -> bool {
        self.asynchronous
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What encrypts its connections.
    pub(crate) fn tls(&self) -> Result<MakeRustlsConnect, String> {
        let mut roots = RootCertStore::empty();
        if self.is_encrypted() {
            match &self.files.roots {
                Some(file) => roots.add_parsable_certificates(certificates(file)?),
                None => {
                    let found = rustls_native_certs::load_native_certs();
                    roots.add_parsable_certificates(found.certs)
                }
            };
            if roots.is_empty() {
                let from = self.files.roots.as_ref().map(|file| file.display().to_string());
                let from = from.as_deref().unwrap_or("the system");
                return Err(format!("{from}: no certificate to trust, so no server can be known"));
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.files.certificate, &self.files.key) else {
            return Ok(MakeRustlsConnect::new(config.with_no_client_auth()));
        };
        let read = PrivateKeyDer::from_pem_file(key);
        let read = read.map_err(|error| format!("{}: {error}", key.display()))?;
        let config = config.with_client_auth_cert(certificates(certificate)?, read);
        let config = config.map_err(|error| format!("{}: {error}", certificate.display()))?;
        Ok(MakeRustlsConnect::new(config))
    }

    /// Whether what is said to the server is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// Takes out of an address what the library does not know: files, and risks that are taken.
fn options(text: &str) -> Result<(String, Files, Vec<&str>), String> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut kept, mut files, mut taken) = (Vec::new(), Files::default(), Vec::new());
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sslrootcert", file)) => files.roots = Some(path(file)?),
            Some(("sslcert", file)) => files.certificate = Some(path(file)?),
            Some(("sslkey", file)) => files.key = Some(path(file)?),
            Some(("accept", risks)) => taken.extend(risks.split(',')),
            Some(("sslmode", "verify-full")) => kept.push("sslmode=require"),
            Some(_) | None => kept.push(option),
        }
    }
    if files.certificate.is_some() != files.key.is_some() {
        return Err("`sslcert` and `sslkey` go together".to_owned());
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{base}{mark}{}", kept.join("&")), files, taken))
}

/// The name of a file, in percent-encoding (RFC 3986, section 2.1).
fn path(text: &str) -> Result<PathBuf, String> {
    let wrong = || format!("`{text}` is no name of a file");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let name = String::from_utf8(bytes).map_err(|_| wrong())?;
    if name.is_empty() { Err(wrong()) } else { Ok(name.into()) }
}

/// The certificates in a file.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let pem = fs::read(file).map_err(|error| wrong(&error))?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| wrong(&error))
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
        })
        .collect();
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    format!("postgres://{user}{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> SslMode {
        text.parse::<Address>().unwrap().config.get_ssl_mode()
    }

    #[test]
    fn a_password_is_never_shown() {
        let address: Address = "postgres://anna:geheim@db.example:6432/shop".parse().unwrap();
        assert_eq!(address.to_string(), "postgres://anna@db.example:6432/shop");
        assert!(!format!("{address:?}").contains("geheim"));
    }

    #[test]
    fn what_leaves_this_machine_is_encrypted_unless_somebody_says_otherwise() {
        assert_eq!(mode("postgres://db.example/shop"), SslMode::Require);
        assert_eq!(mode("postgres://localhost,db.example/shop"), SslMode::Require);
        assert_eq!(mode("postgres://db.example/shop?sslmode=disable"), SslMode::Disable);
        for here in ["localhost", "127.0.0.1", "%2Frun%2Fpostgresql"] {
            assert_eq!(mode(&format!("postgres://{here}/shop")), SslMode::Disable, "{here}");
        }
        let weak = "postgres://db.example/shop?sslmode=prefer".parse::<Address>();
        assert!(weak.unwrap_err().to_string().contains("require or disable"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", "mysql://a/b", "postgres://", "postgres://a/b?colour=red"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        for (wrong, says) in [
            ("postgres://localhost/b?sslrootcert=ca.pem", "sslmode=require"),
            ("postgres://a/b?sslcert=me.pem", "go together"),
            ("postgres://a/b?accept=asynchronous,fire", "`accept=fire` is none of asynchronous"),
            ("postgres://a/b?sslrootcert=%2", "no name of a file"),
            ("postgres://a/b?sslrootcert=", "no name of a file"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_files_of_an_address_are_read_as_they_are_written() {
        let text =
            "postgres://a/b?sslmode=verify-full&sslrootcert=%2Fa%20b/ca.pem&connect_timeout=1";
        let address: Address = text.parse().unwrap();
        assert_eq!(address.files.roots, Some("/a b/ca.pem".into()));
        assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
        assert_ne!(address, "postgres://a/b?connect_timeout=1".parse().unwrap());
    }

    #[test]
    fn a_risk_is_taken_only_where_it_is_named() {
        let takes = |text: &str| text.parse::<Address>().unwrap().takes_asynchronous();
        assert!(takes("postgres://a/b?sslmode=require&accept=asynchronous"));
        assert!(!takes("postgres://a/b?sslmode=require"));
    }
}
