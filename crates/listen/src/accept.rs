//! Accepting connections until it is time to stop, and how many there may be at once.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Connection, Limits, Peer};
use crate::pace::{Pace, Paced};
use crate::start::StartError;

/// Where others connect.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket in the file system.
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Takes a port.
    ///
    /// # Errors
    /// It is taken, or the address is not ours.
    pub async fn tcp(address: SocketAddr) -> Result<Self, StartError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self::Tcp).map_err(|error| StartError::new(address.to_string(), error))
    }

    /// Where it is, if it is a port.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are small and complete; waiting to join them helps nobody.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream, address))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// A listener with what its connections may do.
pub struct Accepting {
    listener: Listener,
    connection: Connection,
    connections: TaskTracker,
}

impl Accepting {
    /// Nothing is accepted yet.
    pub fn new(listener: Listener, tls: Option<TlsAcceptor>, limits: Limits) -> Self {
        let connection = Connection { stop: CancellationToken::new(), tls, limits };
        Self { listener, connection, connections: TaskTracker::new() }
    }

    /// Accepts until `stop`, with a handler for each connection; then closes the listener, tells
    /// the connections to end with the requests that they have, and returns them.
    pub async fn until<H, B>(
        self,
        stop: impl Future<Output = ()>,
        handler: impl Fn(Peer, Arc<Pace>) -> H + Clone + Send + 'static,
    ) -> TaskTracker
    where
        H: Service<Request<Incoming>, Response = Response<Paced<B>>, Error = Infallible>,
        H: Send + 'static,
        H::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { listener, connection, connections } = self;
        let places = Arc::new(Semaphore::new(connection.limits.connections));
        let mut stop = pin!(stop);
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = async { (place.await, listener.accept().await) } => accepted,
            };
            let (place, Ok(stream)) = accepted else {
                // Out of file handles, most likely: give others time to end.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (connection, handler) = (connection.clone(), handler.clone());
            connections.spawn(async move {
                match stream {
                    Stream::Tcp(stream, address) => {
                        serve(connection, stream, Some(address), handler).await;
                    }
                    Stream::Unix(stream) => serve(connection, stream, None, handler).await,
                }
                drop(place);
            });
        }
        drop(listener);
        connection.stop.cancel();
        connections.close();
        connections
    }
}

async fn serve<T, H, B>(
    connection: Connection,
    stream: T,
    address: Option<SocketAddr>,
    handler: impl Fn(Peer, Arc<Pace>) -> H,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Service<Request<Incoming>, Response = Response<Paced<B>>, Error = Infallible>,
    H::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    connection.serve(stream, address, handler).await;
}
