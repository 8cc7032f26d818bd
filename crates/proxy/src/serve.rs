//! Listening, connections, and stopping without losing anything.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use onlyonce::Engine;
use onlyonce_http::Keys;
use onlyonce_tower::{ClientCertificate, OnceLayer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower_layer::Layer as _;

use crate::admin;
use crate::config::Config;
use crate::handle::{Handler, Peer, Proxy};
use crate::telemetry::Telemetry;
use crate::tls;
use crate::upstream::{Connector, Upstream};

/// The proxy could not begin. Nothing was accepted.
#[derive(Debug)]
pub struct ProxyError {
    place: String,
    text: String,
}

impl ProxyError {
    pub(crate) fn new(place: impl Into<String>, text: impl std::fmt::Display) -> Self {
        Self { place: place.into(), text: text.to_string() }
    }
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for ProxyError {}

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Operations that had not ended in time. Their outcomes will be unknown.
    pub left: usize,
}

/// A proxy that has its ports.
pub struct Server {
    proxy: Arc<Proxy>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
}

impl Server {
    /// Takes the ports. What arrives from now on waits until [`Server::serve`].
    ///
    /// # Errors
    /// A port is taken, or a certificate cannot be used: says which.
    pub async fn bind(
        config: Config,
        engine: Engine,
        keys: Arc<Keys>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, ProxyError> {
        let listener = bind(config.listen).await?;
        let admin = match &config.admin {
            Some(admin) => Some(bind(admin.listen).await?),
            None => None,
        };
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let upstream = upstream(&config, Arc::clone(&telemetry))?;
        let tasks = TaskTracker::new();
        let guard = |policy| {
            OnceLayer::new(engine.clone(), Arc::clone(&keys), Arc::clone(policy))
                .with_tasks(tasks.clone())
                .layer(upstream.clone())
        };
        let routes = config.routes.iter().map(|route| guard(&route.policy)).collect();
        let other = guard(&config.policy);
        let proxy = Arc::new(Proxy { config, engine, routes, other, telemetry });
        Ok(Self { proxy, listener, admin, tls, tasks })
    }

    /// Where callers connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators connect, if there is a port for them.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `stop`; then accepts nothing more, and lets what runs end and be recorded.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Drained {
        let Self { proxy, listener, admin, tls, tasks } = self;
        let draining = Arc::new(AtomicBool::new(false));
        let admin = admin.map(|listener| {
            tokio::spawn(admin::serve(listener, Arc::clone(&proxy), Arc::clone(&draining)))
        });
        let limits = proxy.config.limits;
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(limits.connections));
        let mut stop = pin!(stop);
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = async { (place.await, listener.accept().await) } => accepted,
            };
            let (place, Ok((stream, address))) = accepted else {
                // Out of file handles, most likely: give others time to end.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let connection = Connection {
                proxy: Arc::clone(&proxy),
                watcher: graceful.watcher(),
                tls: tls.clone(),
                address,
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop(place);
            });
        }
        draining.store(true, Ordering::Release);
        drop(listener);
        tracing::info!(running = tasks.len(), "draining");
        let drained = drain(graceful, &tasks, limits.drain_time).await;
        if let Some(admin) = admin {
            admin.abort();
        }
        drained
    }
}

async fn drain(graceful: GracefulShutdown, tasks: &TaskTracker, limit: Duration) -> Drained {
    tasks.close();
    let ended = async {
        // New operations can still begin on connections that are being ended.
        graceful.shutdown().await;
        tasks.wait().await;
    };
    let left = if timeout(limit, ended).await.is_ok() { 0 } else { tasks.len() };
    Drained { left }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ProxyError> {
    TcpListener::bind(address).await.map_err(|error| ProxyError::new(address.to_string(), error))
}

fn upstream(config: &Config, telemetry: Arc<Telemetry>) -> Result<Upstream, ProxyError> {
    let target = &config.upstream;
    let client = target.tls.then(|| tls::client(target)).transpose()?;
    let connector = Connector::new(target.authority.clone(), target.http2, client)
        .map_err(|error| ProxyError::new(target.authority.as_str(), error))?;
    let limits = crate::upstream::Limits {
        connect: config.limits.connect_time,
        answer: config.limits.answer_time,
        idle: config.limits.upstream_idle,
    };
    Ok(Upstream::new(connector, limits, telemetry))
}

/// A caller's connection.
struct Connection {
    proxy: Arc<Proxy>,
    watcher: hyper_util::server::graceful::Watcher,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Answers are small and complete; waiting to join them helps nobody.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.tls.clone() else {
            let peer = Peer { address: self.address, certificate: None, tls: false };
            return self.speak(TokioIo::new(stream), peer).await;
        };
        let limit = self.proxy.config.limits.head_time;
        match timeout(limit, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(|it| it.first()).map(|certificate| {
                    ClientCertificate(bytes::Bytes::copy_from_slice(certificate))
                });
                let peer = Peer { address: self.address, certificate, tls: true };
                self.speak(TokioIo::new(stream), peer).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.address, "no TLS"),
            Err(_) => tracing::debug!(peer = %self.address, "no TLS in time"),
        }
    }

    async fn speak<T>(self, stream: TokioIo<T>, peer: Peer)
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let limits = self.proxy.config.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(limits.head_bytes)
            .max_headers(limits.head_fields)
            .header_read_timeout(limits.head_time);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.streams)
            .keep_alive_interval(Duration::from_secs(30));
        let handler = Handler { proxy: self.proxy, peer };
        let connection = builder.serve_connection_with_upgrades(stream, handler);
        if let Err(error) = self.watcher.watch(connection.into_owned()).await {
            tracing::debug!(%error, peer = %self.address, "a connection ended");
        }
    }
}
