//! Which way messages go: to a mail server, or to a provider.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use onlyonce_mail::provider::Provider;
use onlyonce_mail::trusted;
use onlyonce_smtp::{Login, Mechanism, Password, Relay, Security, Waits};
use serde::Deserialize;

use crate::exit::Exit;
use crate::failure::Failure;

/// A mail server, and who we are to it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServerArgs {
    /// The mail server: HOST or HOST:PORT [default port: 587, 465 with tls, 25 with none]
    #[arg(id = "server", long = "server", value_name = "HOST",
          required_unless_present_any = ["provider", "config"])]
    pub(super) host: Option<String>,
    /// What protects the connection [default: starttls]
    #[arg(long, value_enum)]
    pub(super) tls: Option<Protection>,
    /// Who we are to the server
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(super) user: Option<String>,
    /// A file with the password or token; not readable for others
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
    /// How the login is said [default: plain or login, whichever the server offers]
    #[arg(long, value_name = "MECHANISM", value_enum)]
    pub(super) auth: Option<Auth>,
    /// The name of this host, as the server is told it [default: localhost]
    #[arg(long, value_name = "NAME")]
    pub(super) hello: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protection {
    /// Demanded before anything else is said
    Starttls,
    /// From the first byte
    Tls,
    /// Nothing: for a server on this host
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auth {
    /// With a password
    Plain,
    /// With a password, in an older form
    Login,
    /// With an access token of OAuth 2.0, read from the password file at each login
    Xoauth2,
}

impl From<Auth> for Mechanism {
    fn from(auth: Auth) -> Self {
        match auth {
            Auth::Plain => Self::Plain,
            Auth::Login => Self::Login,
            Auth::Xoauth2 => Self::Xoauth2,
        }
    }
}

impl ServerArgs {
    /// What is said here, before what is said there. Another server is told nothing that was meant
    /// for that one.
    pub(super) fn over(self, other: Self) -> Self {
        if self.host.is_some() {
            return self;
        }
        Self {
            host: other.host,
            tls: self.tls.or(other.tls),
            user: self.user.or(other.user),
            password_file: self.password_file.or(other.password_file),
            auth: self.auth.or(other.auth),
            hello: self.hello.or(other.hello),
        }
    }

    /// Whether anything is said of it.
    pub(super) const fn is_said(&self) -> bool {
        let Self { host, tls, user, password_file, auth, hello } = self;
        host.is_some()
            || tls.is_some()
            || user.is_some()
            || password_file.is_some()
            || auth.is_some()
            || hello.is_some()
    }

    /// The server; `wrong` says where a mistake is.
    pub(super) fn relay(self, wrong: &dyn Fn(&str) -> Failure) -> Result<Relay, Failure> {
        let tls = self.tls.unwrap_or(Protection::Starttls);
        let usual = match tls {
            Protection::Starttls => 587,
            Protection::Tls => 465,
            Protection::None => 25,
        };
        let server = self.host.unwrap_or_default();
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| {
                    wrong(&format!("{server:?}: the port is no number up to 65535"))
                })?;
                (host, port)
            }
            None => (&*server, usual),
        };
        if tls == Protection::None && self.user.is_some() {
            return Err(wrong("tls is none: the password would go in the clear"));
        }
        let login = match (self.user, self.password_file) {
            (Some(user), Some(file)) => {
                // A mistake is named before anything is sent.
                password(&file, wrong)?;
                let secret = Password::asked(move || password_in(&file));
                Some(Login { user, secret, mechanism: self.auth.map(Mechanism::from) })
            }
            (None, None) if self.auth.is_some() => {
                return Err(wrong("it is said how to log in, and not as whom: there is no user"));
            }
            (None, None) => None,
            (Some(_), None) => return Err(wrong("there is a user, and no password file")),
            (None, Some(_)) => return Err(wrong("there is a password file, and no user")),
        };
        let (host, security) = (host.to_owned(), security(tls)?);
        let hello = self.hello.unwrap_or_else(|| "localhost".to_owned());
        Ok(Relay { host, port, security, login, hello, waits: Waits::default() })
    }
}

/// What a file says of a provider; what it needs of the environment is there. `wrong` says where
/// the file was named; a mistake in it has a place there.
pub(super) fn provider(
    file: &Path,
    wrong: &dyn Fn(&str) -> Failure,
) -> Result<Arc<Provider>, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| wrong(&format!("{name}: {error}")))?;
    let read = Provider::read(&name, &text);
    let provider = read.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    if let Some(missing) = provider.variables().iter().find(|it| std::env::var_os(it).is_none()) {
        let text = format!("{name}: the variable {missing} is not set, and its requests need it");
        return Err(wrong(&text));
    }
    Ok(Arc::new(provider))
}

pub(super) fn security(protection: Protection) -> Result<Security, Failure> {
    let trusted = || trusted().map_err(|error| Failure::new(Exit::Unavailable, error.to_string()));
    Ok(match protection {
        Protection::Starttls => Security::StartTls(trusted()?),
        Protection::Tls => Security::Tls(trusted()?),
        Protection::None => Security::None,
    })
}

/// A password in a file; `wrong` says where the file was named.
pub(super) fn password(file: &Path, wrong: &dyn Fn(&str) -> Failure) -> Result<String, Failure> {
    password_in(file).map_err(|text| wrong(&text))
}

fn password_in(file: &Path) -> Result<String, String> {
    let wrong = |text: String| format!("the password file {}: {text}", file.display());
    let read = || Ok((std::fs::metadata(file)?, std::fs::read_to_string(file)?));
    let (about, text): (_, String) =
        read().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(wrong("others can read it; `chmod 600` it".to_owned()));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(text.to_owned()) }
}
