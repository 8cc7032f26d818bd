//! One connection: what is spoken on it, and how long it may keep its place in silence.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use onlyonce_failpoint::tapped;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::pace::{Pace, Paced, Turn, Watched};

/// How long a connection that is told to end has for it: HTTP/2 asks back whether more is coming
/// (RFC 9113 section 6.8).
const GOODBYE: Duration = Duration::from_secs(1);

/// Bounds on what whoever connects can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head of a request, in bytes.
    pub head_bytes: usize,
    /// Fields in the head of a request.
    pub head_fields: usize,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// From a connection's beginning, or the end of its last answer, until the head of the next
    /// request is there.
    pub head_time: Duration,
    /// How long nothing of an answer may be taken.
    pub write_time: Duration,
}

/// What is known of the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, unless it came through a unix socket.
    pub address: Option<SocketAddr>,
    /// The certificate that it has shown, in DER, verified.
    pub certificate: Option<Bytes>,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// How connections are spoken to.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Tells it to end with the requests it has.
    pub(crate) stop: CancellationToken,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
}

impl Connection {
    /// Speaks until the connection ends. `handler` answers its requests.
    pub(crate) async fn serve<T, H, B>(
        self,
        stream: T,
        address: Option<SocketAddr>,
        handler: impl FnOnce(Peer, Arc<Pace>) -> H,
    ) where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Service<Request<Incoming>, Response = Response<Paced<B>>, Error = Infallible>,
        H::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let pace = Pace::new();
        let stream = Watched::new(tapped!("caller", stream), Arc::clone(&pace));
        let Some(acceptor) = self.tls.clone() else {
            let peer = Peer { address, certificate: None, tls: false };
            let handler = handler(peer, Arc::clone(&pace));
            return self.speak(stream, address, handler, pace).await;
        };
        match timeout(self.limits.head_time, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(|it| it.first());
                let certificate = certificate.map(|it| Bytes::copy_from_slice(it));
                let handler = handler(Peer { address, certificate, tls: true }, Arc::clone(&pace));
                pace.touch();
                self.speak(stream, address, handler, pace).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, peer = ?address, "no TLS"),
            Err(_) => tracing::debug!(peer = ?address, "no TLS in time"),
        }
    }

    async fn speak<T, H, B>(
        self,
        stream: T,
        address: Option<SocketAddr>,
        handler: H,
        pace: Arc<Pace>,
    ) where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Service<Request<Incoming>, Response = Response<Paced<B>>, Error = Infallible>,
        H::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stop, limits, .. } = self;
        let builder = builder(&limits);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), handler);
        let mut connection = pin!(connection);
        let (mut stopped, mut goodbye) = (false, None);
        loop {
            let left = left(&pace, &limits, goodbye.unwrap_or_default());
            if left.is_zero() {
                if goodbye.is_some() || pace.turn() == Turn::Taking {
                    tracing::debug!(peer = ?address, "a connection was silent for too long");
                    return;
                }
                connection.as_mut().graceful_shutdown();
                goodbye = Some(GOODBYE);
                continue;
            }
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = ?address, "a connection ended");
                    }
                    return;
                }
                () = stop.cancelled(), if !stopped => {
                    connection.as_mut().graceful_shutdown();
                    stopped = true;
                }
                // Whose turn it is may change meanwhile, and with it the limit.
                () = sleep(left.min(limits.head_time).min(limits.write_time)) => {}
            }
        }
    }
}

/// How long the other end may be silent from now on.
fn left(pace: &Pace, limits: &Limits, more: Duration) -> Duration {
    match pace.turn() {
        Turn::Taking => limits.write_time.saturating_sub(pace.still()),
        Turn::Speaking => (limits.head_time + more).saturating_sub(pace.still()),
        Turn::Ours => Duration::MAX,
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        // It would begin only after the first bytes, and end a connection whose caller is still
        // taking the last answer; `left` knows both.
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}
