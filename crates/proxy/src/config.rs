//! What the proxy is told: a TOML file, or a few flags. All defaults stand here.

mod file;
mod limits;
mod policy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use onlyonce::core::Policy;
use onlyonce_http::RoutePolicy;

pub use onlyonce_listen::text::ConfigError;
pub use onlyonce_listen::tls::Tls;

/// Where the proxy listens unless it is told.
pub const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers connect. Port 0 takes a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where requests go.
    pub upstream: Target,
    /// TLS for callers; without it they speak plain HTTP.
    pub tls: Option<Tls>,
    /// Bounds on everything.
    pub limits: Limits,
    /// The port for operators, if there is one.
    pub admin: Option<Admin>,
    /// The policy of all requests that no route names.
    pub policy: Arc<RoutePolicy>,
    /// Policies by path; the longest path that fits counts.
    pub routes: Vec<Route>,
}

/// The upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port.
    pub authority: Authority,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it is spoken to in HTTP/2 (over plain TCP with prior knowledge).
    pub http2: bool,
    /// Certificates that are trusted beside those of the system, in PEM.
    pub trust: Option<PathBuf>,
}

/// The port for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens: a loopback address.
    pub listen: SocketAddr,
    /// What `Authorization: Bearer` must say.
    pub token: String,
}

/// Bounds on everything that callers and the upstream can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head of a request, in bytes. Default 64 KiB.
    pub head_bytes: usize,
    /// Fields in the head of a request. Default 100.
    pub head_fields: usize,
    /// Connections of callers at once; more wait to be accepted. Default 10,000.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2. Default 250.
    pub streams: u32,
    /// Callers that wait for another's answer. Default 10,000.
    pub waiters: usize,
    /// Memory for the bodies of keyed requests that run or wait, in bytes, all together.
    pub bodies: usize,
    /// From a connection's beginning, or the end of its last answer, until the head of the next
    /// request is there. Default 15 s.
    pub head_time: Duration,
    /// How long nothing of a request's body may come. Default 30 s.
    pub body_time: Duration,
    /// Until a connection to the upstream stands. Default 5 s.
    pub connect_time: Duration,
    /// How long nothing of an answer may be taken by its caller. Default 30 s.
    pub write_time: Duration,
    /// From the end of a request until the upstream's head, and between frames of its body; also
    /// how long nothing of a request may be taken by the upstream. Default 60 s.
    pub answer_time: Duration,
    /// How long an idle connection to the upstream is used again. Default 2 s.
    pub upstream_idle: Duration,
    /// How long running operations may take to end after the proxy was told to stop. Default 65 s:
    /// longer than an answer may take, so that an ordinary stop makes no unknown outcome.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            head_fields: 100,
            connections: 10_000,
            streams: 250,
            waiters: 10_000,
            bodies: 512 << 20,
            head_time: Duration::from_secs(15),
            body_time: Duration::from_secs(30),
            connect_time: Duration::from_secs(5),
            write_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(2),
            drain_time: Duration::from_secs(65),
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

    fn warning(&self) -> Option<String> {
        let (drain, answer) = (self.drain_time, self.answer_time);
        (drain < answer).then(|| {
            format!(
                "drain_time = {drain:?} is shorter than answer_time = {answer:?}: an operation \
                 that the upstream would still have answered becomes unknown when the proxy is \
                 stopped"
            )
        })
    }
}

/// A policy of its own for some paths.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path, and everything below it.
    pub path: String,
    /// How requests to it are protected.
    pub policy: Arc<RoutePolicy>,
}

impl Route {
    /// Whether a request's path is this one or below it.
    pub(crate) fn fits(&self, path: &str) -> bool {
        path.strip_prefix(self.path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Config {
    /// The common case: everything by default, in front of this upstream.
    ///
    /// # Errors
    /// The upstream's address is none.
    pub fn for_upstream(upstream: &str) -> Result<Self, ConfigError> {
        let upstream = target(upstream).map_err(|text| ConfigError::of("--upstream", text))?;
        Ok(Self {
            listen: LISTEN,
            upstream,
            tls: None,
            limits: Limits::default(),
            admin: None,
            policy: Arc::new(RoutePolicy::default()),
            routes: Vec::new(),
        })
    }

    /// Reads a file. `upstream` stands for the one in the file if that has none.
    ///
    /// # Errors
    /// Names the file, line and column of the mistake, and how to mend it.
    pub fn read(path: &Path, upstream: Option<&str>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::of(&path.display().to_string(), error.to_string()))?;
        Self::parse(&path.display().to_string(), &text, upstream)
    }

    /// Reads the text of a file; `name` is what mistakes name.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(name: &str, text: &str, upstream: Option<&str>) -> Result<Self, ConfigError> {
        file::parse(name, text, upstream).map(Self::with_one_memory)
    }

    /// All routes remember for as long as the one that does so longest: they share a store, and a
    /// key that one of them meets may be another's.
    pub(crate) fn with_one_memory(mut self) -> Self {
        let remember = self.sweeping().remember;
        let routes = self.routes.iter_mut().map(|route| &mut route.policy);
        for policy in std::iter::once(&mut self.policy).chain(routes) {
            if policy.record.remember != remember {
                Arc::make_mut(policy).record.remember = remember;
            }
        }
        self
    }

    /// The policy for a sweeper of all routes: the longest memory among them, so that nothing is
    /// forgotten before any of them says so.
    pub fn sweeping(&self) -> Policy {
        let routes = self.routes.iter().map(|route| &route.policy);
        routes.fold(self.policy.record, |longest, route| {
            let one = route.record;
            Policy {
                remember: longest.remember.max(one.remember),
                skew_max: longest.skew_max.max(one.skew_max),
                ..longest
            }
        })
    }

    /// How far clocks may differ on the route that allows least.
    pub fn skew_least(&self) -> Duration {
        let routes = self.routes.iter().map(|route| route.policy.record.skew_max);
        routes.fold(self.policy.record.skew_max, Duration::min)
    }

    /// What an operator should know before a request finds out, each with the path it is about.
    pub fn warnings(&self) -> Vec<String> {
        let own = std::iter::once(("/", &self.policy));
        let routes = self.routes.iter().map(|route| (route.path.as_str(), &route.policy));
        let warn = |(path, policy): (&str, &Arc<RoutePolicy>)| -> Vec<String> {
            policy.warnings().into_iter().map(|text| format!("{path}: {text}")).collect()
        };
        own.chain(routes).flat_map(warn).chain(self.limits.warning()).collect()
    }
}

/// Reads the upstream's address.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let example = "such as http://127.0.0.1:3000";
    let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no address: {error}"))?;
    let (tls, http2) = match uri.scheme_str() {
        Some("http") => (false, false),
        Some("https") => (true, false),
        Some("h2c") => (false, true),
        Some("h2") => (true, true),
        _ => {
            return Err(format!(
                "{text:?} must begin with http://, https://, h2c:// or h2://, {example}"
            ));
        }
    };
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err(format!("{text:?} has a path; requests keep their own, so give {example}"));
    }
    let Some(authority) = uri.authority() else { return Err(format!("{text:?} names no host")) };
    if authority.as_str().contains('@') {
        return Err(format!("{text:?} has a user name, which is not sent; give {example}"));
    }
    Ok(Target { authority: authority.clone(), tls, http2, trust: None })
}

#[cfg(test)]
mod tests;
