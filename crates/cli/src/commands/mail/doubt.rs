//! How messages are tried, and what is done about those of which nobody knows: the part of
//! `onlyonce mail run`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use onlyonce_mail::provider::Provider;
use onlyonce_mail::{Archive, Asking, Keyed, Place, Rules, Whom};
use serde::Deserialize;

use super::way::{Protection, password, security};
use crate::failure::Failure;

/// The largest exit code by which a probe may say "no": above it a shell says that it could not run
/// something, or that a signal ended it (POSIX, Shell Command Language, section 2.8.2).
pub(super) const ABSENT_MAX: u8 = 125;

/// How long a server needs until its queue and log show what it has taken, if nothing is said.
const SETTLE: Duration = Duration::from_secs(60);
/// How long what was sent may need to be taken, if nothing is said.
const LATE: Duration = Duration::from_secs(15 * 60);

/// How messages are tried.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PolicyArgs {
    /// What is done if nobody knows whether the server has a message [default: hold; of a provider
    /// what it offers]
    #[arg(long, value_enum)]
    pub(super) on_unknown: Option<Unknown>,
    /// For how long a second copy is dropped where it arrives, from the first attempt: needed for
    /// retry
    #[arg(long, value_name = "DURATION")]
    pub(super) window: Option<humantime::Duration>,
    /// How long the server's answer is kept; that a message has ended is known for ever [default:
    /// 30d]
    #[arg(long, value_name = "DURATION")]
    pub(super) retention: Option<humantime::Duration>,
    /// How often a message is tried at most: then it is refused [default: no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) tries: Option<u32>,
    /// For how long it is tried from when it was taken in, or written into an outbox: then it is
    /// refused [default: no end]
    #[arg(long, value_name = "DURATION")]
    pub(super) try_for: Option<humantime::Duration>,
}

/// Who is asked about doubts.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ProbeArgs {
    /// Who looks for it: postfix[:DIR] or exim[:FILE] with its configuration, a mailbox that gets
    /// copies, imap://USER@HOST[:PORT]/MAILBOX, or a command for `sh -c` that exits with 0 if the
    /// server has it
    #[arg(id = "probe", long = "probe", value_name = "WHO")]
    pub(super) who: Option<OsString>,
    /// The log of postfix or exim, if it does not write one by itself
    #[arg(id = "probe_log", long = "probe-log", value_name = "FILE", requires = "probe")]
    pub(super) log: Option<PathBuf>,
    /// What protects the connection to that mailbox; none is for a server on this host [default:
    /// tls]
    #[arg(id = "probe_tls", long = "probe-tls", value_name = "PROBE_TLS", value_enum)]
    pub(super) tls: Option<Protection>,
    /// A file with the password for it; not readable for others
    #[arg(
        id = "probe_password_file",
        long = "probe-password-file",
        value_name = "FILE",
        requires = "probe"
    )]
    pub(super) password_file: Option<PathBuf>,
    /// Exit codes of a command that say that the server does not have it; all others say nothing
    #[arg(id = "probe_absent", long = "probe-absent", value_name = "CODES", value_delimiter = ',',
          requires = "probe",
          value_parser = clap::value_parser!(u8).range(1..=i64::from(ABSENT_MAX)))]
    pub(super) absent: Vec<u8>,
    /// How long what the server has taken may need to be seen by the probe: 1m if nothing is said;
    /// for a mailbox as long as the server may hold a copy back, which has to be said
    #[arg(long, value_name = "DURATION")]
    pub(super) settle: Option<humantime::Duration>,
    /// How long what was sent may need to be taken: only after this and --settle counts that the
    /// server does not have it [default: 15m]
    #[arg(long, value_name = "DURATION")]
    pub(super) late: Option<humantime::Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unknown {
    /// It is not sent; a person settles it with `onlyonce keys resolve`
    Hold,
    /// Whoever --probe names is asked
    Probe,
    /// It is sent again within --window, since a second copy is dropped where it arrives
    Retry,
}

/// What can be done about doubts.
#[derive(Default)]
pub(super) struct Offers {
    /// Who was named to be asked.
    pub(super) probe: Option<Asking>,
    /// What the provider offers.
    pub(super) provider: Option<Arc<Provider>>,
}

