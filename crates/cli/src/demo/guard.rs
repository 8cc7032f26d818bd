//! The real proxy with a real journal, in front of a shop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use onlyonce::{Engine, Observer, Settings};
use onlyonce_http::Keys;
use onlyonce_journal::{Journal, Start};
use onlyonce_proxy::{Config, Drained, Server, Telemetry};
use onlyonce_tokio::TokioRuntime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::serve::any_port;
use crate::exit::Exit;
use crate::failure::Failure;

/// A running proxy and its journal.
pub(super) struct Guard {
    address: SocketAddr,
    journal: Journal,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

impl Guard {
    /// Opens the journal in `folder`, or makes it there, and starts a proxy to `shop`.
    pub(super) async fn start(folder: &Path, shop: SocketAddr) -> Result<Self, Failure> {
        let settings = onlyonce_journal::Settings::default();
        let opened = Journal::open_or_create(folder, settings, Start::First);
        let (journal, _) =
            opened.map_err(|error| Failure::new(Exit::StoreUnavailable, error.to_string()))?;
        let keys = Arc::new(Keys::new(journal.secret().clone()));
        let (store, runtime) = (Arc::new(journal.clone()), Arc::new(TokioRuntime::new()));
        let telemetry = Arc::new(Telemetry::default());
        let observer = Some(Arc::clone(&telemetry) as Arc<dyn Observer>);
        let engine = Engine::start(store, runtime, Settings::default(), observer).await?;

        let mut config = Config::for_upstream(&format!("http://{shop}")).map_err(unavailable)?;
        config.listen = any_port();
        let server = Server::bind(config, engine, keys, telemetry).await.map_err(unavailable)?;
        let address = server.local_addr().map_err(unavailable)?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async {
            // It also ends when nobody is left who could stop it.
            let _ = stopped.await;
        }));
        Ok(Self { address, journal, stop, serving })
    }

    /// Where the proxy listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets running operations finish and be recorded, then lets the journal go.
    pub(super) async fn end(self) -> Result<(), Failure> {
        // A proxy that has ended by itself has nothing to stop.
        let _ = self.stop.send(());
        let drained = self.serving.await.map_err(unavailable)?;
        self.journal.close();
        match drained.left {
            0 => Ok(()),
            left => {
                Err(Failure::new(Exit::Unknown, format!("{left} purchases had no answer in time")))
            }
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Unavailable, format!("the proxy: {error}"))
}
