//! What every command that keeps running shares: its store, its log, and how it ends.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onlyonce::{Engine, Settings, Sweeper};
use onlyonce_core::Policy;
use onlyonce_proxy::{Taken, Telemetry};
use onlyonce_store::Warning;
use onlyonce_tokio::TokioRuntime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::{LogFormat, LogLevel, StoreArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::Desk;
use crate::operate::socket::Socket;
use crate::output;
use crate::place::{self, Opened, Place};
use crate::risk;
use crate::vault::{self, Wrapped};

/// How a command begins to run.
pub(super) struct Start<'a> {
    pub(super) store: &'a StoreArgs,
    pub(super) disk_max: Option<u64>,
    pub(super) clock_is_right: bool,
    /// Callers that may wait for another's outcome.
    pub(super) waiters: usize,
    /// The longest memory of all that is served.
    pub(super) sweeping: Policy,
    /// How far clocks may differ where that may be least.
    pub(super) skew_max: Duration,
}

/// What runs beside the server of such a command.
pub(super) struct Running {
    pub(super) opened: Opened,
    pub(super) engine: Engine,
    beside: Vec<JoinHandle<()>>,
    socket: Option<Socket>,
    /// What poisoned the store.
    why: Arc<OnceLock<String>>,
}

impl Running {
    /// Opens the store, and begins what runs beside the server. What is returned with it completes
    /// when the server is to end: on a signal, or when the store is poisoned.
    pub(super) async fn begin(
        start: Start<'_>,
        mut ends: Ends,
        telemetry: &Arc<Telemetry>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Failure> {
        let Start { store: args, disk_max, clock_is_right, waiters, sweeping, skew_max } = start;
        let opened = open(&args.store, disk_max).await?;
        telemetry.takes(opened.warnings().iter().filter_map(taken).collect());
        let waiters_max = waiters;
        let settings = Settings { waiters_max, clock_is_right, skew_max, ..Settings::default() };
        let wrapped = vault::open(&opened, args.key_file.as_deref()).await?;
        let Wrapped { store, vault, watch } = wrapped;
        let runtime = Arc::new(TokioRuntime::new());
        let observer = Arc::clone(telemetry) as Arc<_>;
        let engine = Engine::start(store, runtime, settings, Some(observer)).await?;
        let renewing = vault.clone().map(|it| it.renew_all(engine.clone(), Arc::clone(telemetry)));
        let mut beside: Vec<_> = renewing.into_iter().map(tokio::spawn).collect();
        let watching = watch.map(|watch| watch.run(Some(Arc::clone(telemetry))));
        beside.extend(watching.map(tokio::spawn));
        let desk = Desk { engine: engine.clone(), opened: opened.clone(), vault, policy: sweeping };
        let socket = socket(&opened, desk);
        beside.push(tokio::spawn(Sweeper::new(engine.clone(), sweeping).run()));
        let (poison, mut poisoned) = oneshot::channel();
        opened.on_poison(move |why| {
            let _ = poison.send(why.to_owned());
        });
        let why = Arc::new(OnceLock::new());
        let running = Self { opened, engine, beside, socket, why: Arc::clone(&why) };
        let stop = async move {
            tokio::select! {
                () = ends.wait() => {}
                Ok(said) = &mut poisoned => why.set(said).unwrap_or_default(),
            }
        };
        Ok((running, stop))
    }

    /// Says what a person should know at the start.
    pub(super) async fn greet(&self, warnings: &[String]) -> Result<(), Failure> {
        let told = self.opened.warnings();
        for warning in warnings.iter().chain(told.iter().map(|warning| &warning.text)) {
            output::line(&format!("note: {warning}"))?;
        }
        for risk in risk::untaken(told) {
            output::line(&format!("note: --accept-risk {risk}: there is no such risk here"))?;
        }
        let unknown = self.opened.unknown().await?;
        if 0 < unknown {
            output::line(&format!(
                "{unknown} outcomes are unknown; see `onlyonce keys list --state unknown`"
            ))?;
        }
        Ok(())
    }

    /// Says where records are.
    pub(super) fn name(&self, place: &Place) -> Result<(), Failure> {
        let keys = self.opened.keys().map(|keys| format!(", {keys} keys")).unwrap_or_default();
        Ok(output::line(&format!("records in {place}{keys}"))?)
    }

    /// Ends all of it, and tells how many operations were `left`, and what poisoned the store.
    pub(super) fn end(self, left: usize) -> Result<(), Failure> {
        self.beside.iter().for_each(JoinHandle::abort);
        drop(self.socket);
        self.opened.close();
        ended(left, self.why.get().cloned())
    }
}

/// The risk that was taken, if the warning is of one.
fn taken(warning: &Warning) -> Option<Taken> {
    let why = warning.text.clone();
    warning.risk.map(|risk| Taken { risk, why })
}

/// In bytes.
pub(super) fn disk_max(mib: Option<u64>) -> Result<Option<u64>, Failure> {
    let Some(mib) = mib else { return Ok(None) };
    let bytes = mib.checked_mul(1 << 20);
    bytes.map(Some).ok_or_else(|| {
        let text = format!("--disk-max {mib}: there are no disks of so many MiB");
        Failure::new(Exit::Usage, text)
    })
}

/// If fewer callers can be connected than the configuration says.
pub(super) fn few_files(connections: usize, callers: usize) -> Option<String> {
    (callers < connections).then(|| {
        format!(
            "connections = {connections}, but the files that this process may have open are \
             enough for {callers} only; raise the limit (`ulimit -Hn`, LimitNOFILE=) or lower \
             connections"
        )
    })
}

/// Opens the store; a journal is made first if there is none.
async fn open(place: &Place, disk_max: Option<u64>) -> Result<Opened, Failure> {
    let Place::Journal(dir) = place else {
        if disk_max.is_some() {
            let text = "--disk-max is for a journal; a database has limits of its own";
            return Err(Failure::new(Exit::Usage, text));
        }
        return place.open(onlyonce_journal::Settings::default()).await;
    };
    let settings = onlyonce_journal::Settings { disk_max, ..Default::default() };
    let (journal, created) = place::open_or_create(dir, settings, place::strict()).await?;
    if created {
        output::line(&format!(
            "made a journal in {}. It is strict: keys with a time from before now and five minutes \
             are refused, since a lost store may have known them. Where there never was one, begin \
             with `onlyonce store init --first`.",
            dir.display()
        ))?;
    }
    if 0 < journal.cut() {
        let bytes = journal.cut();
        tracing::warn!(
            bytes,
            "cut a write from the journal's end that nothing proves to have been confirmed"
        );
    }
    Ok(Opened::Journal { journal, dir: dir.clone() })
}

/// For operators, where the store is one that they cannot open beside this process.
fn socket(opened: &Opened, desk: Desk) -> Option<Socket> {
    let (_, dir) = opened.journal()?;
    let socket = Socket::open(dir, desk).inspect_err(|error| {
        tracing::warn!(%error, "no socket for operators: keys and backups only once this ends");
    });
    socket.ok()
}

/// What is told at the end: how many operations were left, and what poisoned the store.
fn ended(left: usize, poisoned: Option<String>) -> Result<(), Failure> {
    if let Some(why) = poisoned {
        let hint = "look at the disk, then start again: what was confirmed is there";
        return Err(Failure::new(Exit::Poisoned, why).with_hint(hint));
    }
    match left {
        0 => Ok(()),
        usize::MAX => Err(Failure::new(Exit::Unknown, "ended at once by a second signal")),
        left => {
            let text =
                format!("{left} operations had not ended in time; their outcomes are unknown");
            Err(Failure::new(Exit::Unknown, text))
        }
    }
}

/// Begins the log.
pub(super) fn log(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// The signals that end a process.
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    pub(super) fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Whoever asks twice is in a hurry.
pub(super) async fn second_signal() {
    let Ok(mut ends) = Ends::new() else { return std::future::pending().await };
    ends.wait().await;
    ends.wait().await;
}
