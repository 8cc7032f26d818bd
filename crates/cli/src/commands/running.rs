//! What every command that keeps running shares: its store, its log, and how it ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{LogFormat, LogLevel};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::Desk;
use crate::operate::socket::Socket;
use crate::output;
use crate::place::{self, Opened, Place};

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

/// What is told at the end: how many operations were left, and what poisoned the store.
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
