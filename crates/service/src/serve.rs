//! Listening, and stopping without losing anything.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onlyonce::Engine;
use onlyonce_core::Secret;
use onlyonce_listen::tls::acceptor;
use onlyonce_listen::{Accepting, Listener, StartError, Telemetry};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Room;
use crate::config::{Config, Listen};
use crate::handle::{Handler, Service};
use crate::openapi::openapi;
use crate::work::{Desk, ScopeState};

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Commands that had not ended in time. Their callers do not know whether they are recorded.
    pub left: usize,
}

/// The port or socket of a service, and all that can fail before it has a store.
pub struct Place {
    config: Config,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    socket: Option<Socket>,
}

impl Place {
    /// Takes the port or socket. What arrives from now on waits until [`Server::serve`].
    ///
    /// # Errors
    /// It is taken, nobody could be let in, or a certificate cannot be used: says which. Nothing
    /// was done.
    pub async fn take(config: Config) -> Result<Self, StartError> {
        let config = config.with_one_memory();
        if config.callers.is_empty() {
            let text = "no caller is known: name a [[caller]], or a token with --token-file";
            return Err(StartError::new("the configuration", text));
        }
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let (listener, socket) = match &config.listen {
            Listen::Tcp(address) => (Listener::tcp(*address).await?, None),
            Listen::Unix(path) => {
                let (listener, socket) = Socket::take(path)
                    .map_err(|error| StartError::new(path.display().to_string(), error))?;
                (Listener::Unix(listener), Some(socket))
            }
        };
        Ok(Self { config, listener, tls, socket })
    }

    /// The service behind it.
    pub fn serve_with(self, engine: Engine, secret: Secret, telemetry: Arc<Telemetry>) -> Server {
        let Self { config, listener, tls, socket } = self;
        let (sweeping, body_max) = (config.sweeping(), config.body_max());
        let Config { limits, problem_base, scopes, callers, .. } = config;
        let desk = Desk {
            fingerprints: secret.derive("service fingerprint"),
            engine,
            secret,
            scopes: scopes.into_iter().map(ScopeState::new).collect(),
            limits,
            sweeping,
            stopping: CancellationToken::new(),
        };
        let service = Service {
            desk: Arc::new(desk),
            callers,
            room: Room::new(limits.bodies, body_max, limits.body_time),
            problem_base,
            telemetry,
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            document: openapi().into(),
        };
        Server { service: Arc::new(service), listener, tls, socket }
    }
}

/// A service that has its place.
pub struct Server {
    service: Arc<Service>,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    socket: Option<Socket>,
}

impl Server {
    /// Where callers connect, if it is a port.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then accepts nothing more, tells who waits to ask again, and lets
    /// commands end.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Drained {
        let Self { service, listener, tls, socket } = self;
        let limits = service.desk.limits;
        let stopping = Arc::clone(&service);
        let stop = async move {
            stop.await;
            stopping.draining.store(true, Ordering::Release);
            stopping.desk.stopping.cancel();
            tracing::info!(running = stopping.tasks.len(), "draining");
        };
        let tasks = service.tasks.clone();
        let accepting = Accepting::new(listener, tls, limits.of_connections());
        let handler = move |peer, pace| Handler { service: Arc::clone(&service), peer, pace };
        let connections = accepting.until(stop, handler).await;
        drop(socket);
        let ended = async {
            connections.wait().await;
            tasks.close();
            tasks.wait().await;
        };
        let left = if timeout(limits.drain_time, ended).await.is_ok() { 0 } else { tasks.len() };
        Drained { left }
    }
}

/// A socket in the file system, taken away when it is dropped.
struct Socket(PathBuf);

impl Socket {
    /// Makes the socket, for its owner alone, in place of one that nobody listens on any more.
    fn take(path: &Path) -> io::Result<(UnixListener, Self)> {
        if let Ok(there) = std::fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(io::Error::other("there is something else than a socket here"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("somebody listens here already"));
            }
        }
        // Under another name first, so that nobody can come before its mode is set.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, path)?;
        Ok((listener, Self(path.to_owned())))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
