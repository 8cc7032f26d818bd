//! The address of a store, as a URL.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

/// Where etcd listens for clients if nothing else is said.
const PORT: u16 = 2379;
/// What keys begin with if nothing else is said.
const PREFIX: &str = "onlyonce";
/// The risks that can be taken. The others cannot, whoever says so.
pub const RISKS: [&str; 1] = ["single"];

/// An etcd that is meant to be a store.
///
/// ```text
/// etcd[s]://[USER[:PASSWORD]@]HOST[:PORT],..[?OPTION=VALUE&..]
/// ```
///
/// `etcds` is TLS. One of the members is used, and the next one when it fails. Options:
///
/// - `prefix`: what keys begin with, `onlyonce` by default;
/// - `password-file`: a file with the password, which a command line would show to everybody;
/// - `ca`: a file with the certificates to trust instead of the system's, in PEM;
/// - `cert` and `key`: files with our own certificate and its key in PEM, where members ask for
///   one;
/// - `compact`: `no` if somebody else lets etcd forget old revisions of keys; else the sweeper
///   does, for all who use this etcd;
/// - `accept`: a risk that is taken. `single`: one member, which is lost with its disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) hosts: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) prefix: String,
    pub(crate) compact: bool,
    pub(crate) accept_single: bool,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it must begin with etcd://")?;
        let tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(format!("`{scheme}` is none of etcd, etcds")),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, hosts) = match rest.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, rest),
        };
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let mut target = Self {
            hosts: hosts.split(',').map(at).collect::<Result<_, _>>()?,
            user,
            password,
            tls,
            ca: None,
            cert: None,
            key: None,
            prefix: PREFIX.to_owned(),
            compact: true,
            accept_single: false,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            target.set(name, &decode(value)?)?;
        }
        if target.cert.is_some() != target.key.is_some() {
            return Err("`cert` and `key` go together".to_owned());
        }
        Ok(target)
    }
}

impl Target {
    /// Takes a risk of [`RISKS`]; says whether there is one of this name.
    pub fn accept(&mut self, risk: &str) -> bool {
        let known = RISKS.contains(&risk);
        self.accept_single |= known;
        known
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("prefix", "") => return Err("`prefix` is empty".to_owned()),
            ("prefix", prefix) => self.prefix = prefix.to_owned(),
            ("password-file", file) => {
                let read = fs::read_to_string(file);
                let text = read.map_err(|error| format!("`password-file` {file}: {error}"))?;
                self.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            ("ca", file) if self.tls => self.ca = Some(file.into()),
            ("cert", file) if self.tls => self.cert = Some(file.into()),
            ("key", file) if self.tls => self.key = Some(file.into()),
            ("ca" | "cert" | "key", _) => return Err(format!("`{name}` is for etcds://")),
            ("compact", "no") => self.compact = false,
            ("compact", "yes") => self.compact = true,
            ("compact", _) => return Err("`compact` is yes or no".to_owned()),
            ("accept", risk) if self.accept(risk) => {}
            ("accept", other) => {
                return Err(format!("`{other}` is no risk to accept; there is single"));
            }
            (other, _) => return Err(format!("`{other}` is no option of it")),
        }
        Ok(())
    }

    /// The URL of each member.
    pub(crate) fn urls(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        self.hosts.iter().map(|host| format!("{scheme}://{host}")).collect()
    }
}

/// Without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "etcds" } else { "etcd" }, self.hosts.join(","))?;
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        let options = [
            ("prefix", Some(self.prefix.clone()).filter(|prefix| prefix != PREFIX)),
            ("ca", file(&self.ca)),
            ("cert", file(&self.cert)),
            ("key", file(&self.key)),
            ("compact", (!self.compact).then(|| "no".to_owned())),
            ("accept", self.accept_single.then(|| "single".to_owned())),
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

/// A host and a port; an IPv6 address stands in brackets.
fn at(host: &str) -> Result<String, String> {
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if host.is_empty() || host.starts_with(':') || host.contains('/') {
        return Err(format!("`{host}` is no host"));
    }
    match after.rsplit_once(':') {
        Some((_, port)) => match port.parse::<u16>() {
            Ok(_) => Ok(host.to_owned()),
            Err(_) => Err(format!("`{port}` is no port")),
        },
        None => Ok(format!("{host}:{PORT}")),
    }
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

    #[test]
    fn a_url_names_members_and_says_what_it_does_not_know() {
        let target: Target =
            "etcd://root:p%40w@a,b:2,[::1]:3,[::2]?prefix=shop&compact=no".parse().unwrap();
        assert_eq!(target.hosts, ["a:2379", "b:2", "[::1]:3", "[::2]:2379"]);
        assert_eq!(target.user.as_deref(), Some("root"));
        assert_eq!(target.password.as_deref(), Some("p@w"));
        assert!(!target.compact && !target.accept_single && !target.tls);
        assert_eq!(
            target.to_string(),
            "etcd://a:2379,b:2,[::1]:3,[::2]:2379?prefix=shop&compact=no"
        );
        assert_eq!(target.urls()[1], "http://b:2");
        for (wrong, says) in [
            ("http://a", "none of etcd"),
            ("a", "etcd://"),
            ("etcd://", "no host"),
            ("etcd://a:x", "no port"),
            ("etcd://a?prefix=", "empty"),
            ("etcd://a?ca=x", "etcds"),
            ("etcd://a?cert=x&key=y", "etcds"),
            ("etcds://a?cert=x", "go together"),
            ("etcd://a?accept=loss", "no risk"),
            ("etcd://a?compact=maybe", "yes or no"),
            ("etcd://a?what=1", "no option"),
        ] {
            let error = wrong.parse::<Target>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
