//! `onlyonce proxy`

use std::sync::Arc;

use onlyonce::{Engine, Settings, Sweeper};
use onlyonce_http::Keys;
use onlyonce_proxy::{Config, Drained, Ports, Server, Telemetry};
use onlyonce_tokio::TokioRuntime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::{LogFormat, LogLevel, ProxyArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::Desk;
use crate::operate::socket::Socket;
use crate::output;
use crate::place::{self, Opened, Place};
use crate::vault::{self, Wrapped};

pub(crate) async fn run(args: ProxyArgs) -> Result<(), Failure> {
    log(args.log, args.log_level);
    // Asked for first, so that a signal during the start ends cleanly too.
    let mut ends = Ends::new()?;
    let config = config(&args)?;
    let disk_max = disk_max(args.disk_max)?;
    let mut warnings = config.warnings();
    warnings.extend(few_files(config.limits.connections, onlyonce_proxy::raise_open_files()));
    let (limits, record, sweeping) = (config.limits, config.policy.record, config.sweeping());
    let upstream = config.upstream.authority.clone();
    // Before the store, so that a start that fails here leaves no new one behind.
    let ports = Ports::bind(config).await;
    let ports = ports.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let opened = open(&args.store.store, disk_max).await?;
    let telemetry = Arc::new(Telemetry::default());
    let clock_is_right = args.clock_is_right;
    let settings = Settings { waiters_max: limits.waiters, clock_is_right, ..Settings::default() };
    let Wrapped { store, vault } = vault::open(&opened, &args.store)?;
    let engine = Engine::start(
        store,
        Arc::new(TokioRuntime::new()),
        settings,
        Some(Arc::clone(&telemetry) as Arc<_>),
    )
    .await?;
    let renewing = vault.clone().map(|it| tokio::spawn(it.renew_all(engine.clone())));
    let desk = Desk { engine: engine.clone(), opened: opened.clone(), vault, policy: record };
    let socket = socket(&opened, desk);
    let sweeping = tokio::spawn(Sweeper::new(engine.clone(), sweeping).run());
    let keys = Arc::new(Keys::new(opened.secret().clone()));
    let server = ports.serve_with(engine, keys, telemetry);
    let (poison, mut poisoned) = oneshot::channel();
    opened.on_poison(move |why| {
        let _ = poison.send(why.to_owned());
    });
    hello(&server, upstream.as_str(), (&opened, &args.store.store), &warnings).await?;
    let mut why = None;
    let stop = async {
        tokio::select! {
            () = ends.wait() => {}
            Ok(said) = &mut poisoned => why = Some(said),
        }
    };
    let drained = tokio::select! {
        drained = server.serve(stop) => drained,
        () = second_signal() => Drained { left: usize::MAX },
    };
    sweeping.abort();
    renewing.inspect(JoinHandle::abort);
    drop(socket);
    opened.close();
    ended(drained.left, why)
}

fn config(args: &ProxyArgs) -> Result<Config, Failure> {
    let mut config = match (&args.config, &args.upstream) {
        (Some(file), upstream) => Config::read(file, upstream.as_deref())?,
        (None, Some(upstream)) => Config::for_upstream(upstream)?,
        (None, None) => return Err(Failure::new(Exit::Usage, "there is no --upstream")),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    Ok(config)
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

pub(super) async fn open(place: &Place, disk_max: Option<u64>) -> Result<Opened, Failure> {
    let Place::Journal(dir) = place else {
        if disk_max.is_some() {
            let text = "--disk-max is for a journal; a database has limits of its own";
            return Err(Failure::new(Exit::Usage, text));
        }
        return place.open(onlyonce_journal::Settings::default()).await;
    };
    let settings = onlyonce_journal::Settings { disk_max, ..Default::default() };
    let (journal, created) = place::open_or_create(dir, settings, place::strict())?;
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
pub(super) fn socket(opened: &Opened, desk: Desk) -> Option<Socket> {
    let (_, dir) = opened.journal()?;
    let socket = Socket::open(dir, desk).inspect_err(|error| {
        tracing::warn!(%error, "no socket for operators: keys and backups only once this ends");
    });
    socket.ok()
}

async fn hello(
    server: &Server,
    upstream: &str,
    (opened, place): (&Opened, &Place),
    warnings: &[String],
) -> Result<(), Failure> {
    for warning in warnings {
        output::line(&format!("note: {warning}"))?;
    }
    let unknown = opened.unknown().await?;
    if 0 < unknown {
        output::line(&format!(
            "{unknown} outcomes are unknown; see `onlyonce keys list --state unknown`"
        ))?;
    }
    if let Some(admin) = server.admin_addr() {
        output::line(&format!("operators at http://{admin}"))?;
    }
    match opened.keys() {
        Some(keys) => output::line(&format!("records in {place}, {keys} keys"))?,
        None => output::line(&format!("records in {place}"))?,
    }
    output::line(&format!("listening on http://{} for {upstream}", server.local_addr()?))?;
    Ok(())
}

pub(super) fn ended(left: usize, poisoned: Option<String>) -> Result<(), Failure> {
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
