//! Where the server is, whether what is said to it is encrypted, and which risks are taken.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, SslOpts};
use rustls::RootCertStore;

/// How long a connection may take to be made.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The risks that can be taken. The others cannot, whoever says so.
pub const RISKS: [&str; 3] = ["replica", "galera", "asynchronous"];
/// How long a silent connection is left before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A server and a database, as `mysql://USER:PASSWORD@HOST:PORT/DATABASE`. It prints itself
/// without the password.
///
/// Options follow `?`, with `&` between them:
///
/// - `ssl-mode`: `disabled`, or `verify_identity`. If nothing is said, connections to other
///   machines are encrypted and the server's certificate is checked against those that the system
///   trusts, and connections to this machine are not.
/// - `ca`: a file with the certificates to trust instead of the system's, in PEM;
/// - `password-file`: a file with the password, which a command line would show to everybody;
/// - `accept`: risks that are taken, with commas between them. `replica`: the server follows
///   another one, which nobody else writes to. `galera`: it is a node of a Galera cluster.
///   `asynchronous`: a replica follows it that no commit waits for.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    opts: Opts,
    tls: bool,
    ca: Option<PathBuf>,
    accepts: Accepts,
    shown: String,
}

/// The risks that an address takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepts {
    pub(crate) replica: bool,
    pub(crate) galera: bool,
    pub(crate) asynchronous: bool,
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

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |text: &str| AddressError(text.to_owned());
        let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
        let rest = rest.ok_or_else(|| wrong("it must begin with mysql://"))?;
        let (base, options) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = base.split('/').next().unwrap_or_default();
        if authority.rsplit('@').next().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        let opts = Opts::from_url(&format!("mysql://{base}"));
        let opts = opts.map_err(|error| AddressError(error.to_string()))?;
        let Some(database) = opts.db_name().filter(|name| !name.is_empty()) else {
            return Err(wrong("it names no database"));
        };
        let user = opts.user().map(|user| format!("{user}@")).unwrap_or_default();
        let (host, port) = (opts.ip_or_hostname().to_owned(), opts.tcp_port());
        let shown = format!("mysql://{user}{host}:{port}/{database}");
        let mut address =
            Self { tls: !is_here(&host), opts, ca: None, accepts: Accepts::default(), shown };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            address.set(name, value).map_err(AddressError)?;
        }
        if address.ca.is_some() && !address.tls {
            return Err(wrong("`ca` is for `ssl-mode=verify_identity`"));
        }
        // A socket that the server names would be another way than the one that was asked for, and
        // statements are not prepared, so none is kept.
        let builder = OptsBuilder::from_opts(address.opts).prefer_socket(false);
        let builder = builder.tcp_keepalive(Some(KEEPALIVE)).stmt_cache_size(Some(0));
        address.opts = builder.into();
        Ok(address)
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

impl Address {
    /// Takes a risk of [`RISKS`]; says whether there is one of this name.
    pub fn accept(&mut self, risk: &str) -> bool {
        match risk {
            "replica" => self.accepts.replica = true,
            "galera" => self.accepts.galera = true,
            "asynchronous" => self.accepts.asynchronous = true,
            _ => return false,
        }
        true
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("ssl-mode", "disabled") => self.tls = false,
            ("ssl-mode", "verify_identity") => self.tls = true,
            // Whoever sits in between could say that the server has no TLS, or be the server.
            ("ssl-mode", _) => {
                return Err("`ssl-mode` must be disabled or verify_identity".to_owned());
            }
            ("ca", file) => self.ca = Some(file.into()),
            ("password-file", file) => {
                let read = fs::read_to_string(file);
                let text = read.map_err(|error| format!("`password-file` {file}: {error}"))?;
                let password = text.trim_end_matches(['\r', '\n']).to_owned();
                let builder = OptsBuilder::from_opts(self.opts.clone()).pass(Some(password));
                self.opts = builder.into();
            }
            ("accept", risks) => {
                if let Some(other) = risks.split(',').find(|risk| !self.accept(risk)) {
                    return Err(format!("`accept={other}` is none of {}", RISKS.join(", ")));
                }
            }
            (other, _) => {
                return Err(format!("`{other}` is none of ssl-mode, ca, password-file, accept"));
            }
        }
        Ok(())
    }

    /// Whether what is said to the server is encrypted.
    pub(crate) const fn is_encrypted(&self) -> bool {
        self.tls
    }

    pub(crate) const fn accepts(&self) -> Accepts {
        self.accepts
    }

    /// With what encrypts its connections.
    pub(crate) fn opts(&self) -> Result<Opts, String> {
        if !self.tls {
            return Ok(self.opts.clone());
        }
        let roots: Vec<_> = match &self.ca {
            Some(file) => vec![file.clone().into()],
            None => {
                let found = rustls_native_certs::load_native_certs().certs;
                // One that cannot be read must not keep us from the others.
                let read = found
                    .into_iter()
                    .filter(|root| RootCertStore::empty().add(root.clone()).is_ok());
                read.map(|root| root.as_ref().to_vec().into()).collect()
            }
        };
        if roots.is_empty() {
            return Err("the system trusts no certificate, so no server can be known".to_owned());
        }
        // The library takes what the process has, and fails if it has none or several to choose of.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true);
        Ok(OptsBuilder::from_opts(self.opts.clone()).ssl_opts(Some(tls)).into())
    }
}

fn is_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let address: Address = "mysql://anna:gehe%40im@db.example:3307/shop".parse().unwrap();
        assert_eq!(address.to_string(), "mysql://anna@db.example:3307/shop");
        assert!(!format!("{address:?}").contains("gehe"));
        assert_eq!(address.opts.pass(), Some("gehe@im"));
    }

    #[test]
    fn what_leaves_this_machine_is_encrypted_unless_somebody_says_otherwise() {
        let tls = |text: &str| text.parse::<Address>().unwrap().tls;
        assert!(tls("mysql://db.example/shop"));
        assert!(!tls("mysql://db.example/shop?ssl-mode=disabled"));
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(!tls(&format!("mysql://{here}/shop")), "{here}");
            assert!(tls(&format!("mysql://{here}/shop?ssl-mode=verify_identity")), "{here}");
        }
        let weak = "mysql://db.example/shop?ssl-mode=preferred".parse::<Address>();
        assert!(weak.unwrap_err().to_string().contains("disabled or verify_identity"));
    }

    #[test]
    fn what_is_no_address_is_refused_and_named() {
        for (wrong, says) in [
            ("", "mysql://"),
            ("postgres://a/b", "mysql://"),
            ("mysql://", "no host"),
            ("mysql://anna@/shop", "no host"),
            ("mysql://a", "no database"),
            ("mysql://a/b?colour=red", "`colour`"),
            ("mysql://a/b?accept=fire", "accept=fire"),
            ("mysql://localhost/b?ca=x", "`ca`"),
            ("mysql://a/b?password-file=/nowhere/at/all", "/nowhere/at/all"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
