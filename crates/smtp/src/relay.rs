//! The server that messages are handed to, and how to speak to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

/// A mail server.
#[derive(Clone)]
pub struct Relay {
    /// Its name or address.
    pub host: String,
    /// Its port: 587 for submission with STARTTLS, 465 with TLS from the first byte, 25 between
    /// servers (RFC 8314).
    pub port: u16,
    /// What protects the connection.
    pub security: Security,
    /// Who we are to the server, if it asks.
    pub login: Option<Login>,
    /// The name we say in EHLO: our host's full name, or an address in brackets.
    pub hello: String,
    /// How long is waited for what.
    pub waits: Waits,
}

/// What protects a connection.
#[derive(Clone)]
pub enum Security {
    /// Nothing: for a server on this host.
    None,
    /// STARTTLS is demanded before anything else (RFC 3207). A server without it is refused.
    StartTls(Arc<ClientConfig>),
    /// TLS from the first byte.
    Tls(Arc<ClientConfig>),
}

/// Who we are to the server.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password, or the token for [`Mechanism::Xoauth2`].
    pub secret: Password,
    /// How it is said. `None`: the first of PLAIN and LOGIN that the server offers.
    pub mechanism: Option<Mechanism>,
}

/// A password or a token, asked for at each login: a token is renewed while a sender runs.
#[derive(Clone)]
pub struct Password(Arc<Ask>);

type Ask = dyn Fn() -> Result<String, String> + Send + Sync;

impl Password {
    /// Always this one.
    pub fn new(password: impl Into<String>) -> Self {
        let password = password.into();
        Self::asked(move || Ok(password.clone()))
    }

    /// What `ask` says each time. Its error is for a person; the login is then tried again later.
    pub fn asked(ask: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn get(&self) -> Result<String, String> {
        (self.0)()
    }
}

/// How a login is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Older, without a standard.
    Login,
    /// With a token of OAuth 2.0.
    Xoauth2,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// For the connection and TLS. Default 30 s.
    pub connect: Duration,
    /// For the greeting and for each answer before the content's end. Default 5 min, as RFC 5321,
    /// section 4.5.3.2 asks.
    pub answer: Duration,
    /// For the server to take some more of the content. Default 3 min (the same section).
    pub content: Duration,
    /// For the answer to the end of the content. Default 10 min: to give up earlier makes doubt,
    /// and doubt makes second copies (RFC 5321, section 4.5.3.2.6; RFC 1047).
    pub end: Duration,
    /// How long the system goes on trying to deliver bytes that the server does not confirm,
    /// also after this process has ended (`TCP_USER_TIMEOUT`). Default 60 s: later than this
    /// after the last write nothing of ours can arrive.
    pub late: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(300),
            content: Duration::from_secs(180),
            end: Duration::from_secs(600),
            late: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({}:{})", self.host, self.port)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::StartTls(_) => "StartTls",
            Self::Tls(_) => "Tls",
        })
    }
}