impl PolicyArgs {
    /// What is said here, before what is said there.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self {
            on_unknown: self.on_unknown.or(other.on_unknown),
            window: self.window.or(other.window),
            retention: self.retention.or(other.retention),
            tries: self.tries.or(other.tries),
            try_for: self.try_for.or(other.try_for),
        }
    }

    /// Whether this setting is said here.
    pub(super) fn says(&self, name: &str) -> bool {
        match name {
            "on-unknown" => self.on_unknown.is_some(),
            "window" => self.window.is_some(),
            _ => self.retention.is_some(),
        }
    }

    /// By what is offered; `wrong` says where a mistake is, in the setting of this name.
    pub(super) fn rules(
        &self,
        offers: &Offers,
        wrong: &dyn Fn(&str, &str) -> Failure,
    ) -> Result<Rules, Failure> {
        let provider = offers.provider.as_ref();
        if self.on_unknown == Some(Unknown::Retry) && provider.is_some() {
            let text = "a provider sends a message in words of its own, so no second copy is \
                        dropped by its Message-ID: its own file says for how long it knows a key";
            return Err(wrong("on-unknown", text));
        }
        let keyed = provider.and_then(|it| Some(Keyed { window: it.window()?, late: it.late() }));
        let (asking, keyed) = match self.on_unknown {
            None => (provider.and_then(looks), keyed),
            Some(Unknown::Hold) => (None, None),
            Some(Unknown::Probe) => {
                let named = offers.probe.clone().ok_or_else(|| {
                    wrong(
                        "on-unknown",
                        "somebody is to be asked about doubts: say who by --probe <WHO>, or by \
                         [probe] for the server of the same file",
                    )
                })?;
                (Some(named), keyed)
            }
            Some(Unknown::Retry) => {
                let window = self.window.ok_or_else(|| {
                    wrong(
                        "on-unknown",
                        "it is sent again, and only while a second copy is dropped where it \
                         arrives: say for how long that is by --window, or window = \"24h\"",
                    )
                })?;
                (None, Some(Keyed { window: window.into(), late: LATE }))
            }
        };
        let try_for = self.try_for.map(Into::into);
        let mut rules = Rules { asking, keyed, tries: self.tries, try_for, ..Rules::default() };
        rules.retention = self.retention.map_or(rules.retention, Into::into);
        let named =
            if self.retention.is_none() && self.window.is_some() { "window" } else { "retention" };
        rules.policy().check().map_err(|error| wrong(named, &error.to_string()))?;
        Ok(rules)
    }
}

/// A look-up of the provider's.
fn looks(provider: &Arc<Provider>) -> Option<Asking> {
    let (settle, late) = provider.bounds()?;
    Some(Asking { whom: Whom::Provider(Arc::clone(provider)), settle, late })
}

impl ProbeArgs {
    /// What is said here, before what is said there. What was said of another one is not meant for
    /// this one.
    pub(super) fn over(self, other: Self) -> Self {
        if self.who.is_some() {
            return self;
        }
        Self {
            tls: self.tls.or(other.tls),
            settle: self.settle.or(other.settle),
            late: self.late.or(other.late),
            ..other
        }
    }

    /// Whether anything is said of it.
    pub(super) const fn is_said(&self) -> bool {
        let Self { who, log, tls, password_file, absent, settle, late } = self;
        who.is_some()
            || log.is_some()
            || tls.is_some()
            || password_file.is_some()
            || !absent.is_empty()
            || settle.is_some()
            || late.is_some()
    }

    /// Who is asked, if anybody is named; `wrong` says where a mistake is.
    pub(super) fn asking(
        &self,
        wrong: &dyn Fn(&str) -> Failure,
    ) -> Result<Option<Asking>, Failure> {
        let Some(who) = &self.who else { return Ok(None) };
        let whom = self.whom(who, wrong)?;
        let settle = self.settle.map_or(SETTLE, Into::into);
        Ok(Some(Asking { whom, settle, late: self.late.map_or(LATE, Into::into) }))
    }

    /// Who is asked: a server by its name, or a command.
    fn whom(&self, who: &OsStr, wrong: &dyn Fn(&str) -> Failure) -> Result<Whom, Failure> {
        let text = who.to_str().unwrap_or_default();
        if text.starts_with("imap:") {
            return self.archive(text, wrong);
        }
        if self.password_file.is_some() {
            return Err(wrong("a password file is for a mailbox, imap://USER@HOST/MAILBOX"));
        }
        let (name, config) =
            text.split_once(':').map_or((text, None), |(name, it)| (name, Some(it)));
        let server: fn(Place) -> Whom = match name {
            "postfix" => Whom::Postfix,
            "exim" => Whom::Exim,
            _ if self.log.is_some() => {
                return Err(wrong("a log is that of postfix or exim, and not of a command"));
            }
            _ => {
                let (command, absent) = (who.to_owned(), self.absent.clone());
                return Ok(Whom::Command { command, absent });
            }
        };
        if !self.absent.is_empty() {
            return Err(wrong("exit codes are of a command: postfix and exim have no exit codes"));
        }
        if config == Some("") {
            return Err(wrong("nothing stands behind the colon"));
        }
        Ok(server(Place { config: config.map(Into::into), log: self.log.clone() }))
    }

    /// A mailbox that gets copies.
    fn archive(&self, url: &str, wrong: &dyn Fn(&str) -> Failure) -> Result<Whom, Failure> {
        let wrong = |text: &str| wrong(&format!("{url}: {text}"));
        if !self.absent.is_empty() || self.log.is_some() {
            return Err(wrong("a mailbox has no exit codes and no log"));
        }
        if self.settle.is_none() {
            return Err(wrong(
                "it needs --settle (`settle`): how long the server may hold a copy back at most",
            ));
        }
        let Some(file) = &self.password_file else {
            return Err(wrong("it needs --probe-password-file (`password_file`)"));
        };
        let tls = self.tls.unwrap_or(Protection::Tls);
        let archive = Archive::new(url, password(file, &wrong)?, security(tls)?);
        let archive = archive.map_err(|text| wrong(&text))?;
        if tls == Protection::None && !archive.is_here() {
            return Err(wrong("tls is none: the password would go in the clear"));
        }
        Ok(Whom::Archive(Arc::new(archive)))
    }
}
