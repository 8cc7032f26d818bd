//! Making a connection to the upstream: TCP, TLS, HTTP/1.1 or HTTP/2.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use onlyonce_failpoint::{failpoint, tapped};
use onlyonce_listen::Pace;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::{Failed, Leaving};

/// The longest time without a word after which the upstream is asked whether it is there.
const PING_MAX: Duration = Duration::from_secs(30);

/// Where the upstream is, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Connector {
    authority: Authority,
    port: u16,
    http2: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long the upstream may be silent in its turn.
    answer: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A connection that requests can be sent on.
pub(crate) enum Connection {
    Http1 {
        sender: http1::SendRequest<Leaving>,
        /// The same socket, to look whether its other end has closed it.
        socket: Option<StdStream>,
        /// What reads and writes it.
        task: AbortHandle,
    },
    Http2(Shared),
}

/// A connection of HTTP/2, which requests share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) sender: http2::SendRequest<Leaving>,
    /// When something last came on it.
    pub(crate) life: Arc<Pace>,
    spoilt: Arc<AtomicBool>,
}

impl Shared {
    /// It takes no more requests. Those on it go on.
    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Release);
    }

    /// Whether it takes another request: something came on it within `idle`.
    pub(crate) fn is_fresh(&self, idle: Duration) -> bool {
        self.life.still() < idle && !self.spoilt.load(Ordering::Acquire) && !self.sender.is_closed()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http1 { .. } => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

impl Connector {
    /// To `authority`; `tls` brings its client configuration.
    pub(crate) fn new(
        authority: Authority,
        http2: bool,
        tls: Option<Arc<rustls::ClientConfig>>,
        answer: Duration,
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let tls = tls
            .map(|config| {
                let name = authority.host().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned())?;
                Ok((TlsConnector::from(config), name))
            })
            .transpose()?;
        Ok(Self { authority, port, http2, tls, answer })
    }

    pub(crate) const fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) const fn is_http2(&self) -> bool {
        self.http2
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A new connection. Whatever fails here, no request was sent.
    pub(crate) async fn connect(&self) -> Result<Connection, Failed> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        failpoint!("upstream.connect.before", host);
        let stream = TcpStream::connect((host, self.port)).await;
        failpoint!("upstream.connect.after", host);
        let stream = stream.map_err(|error| Failed::never("connecting", error))?;
        stream.set_nodelay(true).map_err(|error| Failed::never("connecting", error))?;
        let (stream, socket) = split(stream).map_err(|error| Failed::never("connecting", error))?;
        let stream = tapped!("upstream", stream);
        match &self.tls {
            None => self.speak(stream, socket).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.speak(stream.map_err(|error| Failed::never("TLS", error))?, socket).await
            }
        }
    }

    async fn speak<T>(&self, stream: T, socket: StdStream) -> Result<Connection, Failed>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        if self.http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // A dead connection is one on which nothing comes for as long as an answer may take,
            // not even what every end sends by itself. Asked sooner or more often, a busy upstream
            // would lose answers that it was about to give, and some end a connection for it.
            let interval = (self.answer / 2).min(PING_MAX);
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(interval)
                .keep_alive_timeout(self.answer - interval);
            let (sender, connection) =
                builder.handshake(stream).await.map_err(|error| Failed::never("HTTP/2", error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the upstream ended");
                }
            });
            let (life, spoilt) = (Pace::new(), Arc::default());
            return Ok(Connection::Http2(Shared { sender, life, spoilt }));
        }
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|error| Failed::never("HTTP/1.1", error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        let task = task.abort_handle();
        Ok(Connection::Http1 { sender, socket: Some(socket), task })
    }
}

/// The stream and a second handle on its socket.
fn split(stream: TcpStream) -> io::Result<(TcpStream, StdStream)> {
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
}

impl Connection {
    /// Whether a request may be sent on it now: asked of the socket itself, because the task
    /// that reads from it may not have been told yet.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Http1 { sender, socket, .. } => {
                let silent = socket.as_ref().is_none_or(|socket| {
                    // The socket does not block, so this is one system call. Bytes that nobody
                    // asked for are as bad as an end.
                    let peeked = socket.peek(&mut [0]);
                    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
                });
                silent && !sender.is_closed()
            }
            Self::Http2(shared) => !shared.sender.is_closed(),
        }
    }
}
