//! Where the server is, and whether what is said to it is encrypted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take to be made.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the kernel goes on sending what is not acknowledged: a call that was given up must
/// not arrive much later.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// A server and a database, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. It prints itself
/// without the password.
#[derive(Clone)]
pub struct Address {
    /// Boxed, since it is large beside the addresses of other stores.
    config: Box<Config>,
    shown: String,
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
    /// they are not, unless it says `sslmode=require`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(AddressError("it must begin with postgres://".to_owned()));
        }
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
        config.connect_timeout(CONNECT_MAX).tcp_user_timeout(UNACKNOWLEDGED_MAX);
        config.keepalives_idle(Duration::from_secs(10));
        if config.get_application_name().is_none() {
            config.application_name("onlyonce");
        }
        if 1 < config.get_hosts().len() {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let shown = shown(&config);
        Ok(Self { config: Box::new(config), shown })
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
        self.config == other.config
    }
}

impl Eq for Address {}

impl Address {
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What encrypts its connections.
    pub(crate) fn tls(&self) -> Result<MakeRustlsConnect, String> {
        let mut roots = RootCertStore::empty();
        if self.config.get_ssl_mode() != SslMode::Disable {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("the system trusts no certificate, so no server can be known".into());
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
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
    }
}
