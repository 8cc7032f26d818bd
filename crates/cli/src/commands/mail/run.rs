//! `onlyonce mail run`

use std::ffi::OsStr;
use std::future::Future;
use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use onlyonce::Sweeper;
use onlyonce_mail::provider::Provider;
use onlyonce_mail::{
    Asking, Became, Keyed, Pace, Place, Route, Rules, Sender, SenderError, Shelf, Spool, Whom,
    trusted,
};
use onlyonce_smtp::{Login, Relay, Security, Waits};
use tokio::signal::unix::{SignalKind, signal};

use super::outbox::Feeding;
use super::{DoubtArgs, Protection, RunArgs, Unknown, figures, journal, spool};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::socket::Socket;
use crate::operate::{Desk, Operator};
use crate::output::{self, printable};
use crate::progress::Bar;

pub(super) async fn run(args: RunArgs) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let provider = args.provider.as_deref().map(provider).transpose()?;
    let rules = rules(&args, provider.as_ref())?;
    let route = Arc::new(match provider {
        Some(provider) => Route::to_provider(provider),
        None => Route::new(relay(&args)?),
    });
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
    let [apart, apart_there] = [args.rate, args.rate_per_domain].map(Option::unwrap_or_default);
    let workers = args.workers.into();
    let pace = Pace { workers, per_domain, apart, apart_there, ..Pace::default() };
    let (feeding, hearing) = match args.outbox.clone() {
        Some(at) => Some(Feeding::open(at, &secret, &spool).await?).unzip(),
        None => (None, None),
    };
    let sender = Sender::new(desk.engine.clone(), secret, spool.clone(), Arc::clone(&route), pace);
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
    // Where the lines go to the same terminal, they say as much.
    let bar = (!std::io::stdout().is_terminal()).then(|| Bar::counting("attempts"));
    let tell = |name: &str, became: &Became| {
        failed = told(&spool, name, became).err();
        bar.iter().for_each(|bar| bar.more(1));
        // It is told for as long as anybody listens.
        let _ = hearing.as_ref().map(|it| it.send((name.to_owned(), became.clone())));
    };
    let mut sending = Box::pin(working(&sender, sweeper, feeding, args.once, stop, tell));
    let mut counting = Box::pin(figures::keep(&args.spool.spool, route.meter()));
    let ended = loop {
        tokio::select! {
            ended = &mut sending => break Some(ended),
            // It goes on for as long as it is asked to.
            () = &mut counting => continue,
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
    // Nothing depends on it.
    let _ = figures::write(&args.spool.spool, route.meter());
    drop(socket);
    operator.close();
    match ended {
        None => Err(Failure::new(Exit::Unknown, "ended at once by a second signal")),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => failed.map_or(Ok(()), Err),
    }
}

/// Sends, and writes down meanwhile what time has done to what is recorded, and what became of the
/// rows of an outbox.
async fn working(
    sender: &Sender,
    mut sweeper: Sweeper,
    mut feeding: Option<Feeding>,
    once: bool,
    stop: impl Future<Output = ()>,
    tell: impl FnMut(&str, &Became),
) -> Result<(), Failure> {
    if once {
        // It may not last until a second pass.
        sweeper.pass().await.map_err(|error| ended(error.into()))?;
        if let Some(feeding) = &mut feeding {
            feeding.fill().await?;
        }
    }
    let meanwhile = async {
        match &mut feeding {
            Some(feeding) if !once => feeding.go_on().await,
            Some(_) | None => std::future::pending().await,
        }
    };
    let sweeping = async { if once { std::future::pending().await } else { sweeper.run().await } };
    let sent = tokio::select! {
        sent = sender.run(once, stop, tell) => sent.map_err(ended),
        // They go on for as long as they are asked to.
        () = sweeping => Ok(()),
        () = meanwhile => Ok(()),
    };
    match &mut feeding {
        Some(feeding) => sent.and(feeding.end().await),
        None => sent,
    }
}

fn ended(error: SenderError) -> Failure {
    match error {
        SenderError::Spool(error) => Failure::new(Exit::Unavailable, error.to_string()),
        SenderError::Store(error) => error.into(),
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

/// What a file says of a provider; what it needs of the environment is there.
fn provider(file: &Path) -> Result<Arc<Provider>, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Failure::new(Exit::Usage, format!("{name}: {error}")))?;
    let read = Provider::read(&name, &text);
    let provider = read.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    if let Some(missing) = provider.variables().iter().find(|it| std::env::var_os(it).is_none()) {
        let text = format!("{name}: the variable {missing} is not set, and its requests need it");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(Arc::new(provider))
}

fn rules(args: &RunArgs, provider: Option<&Arc<Provider>>) -> Result<Rules, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text.to_owned());
    let looks = provider.and_then(|it| {
        let (settle, late) = it.bounds()?;
        Some(Asking { whom: Whom::Provider(Arc::clone(it)), settle, late })
    });
    let keyed = provider.and_then(|it| Some(Keyed { window: it.window()?, late: it.late() }));
    let DoubtArgs { on_unknown, probe, settle, late, .. } = &args.doubt;
    let asking = match (on_unknown, probe) {
        (Unknown::Hold, None) => looks,
        (Unknown::Hold, Some(_)) => {
            return Err(wrong("--probe is asked by --on-unknown probe only"));
        }
        (Unknown::Probe, who) => {
            let whom = who.as_ref().map(|who| whom(who, &args.doubt)).transpose()?;
            let bounds = ((*settle).into(), (*late).into());
            whom.map(|whom| Asking { whom, settle: bounds.0, late: bounds.1 })
        }
    };
    let rules = Rules { retention: args.retention.into(), asking, keyed };
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
    let server = args.server.as_deref().unwrap_or_default();
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| {
                wrong(format!("--server {server:?}: the port is no number up to 65535"))
            })?;
            (host, port)
        }
        None => (server, usual),
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
