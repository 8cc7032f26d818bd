//! The real proxy with a real journal, in front of a shop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use onlyonce::{Engine, Settings};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_journal::{Journal, Start};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::{OnceLayer, RequestBody};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tower::{Layer as _, service_fn};

use super::listen;
use crate::exit::Exit;
use crate::failure::Failure;

/// A running proxy and its journal.
pub(super) struct Guard {
    address: SocketAddr,
    journal: Journal,
    serving: JoinHandle<()>,
    once: OnceLayer,
}

impl Guard {
    /// Opens the journal in `folder`, or makes it there, and starts a proxy to `shop`.
    pub(super) async fn start(folder: &Path, shop: SocketAddr) -> Result<Self, Failure> {
        let settings = onlyonce_journal::Settings::default();
        let opened = Journal::open_or_create(folder, settings, Start::First);
        let (journal, _) =
            opened.map_err(|error| Failure::new(Exit::StoreUnavailable, error.to_string()))?;
        let keys = Arc::new(Keys::new(journal.secret().clone()));
        let store = Arc::new(journal.clone());
        let runtime = Arc::new(TokioRuntime::new());
        let engine = Engine::start(store, runtime, Settings::default(), None).await?;
        let once = OnceLayer::new(engine, keys, Arc::new(RoutePolicy::default()));
        let service = once.layer(service_fn(move |request| deliver(shop, request)));
        let service = TowerToHyperService::new(service);
        let (listener, address) = listen(0).await?;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service.clone());
                tokio::spawn(connection);
            }
        });
        Ok(Self { address, journal, serving, once })
    }

    /// Where the proxy listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets running operations finish and be recorded, then lets the journal go.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.serving.abort();
        self.once.tasks().close();
        self.once.tasks().wait().await;
        self.journal.close();
        Ok(())
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn deliver(
    shop: SocketAddr,
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<Incoming>, Error> {
    let stream = TcpStream::connect(shop).await?;
    let (mut sender, connection) =
        http1::handshake::<_, RequestBody<Incoming>>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
