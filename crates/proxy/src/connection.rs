//! One connection of a caller: what is spoken on it, and how long it may keep its place in
//! silence.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use onlyonce_failpoint::tapped;
use onlyonce_tower::ClientCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::handle::{Handler, Peer, Proxy};
use crate::pace::{Pace, Turn, Watched};

/// How long a connection that is told to end has for it: HTTP/2 asks back whether more is coming
/// (RFC 9113 section 6.8).
const GOODBYE: Duration = Duration::from_secs(1);

/// A caller's connection.
pub(crate) struct Connection {
    pub(crate) proxy: Arc<Proxy>,
    /// Tells it to end with the requests it has.
    pub(crate) stop: CancellationToken,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) address: SocketAddr,
}

impl Connection {
    pub(crate) async fn serve(self, stream: TcpStream) {
        // Answers are small and complete; waiting to join them helps nobody.
        let _ = stream.set_nodelay(true);
        let pace = Pace::new();
        let stream = Watched::new(tapped!("caller", stream), Arc::clone(&pace));
        let Some(acceptor) = self.tls.clone() else {
            let peer = Peer { address: self.address, certificate: None, tls: false };
            return self.speak(stream, peer, pace).await;
        };
        let limit = self.proxy.config.limits.head_time;
        match timeout(limit, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(|it| it.first()).map(|certificate| {
                    ClientCertificate(bytes::Bytes::copy_from_slice(certificate))
                });
                let peer = Peer { address: self.address, certificate, tls: true };
                pace.touch();
                self.speak(stream, peer, pace).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.address, "no TLS"),
            Err(_) => tracing::debug!(peer = %self.address, "no TLS in time"),
        }
    }

    async fn speak<T>(self, stream: T, peer: Peer, pace: Arc<Pace>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { proxy, stop, address, .. } = self;
        let limits = proxy.config.limits;
        let builder = builder(&limits);
        let handler = Handler { proxy, peer, pace: Arc::clone(&pace) };
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), handler);
        let mut connection = pin!(connection);
        let (mut stopped, mut goodbye) = (false, None);
        loop {
            let left = left(&pace, &limits, goodbye.unwrap_or_default());
            if left.is_zero() {
                if goodbye.is_some() || pace.turn() == Turn::Taking {
                    tracing::debug!(peer = %address, "a connection was silent for too long");
                    return;
                }
                connection.as_mut().graceful_shutdown();
                goodbye = Some(GOODBYE);
                continue;
            }
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = %address, "a connection ended");
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

/// How long the caller may be silent from now on.
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
