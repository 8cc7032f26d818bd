//! What is done about messages of which nobody knows: the part of `onlyonce mail run`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use onlyonce_mail::provider::Provider;
use onlyonce_mail::{Archive, Asking, Keyed, Place, Rules, Whom};

use super::Protection;
use super::run::{password, security};
use crate::exit::Exit;
use crate::failure::Failure;

/// The largest exit code by which a probe may say "no": above it a shell says that it could not run
/// something, or that a signal ended it (POSIX, Shell Command Language, section 2.8.2).
const ABSENT_MAX: i64 = 125;

/// How long a server needs until its queue and log show what it has taken, if nothing is said.
const SETTLE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct DoubtArgs {
    /// What is done if nobody knows whether the server has a message
    #[arg(long, value_enum, default_value_t = Unknown::Hold, requires_if("probe", "probe"))]
    on_unknown: Unknown,
    /// Who looks for it: postfix[:DIR] or exim[:FILE] with its configuration, a mailbox that gets
    /// copies, imap://USER@HOST[:PORT]/MAILBOX, or a command for `sh -c` that exits with 0 if the
    /// server has it
    #[arg(long, value_name = "WHO")]
    probe: Option<OsString>,
    /// The log of postfix or exim, if it does not write one by itself
    #[arg(long, value_name = "FILE", requires = "probe")]
    probe_log: Option<PathBuf>,
    /// What protects the connection to that mailbox; none is for a server on this host
    #[arg(long, value_enum, default_value_t = Protection::Tls)]
    probe_tls: Protection,
    /// A file with the password for it; not readable for others
    #[arg(long, value_name = "FILE", requires = "probe")]
    probe_password_file: Option<PathBuf>,
    /// Exit codes of a command that say that the server does not have it; all others say nothing
    #[arg(long, value_name = "CODES", value_delimiter = ',', requires = "probe",
          value_parser = clap::value_parser!(u8).range(1..=ABSENT_MAX))]
    probe_absent: Vec<u8>,
    /// How long what the server has taken may need to be seen by the probe: 1m if nothing is said;
    /// for a mailbox as long as the server may hold a copy back, which has to be said
    #[arg(long, value_name = "DURATION")]
    settle: Option<humantime::Duration>,
    /// How long what was sent may need to be taken: only after this and --settle counts that the
    /// server does not have it
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    late: humantime::Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unknown {
    /// It is not sent; a person settles it with `onlyonce keys resolve`
    Hold,
    /// Whoever --probe names is asked
    Probe,
}

/// What is done about doubts; what a provider offers settles them too.
pub(super) fn rules(
    args: &DoubtArgs,
    retention: Duration,
    provider: Option<&Arc<Provider>>,
) -> Result<Rules, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text.to_owned());
    let looks = provider.and_then(|it| {
        let (settle, late) = it.bounds()?;
        Some(Asking { whom: Whom::Provider(Arc::clone(it)), settle, late })
    });
    let keyed = provider.and_then(|it| Some(Keyed { window: it.window()?, late: it.late() }));
    let DoubtArgs { on_unknown, probe, settle, late, .. } = args;
    let asking = match (on_unknown, probe) {
        (Unknown::Hold, None) => looks,
        (Unknown::Hold, Some(_)) => {
            return Err(wrong("--probe is asked by --on-unknown probe only"));
        }
        (Unknown::Probe, who) => {
            let whom = who.as_ref().map(|who| whom(who, args)).transpose()?;
            let bounds = (settle.map_or(SETTLE, Into::into), (*late).into());
            whom.map(|whom| Asking { whom, settle: bounds.0, late: bounds.1 })
        }
    };
    if provider.is_some() && matches!(&asking, Some(it) if matches!(it.whom, Whom::Archive(_))) {
        return Err(wrong(
            "--probe imap: a provider sends messages in words of its own, and none would be found",
        ));
    }
    let rules = Rules { retention, asking, keyed };
    rules.policy().check().map_err(|error| wrong(&error.to_string()))?;
    Ok(rules)
}

/// Who is asked: a server by its name, or a command.
fn whom(who: &OsStr, args: &DoubtArgs) -> Result<Whom, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text.to_owned());
    let text = who.to_str().unwrap_or_default();
    if text.starts_with("imap:") {
        return archive(text, args);
    }
    if args.probe_password_file.is_some() {
        return Err(wrong("--probe-password-file is for --probe imap://USER@HOST/MAILBOX"));
    }
    let (name, config) = text.split_once(':').map_or((text, None), |(name, it)| (name, Some(it)));
    let server: fn(Place) -> Whom = match name {
        "postfix" => Whom::Postfix,
        "exim" => Whom::Exim,
        _ if args.probe_log.is_some() => {
            return Err(wrong("--probe-log is the log of postfix or exim, and not of a command"));
        }
        _ => {
            let (command, absent) = (who.to_owned(), args.probe_absent.clone());
            return Ok(Whom::Command { command, absent });
        }
    };
    if !args.probe_absent.is_empty() {
        return Err(wrong("--probe-absent is for a command: postfix and exim have no exit codes"));
    }
    if config == Some("") {
        return Err(wrong("--probe: nothing stands behind the colon"));
    }
    Ok(server(Place { config: config.map(Into::into), log: args.probe_log.clone() }))
}

/// A mailbox that gets copies.
fn archive(url: &str, args: &DoubtArgs) -> Result<Whom, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, format!("--probe {url}: {text}"));
    if !args.probe_absent.is_empty() || args.probe_log.is_some() {
        return Err(wrong("a mailbox has no exit codes and no log"));
    }
    if args.settle.is_none() {
        return Err(wrong("it needs --settle: how long the server may hold a copy back at most"));
    }
    let Some(file) = &args.probe_password_file else {
        return Err(wrong("it needs --probe-password-file"));
    };
    let archive = Archive::new(url, password(file)?, security(args.probe_tls)?);
    let archive = archive.map_err(|text| wrong(&text))?;
    if args.probe_tls == Protection::None && !archive.is_here() {
        return Err(wrong("--probe-tls none: the password would go in the clear"));
    }
    Ok(Whom::Archive(Arc::new(archive)))
}
