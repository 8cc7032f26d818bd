//! Making a connection to the upstream: TCP, TLS, HTTP/1.1 or HTTP/2.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;

use http::uri::Authority;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Failed, Outgoing};

/// Where the upstream is, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Connector {
    authority: Authority,
    port: u16,
    http2: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A connection that requests can be sent on.
pub(crate) enum Connection {
    Http1 {
        sender: http1::SendRequest<Outgoing>,
        /// The same socket, to look whether its other end has closed it.
        socket: Option<StdStream>,
    },
    Http2(http2::SendRequest<Outgoing>),
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
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let tls = tls
            .map(|config| {
                let name = authority.host().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned())?;
                Ok((TlsConnector::from(config), name))
            })
            .transpose()?;
        Ok(Self { authority, port, http2, tls })
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
        let stream = TcpStream::connect((host, self.port)).await;
        let stream = stream.map_err(|error| Failed::never("connecting", error))?;
        stream.set_nodelay(true).map_err(|error| Failed::never("connecting", error))?;
        let (stream, socket) = split(stream).map_err(|error| Failed::never("connecting", error))?;
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
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) =
                builder.handshake(stream).await.map_err(|error| Failed::never("HTTP/2", error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the upstream ended");
                }
            });
            return Ok(Connection::Http2(sender));
        }
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|error| Failed::never("HTTP/1.1", error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the upstream ended");
            }
        });
        Ok(Connection::Http1 { sender, socket: Some(socket) })
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
            Self::Http1 { sender, socket } => {
                let silent = socket.as_ref().is_none_or(|socket| {
                    // The socket does not block, so this is one system call. Bytes that nobody
                    // asked for are as bad as an end.
                    let peeked = socket.peek(&mut [0]);
                    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
                });
                silent && !sender.is_closed()
            }
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}
