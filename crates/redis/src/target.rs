//! The address of a store, as a URL.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

/// Where Redis listens if nothing else is said.
const PORT: u16 = 6379;
/// What the names of keys begin with if nothing else is said.
const PREFIX: &str = "onlyonce";
/// The risks that can be taken. The others cannot, whoever says so.
pub const RISKS: [&str; 3] = ["everysec", "unchecked", "failover"];
/// Where sentinels do.
const SENTINEL_PORT: u16 = 26_379;

/// A Redis that is meant to be a store.
///
/// ```text
/// redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE][?OPTION=VALUE&..]
/// redis[s]+sentinel://[USER[:PASSWORD]@]HOST[:PORT],../NAME[?..]
/// redis[s]+cluster://[USER[:PASSWORD]@]HOST[:PORT],..[?..]
/// ```
///
/// `rediss` is TLS. Options:
///
/// - `prefix`: what the names of keys begin with, `onlyonce` by default;
/// - `password-file`: a file with the password, which a command line would show to everybody;
/// - `ca`: a file with the certificates to trust instead of the system's, in PEM;
/// - `replicas`: how many replicas must have a write before it is confirmed, 0 by default;
/// - `accept`: risks that are taken, with commas between them. `everysec`: what was confirmed
///   within the last second or two is lost in a crash. `unchecked`: the server does not tell its
///   settings, and somebody else has made sure of `appendfsync` and `no-appendfsync-on-rewrite`.
///   `failover`: a replica may take the master's place, and lacks what it had not got.
///
/// Sentinels are asked without a password and without TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) kind: Kind,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) database: i64,
    pub(crate) prefix: String,
    pub(crate) replicas: u32,
    pub(crate) accept_everysec: bool,
    pub(crate) accept_unchecked: bool,
    pub(crate) accept_failover: bool,
}

/// How the servers hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    /// The name by which sentinels know the master.
    Sentinel(String),
    Cluster,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it must begin with redis://")?;
        let (server, shape) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match server {
            "redis" => false,
            "rediss" => true,
            _ => return Err(format!("`{scheme}` is none of redis, rediss")),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let kind = match shape {
            "" => Kind::Single,
            "cluster" => Kind::Cluster,
            "sentinel" if !path.is_empty() => Kind::Sentinel(decode(path)?),
            "sentinel" => return Err("the master's name must follow: /NAME".to_owned()),
            other => return Err(format!("`+{other}` is none of +sentinel, +cluster")),
        };
        let database = match kind {
            Kind::Single if !path.is_empty() => {
                path.parse().map_err(|_| format!("`{path}` is no number of a database"))?
            }
            Kind::Cluster if !path.is_empty() => {
                return Err("a cluster has no databases".to_owned());
            }
            Kind::Single | Kind::Sentinel(_) | Kind::Cluster => 0,
        };
        let port = if shape == "sentinel" { SENTINEL_PORT } else { PORT };
        let hosts = hosts.split(',').map(|host| at(host, port)).collect::<Result<Vec<_>, _>>()?;
        if kind == Kind::Single && 1 < hosts.len() {
            let text = "several servers are redis+sentinel:// or redis+cluster://";
            return Err(text.to_owned());
        }
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => (some(decode(user)?), some(decode(password)?)),
            None => (None, None),
        };
        let mut target = Self {
            kind,
            hosts,
            user,
            password,
            tls,
            ca: None,
            database,
            prefix: PREFIX.to_owned(),
            replicas: 0,
            accept_everysec: false,
            accept_unchecked: false,
            accept_failover: false,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            target.set(name, &decode(value)?)?;
        }
        Ok(target)
    }
}

impl Target {
    /// Takes a risk of [`RISKS`]; says whether there is one of this name.
    pub fn accept(&mut self, risk: &str) -> bool {
        match risk {
            "everysec" => self.accept_everysec = true,
            "unchecked" => self.accept_unchecked = true,
            "failover" => self.accept_failover = true,
            _ => return false,
        }
        true
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "prefix" => {
                let fits = |letter: char| letter.is_ascii_graphic() && !"{}".contains(letter);
                if value.is_empty() || !value.chars().all(fits) {
                    return Err("`prefix` must be letters without braces or spaces".to_owned());
                }
                self.prefix = value.to_owned();
            }
            "password-file" => {
                let read = fs::read_to_string(value);
                let text = read.map_err(|error| format!("`password-file` {value}: {error}"))?;
                self.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            "ca" if self.tls => self.ca = Some(value.into()),
            "ca" => return Err("`ca` is for rediss://".to_owned()),
            "replicas" => {
                let number = value.parse().ok().filter(|number| *number <= 16);
                self.replicas = number.ok_or("`replicas` must be a number up to 16")?;
            }
            "accept" => {
                if let Some(other) = value.split(',').find(|risk| !self.accept(risk)) {
                    let all = RISKS.join(", ");
                    return Err(format!("`{other}` is no risk to accept; there are {all}"));
                }
            }
            other => return Err(format!("`{other}` is no option of it")),
        }
        Ok(())
    }
}

