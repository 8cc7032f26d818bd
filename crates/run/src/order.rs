//! What is asked for: a key, a command, and what its end means.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use onlyonce_core::{Fingerprint, Key, Policy, Scope, ScopeError, Secret};

/// The version of the rule by which commands are compared.
const VERSION: u8 = 1;

/// A command that is to run once.
#[derive(Clone, Debug)]
pub struct Order {
    /// What names it.
    pub key: Key,
    /// Whom the key belongs to: [`scope`].
    pub scope: Scope,
    /// The program, found as a shell finds it, and its arguments.
    pub command: Vec<OsString>,
    /// The folder that is part of what the command is, or `None` if any may be.
    pub folder: Option<PathBuf>,
    /// The environment variables that are part of what the command is.
    pub env: Vec<OsString>,
    /// How long things last, and what is done about an unknown outcome.
    pub policy: Policy,
    /// How long a run of somebody else is waited for.
    pub wait: Duration,
    /// How much output is kept, in bytes; never more than the store keeps.
    pub output_max: usize,
    /// What exit codes mean.
    pub codes: Codes,
    /// Who is asked about an unknown outcome, if the policy says so.
    pub asking: Option<Asking>,
}

/// What exit codes of the command mean; 128 and a signal's number for an end by a signal. All
/// others say that it happened, well or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codes {
    /// It certainly did not happen and no longer can: it may run again.
    pub not_executed: Vec<u8>,
    /// Nobody can tell.
    pub unknown: Vec<u8>,
}

/// A command that knows whether another one happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// For `sh -c`. It exits with 0 if it happened, and what it writes to standard output is given
    /// to whoever asks again.
    pub command: OsString,
    /// The exit codes that say that it did not happen. All others say nothing.
    pub absent: Vec<u8>,
}

/// The scope of commands with this name; they share no key with anything else in a store.
///
/// # Errors
/// The name is too long.
pub fn scope(name: &str) -> Result<Scope, ScopeError> {
    Scope::new(format!("command:{name}"))
}

impl Order {
    /// A digest of all that makes it this command, under a key of the store's own: arguments may
    /// have small secrets in them.
    pub(crate) fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_keyed(&secret.derive("command fingerprint"));
        let mut part = |bytes: Option<&[u8]>| {
            // A length that no bytes have stands for none.
            let length = bytes.map_or(u64::MAX, |it| it.len() as u64);
            hasher.update(&length.to_be_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(Some(&(self.command.len() as u64).to_be_bytes()));
        self.command.iter().for_each(|it| part(Some(it.as_bytes())));
        part(self.folder.as_ref().map(|it| it.as_os_str().as_bytes()));
        let mut names: Vec<_> = self.env.iter().collect();
        names.sort();
        names.dedup();
        for name in names {
            part(Some(name.as_bytes()));
            part(std::env::var_os(name).as_ref().map(|it| it.as_bytes()));
        }
        Fingerprint::new(VERSION, hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(command: &[&str]) -> Order {
        Order {
            key: Key::new("key").unwrap(),
            scope: scope("").unwrap(),
            command: command.iter().map(Into::into).collect(),
            folder: Some("/srv".into()),
            env: Vec::new(),
            policy: Policy::default(),
            wait: Duration::ZERO,
            output_max: 0,
            codes: Codes::default(),
            asking: None,
        }
    }

    #[test]
    fn only_the_same_command_is_the_same() {
        let secret = Secret::from_bytes([7; 32]);
        let of = |order: &Order| order.fingerprint(&secret);
        let same = order(&["pay", "10", "eur"]);
        assert_eq!(of(&same), of(&same.clone()));
        for other in [
            order(&["pay", "10e", "ur"]),
            order(&["pay", "10", "eur", ""]),
            order(&["pay10", "eur"]),
            order(&["pay", "eur", "10"]),
            Order { folder: None, ..same.clone() },
            Order { folder: Some("/srv/".into()), ..same.clone() },
            Order { env: vec!["PATH".into()], ..same.clone() },
            Order { env: vec!["NO_SUCH_NAME".into()], ..same.clone() },
        ] {
            assert_ne!(of(&same), of(&other), "{other:?}");
        }
        let named =
            |env: &[&str]| Order { env: env.iter().map(Into::into).collect(), ..same.clone() };
        assert_eq!(of(&named(&["PATH", "HOME"])), of(&named(&["HOME", "PATH", "HOME"])));
        // Another store's digests tell nothing about this one's.
        assert_ne!(of(&same), same.fingerprint(&Secret::from_bytes([8; 32])));
    }
}
