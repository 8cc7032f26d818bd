//! `onlyonce mail run`

use std::future::Future;
use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use onlyonce::Sweeper;
use onlyonce_mail::provider::Provider;
use onlyonce_mail::{Became, Pace, Route, Sender, SenderError, Shelf, Spool, trusted};
use onlyonce_smtp::{Login, Relay, Security, Waits};
use tokio::signal::unix::{SignalKind, signal};

use super::doubt::rules;
use super::outbox::Feeding;
use super::{Protection, RunArgs, figures, journal, spool};
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
    let rules = rules(&args.doubt, args.retention.into(), provider.as_ref())?;
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
    if args.tls == Protection::None && args.user.is_some() {
        return Err(wrong("--tls none: the password would go in the clear".to_owned()));
    }
    let security = security(args.tls)?;
    let login = match (&args.user, &args.password_file) {
        (Some(user), Some(file)) => {
            Some(Login { user: user.clone(), secret: password(file)?, mechanism: None })
        }
        _ => None,
    };
    let (host, hello) = (host.to_owned(), args.hello.clone());
    Ok(Relay { host, port, security, login, hello, waits: Waits::default() })
}

pub(super) fn security(protection: Protection) -> Result<Security, Failure> {
    let trusted = || trusted().map_err(|error| Failure::new(Exit::Unavailable, error.to_string()));
    Ok(match protection {
        Protection::Starttls => Security::StartTls(trusted()?),
        Protection::Tls => Security::Tls(trusted()?),
        Protection::None => Security::None,
    })
}

pub(super) fn password(file: &Path) -> Result<String, Failure> {
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
