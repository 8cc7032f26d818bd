//! Listening, connections, and stopping without losing anything.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onlyonce::Engine;
use onlyonce_http::Keys;
use onlyonce_listen::tls::acceptor;
use onlyonce_listen::{Accepting, Listener, StartError, Telemetry};
use onlyonce_tower::{OnceLayer, Room};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower_layer::Layer as _;

use crate::admin;
use crate::config::Config;
use crate::handle::{Handler, Proxy};
use crate::tls;
use crate::upstream::{Connector, Upstream};

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Operations that had not ended in time. Their outcomes will be unknown.
    pub left: usize,
}

/// The ports of a proxy, and all that can fail before it has a store.
pub struct Ports {
    config: Config,
    listener: Listener,
    admin: Option<TcpListener>,
    ready: Ready,
}

/// What is made of the files that a configuration names.
struct Ready {
    tls: Option<TlsAcceptor>,
    connector: Connector,
}

impl Ready {
    fn of(config: &Config) -> Result<Self, StartError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let target = &config.upstream;
        let client = target.tls.then(|| tls::client(target)).transpose()?;
        let answer = config.limits.answer_time;
        let connector = Connector::new(target.authority.clone(), target.http2, client, answer)
            .map_err(|error| StartError::new(target.authority.as_str(), error))?;
        Ok(Self { tls, connector })
    }
}

impl Ports {
    /// Takes the ports. What arrives from now on waits until [`Server::serve`].
    ///
    /// # Errors
    /// A port is taken, or a certificate cannot be used: says which. Nothing was done.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let config = config.with_one_memory();
        let ready = Ready::of(&config)?;
        let listener = Listener::tcp(config.listen).await?;
        let admin = match &config.admin {
            Some(admin) => Some(bind(admin.listen).await?),
            None => None,
        };
        Ok(Self { config, listener, admin, ready })
    }

    /// Reads the files that the configuration names, and takes no port.
    ///
    /// # Errors
    /// A certificate or key is not there or cannot be used: says which.
    pub fn rehearse(config: &Config) -> Result<(), StartError> {
        Ready::of(config).map(|_| ())
    }

    /// The proxy behind them.
    pub fn serve_with(self, engine: Engine, keys: Arc<Keys>, telemetry: Arc<Telemetry>) -> Server {
        let Self { config, listener, admin, ready: Ready { tls, connector } } = self;
        let limits = crate::upstream::Limits {
            connect: config.limits.connect_time,
            answer: config.limits.answer_time,
            idle: config.limits.upstream_idle,
        };
        let upstream = Upstream::new(connector, limits, Arc::clone(&telemetry));
        let (tasks, room) = (TaskTracker::new(), Room::new(config.limits.bodies));
        let guard = |policy| {
            OnceLayer::new(engine.clone(), Arc::clone(&keys), Arc::clone(policy))
                .with_tasks(tasks.clone())
                .with_room(room.clone())
                .keeps_lease()
                .layer(upstream.clone())
        };
        let routes = config.routes.iter().map(|route| guard(&route.policy)).collect();
        let other = guard(&config.policy);
        let proxy = Arc::new(Proxy { config, engine, routes, other, telemetry });
        Server { proxy, listener, admin, tls, tasks }
    }
}

/// A proxy that has its ports.
pub struct Server {
    proxy: Arc<Proxy>,
    listener: Listener,
    admin: Option<TcpListener>,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
}

impl Server {
    /// Takes the ports for an engine that is there already.
    ///
    /// # Errors
    /// As [`Ports::bind`].
    pub async fn bind(
        config: Config,
        engine: Engine,
        keys: Arc<Keys>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StartError> {
        Ok(Ports::bind(config).await?.serve_with(engine, keys, telemetry))
    }

    /// Where callers connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        let address = self.listener.local_addr()?;
        address.ok_or_else(|| std::io::Error::other("it listens on no port"))
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
        let (stopped, running) = (Arc::clone(&draining), tasks.clone());
        let stop = async move {
            stop.await;
            stopped.store(true, Ordering::Release);
            tracing::info!(running = running.len(), "draining");
        };
        let accepting = Accepting::new(listener, tls, limits.of_connections());
        let handler = move |peer, pace| Handler { proxy: Arc::clone(&proxy), peer, pace };
        let connections = accepting.until(stop, handler).await;
        let drained = drain(&connections, &tasks, limits.drain_time).await;
        if let Some(admin) = admin {
            admin.abort();
        }
        drained
    }
}

async fn drain(connections: &TaskTracker, tasks: &TaskTracker, limit: Duration) -> Drained {
    tasks.close();
    let ended = async {
        // New operations can still begin on connections that are being ended.
        connections.wait().await;
        tasks.wait().await;
    };
    let left = if timeout(limit, ended).await.is_ok() { 0 } else { tasks.len() };
    Drained { left }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::new(address.to_string(), error))
}
