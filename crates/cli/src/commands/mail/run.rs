//! `onlyonce mail run`

use std::future::Future;
use std::io::IsTerminal as _;
use std::sync::Arc;

use onlyonce::Sweeper;
use onlyonce_mail::{Became, Route, Sender, SenderError, Shelf, Spool};
use tokio::signal::unix::{SignalKind, signal};

use super::config::{Plan, Way};
use super::outbox::Feeding;
use super::{RunArgs, bound, figures};
use crate::alarms::Alarms;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::socket::Socket;
use crate::operate::{Desk, Operator};
use crate::output::{self, printable};
use crate::progress::Bar;

pub(super) async fn run(args: RunArgs) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let Plan { way, outbox, pace, probe, probe_place, usual, classes, destinations } =
        Plan::of(&args)?;
    let way_name = way.name();
    let route = Arc::new(route(way));
    if let Some(asking) = &probe {
        // Before anything is sent: else it would be found out when it is needed.
        let asked = asking.check().await;
        let failed = |error| Failure::new(Exit::Unavailable, format!("{probe_place}: {error}"));
        asked.map_err(failed)?;
    }
    let (spool, (dir, secret)) = bound::to_store(&args)?;
    let alarms = Arc::new(Alarms::default());
    let operator = Operator::watched(&args.store, Some(alarms.clone())).await?;
    let Operator::Here(desk) = &operator else {
        let text = format!("another process has the journal in {}", dir.display());
        return Err(Failure::new(Exit::StoreUnavailable, text));
    };
    let holds = usual.holds() && classes.iter().all(|class| class.rules.holds());
    bound::to_way(&spool, &desk.engine, &secret, &way_name, holds).await?;
    // Without it operators have to wait until this ends, and no message does.
    let policy = usual.policy();
    let desk = Desk { policy, ..desk.clone() };
    let socket = Socket::open(dir, desk.clone()).ok();
    let (feeding, hearing) = match outbox {
        Some(at) => Some(Feeding::open(at, &desk.engine, &secret, &spool).await?).unzip(),
        None => (None, None),
    };
    let sender = Sender::new(desk.engine.clone(), secret, spool.clone(), Arc::clone(&route), pace);
    let sender = sender.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let sender = sender.by_kind(usual, classes, destinations);
    let sweeper = Sweeper::new(desk.engine.clone(), policy);
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
    let mut counting = Box::pin(figures::keep(&args.spool.spool, route.meter(), &alarms));
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
    let _ = figures::write(&args.spool.spool, route.meter(), &alarms);
    drop(socket);
    operator.close();
    match ended {
        None => Err(Failure::new(Exit::Unknown, "ended at once by a second signal")),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => failed.map_or(Ok(()), Err),
    }
}

fn route(way: Way) -> Route {
    match way {
        Way::Provider(provider) => Route::to_provider(provider),
        Way::Relay(relay) => Route::new(relay),
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
    let mut filled = Ok(());
    if once {
        // It may not last until a second pass.
        sweeper.pass().await.map_err(|error| ended(error.into()))?;
        if let Some(feeding) = &mut feeding {
            // What is in the spool is sent all the same.
            filled = feeding.fill().await;
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
        Some(feeding) => sent.and(feeding.end().await).and(filled),
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
