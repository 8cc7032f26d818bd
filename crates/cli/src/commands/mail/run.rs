//! `onlyonce mail run`

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use onlyonce::Sweeper;
use onlyonce_mail::{
    Asking, Became, Pace, Place, Route, Rules, Sender, SenderError, Shelf, Spool, Whom, trusted,
};
use onlyonce_smtp::{Login, Relay, Security, Waits};
use tokio::signal::unix::{SignalKind, signal};

use super::{DoubtArgs, Protection, RunArgs, Unknown, journal, spool};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::socket::Socket;
use crate::operate::{Desk, Operator};
use crate::output::{self, printable};

pub(super) async fn run(args: RunArgs) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (relay, rules) = (relay(&args)?, rules(&args)?);
    if let Some(asking) = &rules.asking {
        // Before anything is sent: else it would be found out when it is needed.
        let asked = asking.check().await;
        asked.map_err(|error| Failure::new(Exit::Unavailable, format!("--probe: {error}")))?;
    }
    let spool = spool(&args.spool)?;
    let (dir, secret) = journal(&args.store)?;
    let operator = Operator::at(&args.store).await?;
    let Operator::Here(desk) = &operator else {
        let text = format!("another process has the journal in {}", dir.display());
        return Err(Failure::new(Exit::StoreUnavailable, text));
    };
    // Without it operators have to wait until this ends, and no message does.
    let desk = Desk { policy: rules.policy(), ..desk.clone() };
    let socket = Socket::open(dir, desk.clone()).ok();
    let per_domain = args.per_domain.map_or(usize::MAX, usize::from);
    let apart = args.rate.unwrap_or_default();
    let pace = Pace { workers: args.workers.into(), per_domain, apart, ..Pace::default() };
    let route = Arc::new(Route::new(relay));
    let sender = Sender::new(desk.engine.clone(), secret, spool.clone(), route, pace);
    let sender = sender.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let sender = sender.by(rules.clone());
    let sweeper = Sweeper::new(desk.engine.clone(), rules.policy());
    let mut asked = 0;
    let (first, stop) = tokio::sync::oneshot::channel();
    let (mut first, mut failed) = (Some(first), None);
    let stop = async {
        // It also ends when nobody is left who could stop it.
        let _ = stop.await;
    };
    let tell = |name: &str, became: &Became| failed = told(&spool, name, became).err();
    let mut sending = Box::pin(working(&sender, sweeper, args.once, stop, tell));
    let ended = loop {
        tokio::select! {
            ended = &mut sending => break Some(ended),
            _ = interrupt.recv() => asked += 1,
            _ = terminate.recv() => asked += 1,
        }
        // Nobody is there to hear it if it has ended meanwhile.
        let _ = first.take().map(|it| it.send(()));
        if 1 < asked {
            break None;
        }
    };
    drop(sending);
    drop(socket);
    operator.close();
    match ended {
        None => Err(Failure::new(Exit::Unknown, "ended at once by a second signal")),
        Some(Err(SenderError::Spool(error))) => {
            Err(Failure::new(Exit::Unavailable, error.to_string()))
        }
        Some(Err(SenderError::Store(error))) => Err(error.into()),
        Some(Ok(())) => failed.map_or(Ok(()), Err),
    }
}

/// Sends, and writes down meanwhile what time has done to what is recorded.
async fn working(
    sender: &Sender,
    mut sweeper: Sweeper,
    once: bool,
    stop: impl Future<Output = ()>,
    tell: impl FnMut(&str, &Became),
) -> Result<(), SenderError> {
    if once {
        // It may not last until a second pass.
        sweeper.pass().await?;
        return sender.run(once, stop, tell).await;
    }
    tokio::select! {
        ended = sender.run(once, stop, tell) => ended,
        // It goes on for as long as it is asked to.
        () = sweeper.run() => Ok(()),
    }
}

/// A line for each attempt.
fn told(spool: &Spool, name: &str, became: &Became) -> Result<(), Failure> {
    let (shelf, what, text) = match became {
        Became::Sent(text) => (Shelf::Sent, "sent", text),
        Became::Refused(text) => (Shelf::Refused, "refused", text),
        Became::Unknown(text) => (Shelf::Queue, "unknown", text),
        Became::Waiting(text) => (Shelf::Queue, "waiting", text),
    };
    let key = spool.read(shelf, name).map(|it| it.key().as_str().to_owned());
    let key = key.unwrap_or_else(|_| name.to_owned());
    Ok(output::line(&format!("{what} {key}: {}", printable(text)))?)
}

fn rules(args: &RunArgs) -> Result<Rules, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text.to_owned());
    let DoubtArgs { on_unknown, probe, settle, late, .. } = &args.doubt;
    let asking = match (on_unknown, probe) {
        (Unknown::Hold, None) => None,
        (Unknown::Hold, Some(_)) => {
            return Err(wrong("--probe is asked by --on-unknown probe only"));
        }
        (Unknown::Probe, who) => {
            let whom = who.as_ref().map(|who| whom(who, &args.doubt)).transpose()?;
            let bounds = ((*settle).into(), (*late).into());
            whom.map(|whom| Asking { whom, settle: bounds.0, late: bounds.1 })
        }
    };
    let rules = Rules { retention: args.retention.into(), asking };
    rules.policy().check().map_err(|error| wrong(&error.to_string()))?;
    Ok(rules)
}

/// Who is asked: a server by its name, or a command.
fn whom(who: &OsStr, args: &DoubtArgs) -> Result<Whom, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text.to_owned());
    let text = who.to_str().unwrap_or_default();
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

fn relay(args: &RunArgs) -> Result<Relay, Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, text);
    let usual = match args.tls {
        Protection::Starttls => 587,
        Protection::Tls => 465,
        Protection::None => 25,
    };
    let (host, port) = match args.server.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| {
                wrong(format!("--server {:?}: the port is no number up to 65535", args.server))
            })?;
            (host, port)
        }
        None => (args.server.as_str(), usual),
    };
    let trusted = || trusted().map_err(|error| Failure::new(Exit::Unavailable, error.to_string()));
    let security = match args.tls {
        Protection::Starttls => Security::StartTls(trusted()?),
        Protection::Tls => Security::Tls(trusted()?),
        Protection::None if args.user.is_some() => {
            return Err(wrong("--tls none: the password would go in the clear".to_owned()));
        }
        Protection::None => Security::None,
    };
    let login = match (&args.user, &args.password_file) {
        (Some(user), Some(file)) => {
            Some(Login { user: user.clone(), secret: password(file)?, mechanism: None })
        }
        _ => None,
    };
    let (host, hello) = (host.to_owned(), args.hello.clone());
    Ok(Relay { host, port, security, login, hello, waits: Waits::default() })
}

fn password(file: &Path) -> Result<String, Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, format!("{}: {text}", file.display()));
    let read = || Ok((std::fs::metadata(file)?, std::fs::read_to_string(file)?));
    let (about, text): (_, String) =
        read().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(wrong("others can read it; `chmod 600` it".to_owned()));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(text.to_owned()) }
}
