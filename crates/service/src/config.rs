//! What the service is told: a TOML file, or a few flags. All defaults stand here.

mod file;
mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onlyonce_core::limits::KEY_AHEAD_MAX;
use onlyonce_core::{OnUnknown, Policy};
pub use onlyonce_listen::text::ConfigError;
use onlyonce_listen::tls::Tls;

use crate::callers::{Caller, Credential};

/// Where the service listens unless it is told.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The scope that there is if none is named.
const DEFAULT_SCOPE: &str = "default";

/// Where callers connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port; 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system, for its owner alone.
    Unix(PathBuf),
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers connect. Default 127.0.0.1:8081.
    pub listen: Listen,
    /// TLS for callers; without it they speak plain HTTP.
    pub tls: Option<Tls>,
    /// Bounds on everything.
    pub limits: Limits,
    /// What the types of problems begin with.
    pub problem_base: String,
    /// Whose keys there are.
    pub scopes: Vec<ScopeRule>,
    pub(crate) callers: Vec<Caller>,
}

/// The rules of one scope.
#[derive(Clone, Debug)]
pub struct ScopeRule {
    /// Its name.
    pub name: String,
    /// How long things last, and what an unknown outcome allows.
    pub policy: Policy,
    /// The longest lease that a request may ask for. Default 1 h.
    pub lease_max: Duration,
    /// The longest retention that a request may ask for. Default 30 d.
    pub retention_max: Duration,
    /// Whether only keys with a time of their own are accepted.
    pub timed: bool,
    /// How far in the future a key's time may be. Default 5 min.
    pub key_ahead_max: Duration,
    /// The largest reply that is kept, in bytes. Default 1 MiB.
    pub reply_max: usize,
    /// Claims a second, and how many at once. Default without a bound.
    pub claims: Option<(u32, u32)>,
    /// Requests that wait at once. Default 1,000.
    pub waits: usize,
}

impl ScopeRule {
    /// A scope with everything by default.
    pub fn new(name: impl Into<String>) -> Self {
        let policy = Policy::default();
        Self {
            name: name.into(),
            policy,
            lease_max: Duration::from_secs(3_600),
            retention_max: policy.remember,
            timed: false,
            key_ahead_max: KEY_AHEAD_MAX,
            reply_max: 1 << 20,
            claims: None,
            waits: 1_000,
        }
    }

    /// Whether a claim may run an operation again whose outcome nobody knows.
    pub(crate) fn may_retry(&self) -> bool {
        self.policy.on_unknown == OnUnknown::Retry
    }
}

/// Bounds on everything that callers can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head of a request, in bytes. Default 16 KiB.
    pub head_bytes: usize,
    /// Fields in the head of a request. Default 100.
    pub head_fields: usize,
    /// Connections at once; more wait to be accepted. Default 10,000.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2. Default 250.
    pub streams: u32,
    /// Requests that wait at once, in all scopes together. Default 10,000.
    pub waiters: usize,
    /// Memory for the bodies of requests, in bytes, all together. Default 256 MiB.
    pub bodies: usize,
    /// From a connection's beginning, or the end of its last answer, until the head of the next
    /// request is there. Default 75 s: longer than clients keep connections to use them again.
    pub head_time: Duration,
    /// How long nothing of a request's body may come. Default 30 s.
    pub body_time: Duration,
    /// How long nothing of an answer may be taken by its caller. Default 30 s.
    pub write_time: Duration,
    /// How long a request may wait for another's outcome. Default 30 s.
    pub wait_time: Duration,
    /// How long requests may take to end after the service was told to stop. Default 10 s.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 << 10,
            head_fields: 100,
            connections: 10_000,
            streams: 250,
            waiters: 10_000,
            bodies: 256 << 20,
            head_time: Duration::from_secs(75),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            wait_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Those of a connection.
    pub(crate) const fn of_connections(&self) -> onlyonce_listen::Limits {
        let Self { head_bytes, head_fields, connections, streams, head_time, write_time, .. } =
            *self;
        onlyonce_listen::Limits {
            head_bytes,
            head_fields,
            connections,
            streams,
            head_time,
            write_time,
        }
    }
}

