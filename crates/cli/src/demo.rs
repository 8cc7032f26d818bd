//! `onlyonce demo`: small ticket shops, a connection that loses answers on purpose, the real
//! proxy with a real journal in front, and a page to see the difference.

mod connection;
mod front;
mod guard;
mod guide;
mod serve;
mod shop;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

use front::{Front, Lane};
use guard::Guard;
use shop::{Mall, Shop};

/// Which answers the bad connection loses, unless told otherwise.
const SEED: u64 = 130;

/// Opens a ticket shop with a bad connection, to see what retries do with and without onlyonce.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The port of the page on 127.0.0.1; 0 is any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep the journal in this folder; else it is a temporary one, removed at the end
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Which answers get lost: the same number loses the same ones
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// Runs until it is interrupted (Ctrl-C, or a termination signal).
///
/// # Errors
/// A port is taken, or the journal cannot be made or opened.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unavailable("the demo", &error))?;
    runtime.block_on(open(args))
}

async fn open(args: &DemoArgs) -> Result<(), Failure> {
    // Asked for first, so that a signal during the start ends cleanly too.
    let mut ends = Ends::new().map_err(|error| unavailable("the signals", &error))?;
    let place = Place::new(args.keep.as_deref())?;
    let (page, page_at) = listen(args.port).await?;

    // Two shops that are just alike, so that their charges can be compared.
    let mut servers = JoinSet::new();
    let [open_shop, guarded_shop, curl] = std::array::from_fn(|_| Arc::new(Shop::default()));
    let mall = [(front::PURCHASE, Arc::clone(&open_shop))];
    let open_mall_at = serve_shops(&mut servers, Arc::new(mall)).await?;
    let mall = [(front::PURCHASE, Arc::clone(&guarded_shop)), ("/purchase", Arc::clone(&curl))];
    let guarded_mall_at = serve_shops(&mut servers, Arc::new(mall)).await?;
    let guard = Guard::start(place.journal(), guarded_mall_at).await?;

    let without = Lane::new(open_shop, open_mall_at, args.seed);
    let with = Lane::new(guarded_shop, guard.address(), args.seed);
    let front = tokio::spawn(Front { without, with, curl }.run(page));
    let text = guide::text(page_at, guard.address(), place.journal(), args.keep.is_some());
    output::line(&text).map_err(|error| unavailable("the terminal", &error))?;

    ends.wait().await;
    front.abort();
    // The shops are open until what runs is answered and recorded.
    let ended = guard.end().await;
    servers.shutdown().await;
    ended
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let listening = serve::listen(port).await;
    listening.map_err(|error| unavailable(&format!("port {port} of 127.0.0.1"), &error))
}

async fn serve_shops(servers: &mut JoinSet<()>, mall: Mall) -> Result<SocketAddr, Failure> {
    let (listener, address) = listen(0).await?;
    servers.spawn(shop::run(mall, listener));
    Ok(address)
}

fn unavailable(who: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("{who}: {error}"))
}

/// Where the journal is.
enum Place {
    /// A folder that is removed when this is dropped.
    Temporary { journal: PathBuf, _folder: tempfile::TempDir },
    /// A folder that stays.
    Kept(PathBuf),
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        if let Some(keep) = keep {
            return Ok(Self::Kept(keep.to_owned()));
        }
        let made = tempfile::Builder::new().prefix("onlyonce-demo-").tempdir();
        let folder = made.map_err(|error| unavailable("a temporary folder", &error))?;
        let journal = folder.path().join("journal");
        Ok(Self::Temporary { journal, _folder: folder })
    }

    fn journal(&self) -> &Path {
        match self {
            Self::Temporary { journal, .. } | Self::Kept(journal) => journal,
        }
    }
}

/// The signals that end the demo.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