/// Without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.kind {
            Kind::Single => "",
            Kind::Sentinel(_) => "+sentinel",
            Kind::Cluster => "+cluster",
        })?;
        f.write_str("://")?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}:{port}", if at == 0 { "" } else { "," })?;
        }
        match &self.kind {
            Kind::Single if self.database != 0 => write!(f, "/{}", self.database),
            Kind::Sentinel(name) => write!(f, "/{name}"),
            Kind::Single | Kind::Cluster => Ok(()),
        }?;
        let taken = [self.accept_everysec, self.accept_unchecked, self.accept_failover];
        let accept = RISKS.into_iter().zip(taken).filter_map(|(risk, taken)| taken.then_some(risk));
        let accept = accept.collect::<Vec<_>>().join(",");
        let ca = self.ca.as_ref().map(|file| file.display().to_string());
        let replicas = (self.replicas != 0).then(|| self.replicas.to_string());
        let options = [
            ("prefix", Some(self.prefix.clone()).filter(|prefix| prefix != PREFIX)),
            ("ca", ca),
            ("replicas", replicas),
            ("accept", some(accept)),
        ];
        let said = options.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (at, (name, value)) in said.enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "?" } else { "&" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn at(host: &str, default: u16) -> Result<(String, u16), String> {
    // An IPv6 address stands in brackets, since it has colons of its own.
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if name.is_empty() {
        return Err("a host is missing".to_owned());
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
        None => default,
    };
    Ok((name.to_owned(), port))
}

/// Percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not percent-encoded");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let hex = std::str::from_utf8(hex).map_err(|_| wrong())?;
        bytes.push(u8::from_str_radix(hex, 16).map_err(|_| wrong())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_names_servers_and_says_what_it_does_not_know() {
        let one = target("redis://u%40x:p%3Aw@10.0.0.1/3?prefix=shop&replicas=2&accept=everysec");
        assert_eq!(one.hosts, [("10.0.0.1".to_owned(), 6379)]);
        assert_eq!((one.user.as_deref(), one.password.as_deref()), (Some("u@x"), Some("p:w")));
        assert_eq!((one.database, one.replicas, one.prefix.as_str()), (3, 2, "shop"));
        assert!(one.accept_everysec && !one.accept_unchecked);
        let shown = "redis://10.0.0.1:6379/3?prefix=shop&replicas=2&accept=everysec";
        assert_eq!(one.to_string(), shown);
        assert_eq!(target("redis://a").to_string(), "redis://a:6379");
        let all = "redis://a:6379?accept=everysec,unchecked,failover";
        assert_eq!(target("redis://a?accept=failover,unchecked,everysec").to_string(), all);
        assert!(!format!("{one:?}").contains("p:w"));

        let many = target("redis+cluster://a:1,b:2,[::1]:3");
        let hosts = [("a".to_owned(), 1), ("b".to_owned(), 2), ("::1".to_owned(), 3)];
        assert_eq!((many.kind, many.hosts), (Kind::Cluster, hosts.to_vec()));
        let watched = target("rediss+sentinel://:secret@a,b/main");
        assert_eq!(watched.kind, Kind::Sentinel("main".to_owned()));
        assert_eq!(watched.hosts[1], ("b".to_owned(), 26_379));
        assert_eq!((watched.user.is_none(), watched.password.as_deref()), (true, Some("secret")));
        for (wrong, says) in [
            ("postgres://a", "none of redis"),
            ("redis://a,b", "redis+sentinel"),
            ("redis+sentinel://a", "/NAME"),
            ("redis+cluster://a/1", "no databases"),
            ("redis://a/x", "no number"),
            ("redis://a:b", "no port"),
            ("redis://", "host is missing"),
            ("redis://a?prefix={x}", "braces"),
            ("redis://a?accept=loss", "no risk"),
            ("redis://a?ca=x", "rediss"),
            ("redis://a?what=1", "no option"),
            ("redis://a?prefix=%2", "percent"),
        ] {
            let error = wrong.parse::<Target>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