impl Config {
    /// The common case: one scope, `default`, for one caller, who is an operator too.
    pub fn for_one(listen: Listen, credential: Credential) -> Self {
        let caller =
            Caller { name: "caller".to_owned(), credential, scopes: vec![0], operator: true };
        Self {
            listen,
            tls: None,
            limits: Limits::default(),
            problem_base: onlyonce_http::problem::TYPE_BASE.to_owned(),
            scopes: vec![ScopeRule::new(DEFAULT_SCOPE)],
            callers: vec![caller],
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, line and column of the mistake, and how to mend it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::of(&path.display().to_string(), error.to_string()))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads the text of a file; `name` is what mistakes name.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        file::parse(name, text).map(Self::with_one_memory)
    }

    /// All scopes remember for as long as the one that does so longest: they share a store.
    pub(crate) fn with_one_memory(mut self) -> Self {
        let remember = self.sweeping().remember;
        self.scopes.iter_mut().for_each(|scope| scope.policy.remember = remember);
        self
    }

    /// The policy for a sweeper of all scopes: the longest memory among them, so that nothing is
    /// forgotten before any of them says so.
    pub fn sweeping(&self) -> Policy {
        let mut scopes = self.scopes.iter().map(|scope| scope.policy);
        let first = scopes.next().unwrap_or_default();
        let longest = scopes.fold(first, |longest, one| Policy {
            remember: longest.remember.max(one.remember),
            skew_max: longest.skew_max.max(one.skew_max),
            ..longest
        });
        let (Policy { remember, skew_max, .. }, plain) = (longest, Policy::default());
        Policy { remember, skew_max, retention: plain.retention.min(remember), ..plain }
    }

    /// How far clocks may differ in the scope that allows least.
    pub fn skew_least(&self) -> Duration {
        let scopes = self.scopes.iter().map(|scope| scope.policy.skew_max);
        scopes.min().unwrap_or(Policy::default().skew_max)
    }

    /// The largest body of a request in bytes: the largest reply of any scope fits in base64.
    pub(crate) fn body_max(&self) -> usize {
        let reply = self.scopes.iter().map(|scope| scope.reply_max).max().unwrap_or_default();
        reply.saturating_add(reply / 3).saturating_add(64 << 10)
    }

    /// What an operator should know before a caller finds out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .scopes
            .iter()
            .flat_map(|scope| {
                let told = scope.policy.warnings().into_iter();
                told.map(|text| format!("scope {}: {text}", scope.name))
            })
            .collect();
        if let Listen::Tcp(address) = self.listen
            && !address.ip().is_loopback()
            && self.tls.is_none()
        {
            warnings.push(format!(
                "{address} is no loopback address and there is no [tls]: tokens and replies can \
                 be read on the way"
            ));
        }
        warnings
    }
}

/// A token as it stands in a file that only its owner can read.
///
/// # Errors
/// The file cannot be read, others can read it, or it holds no token.
pub fn token_file(path: &Path) -> Result<Credential, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let named = |text: String| format!("{}: {text}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    let mode = std::fs::metadata(path).map_err(|error| named(error.to_string()))?.permissions();
    if mode.mode() & 0o077 != 0 {
        let mode = mode.mode() & 0o777;
        return Err(named(format!("others can read it (mode {mode:o}); chmod 600 it")));
    }
    let token = text.trim();
    if token.len() < TOKEN_MIN || !token.bytes().all(|it| it.is_ascii_graphic()) {
        return Err(named(format!(
            "it must hold one token of at least {TOKEN_MIN} visible characters; make one with \
             `openssl rand -hex 32`"
        )));
    }
    Ok(Credential::token(token))
}

/// Tokens are as good as passwords and must not be guessed.
const TOKEN_MIN: usize = 16;
