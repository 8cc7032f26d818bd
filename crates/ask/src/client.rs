//! One request over HTTP/1.1, on a connection of its own: nothing is sent again by itself, and it
//! is known whether anything was sent at all.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use onlyonce_core::Cause;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long the kernel goes on sending what is not acknowledged, in milliseconds: what was given up
/// must not arrive much later, also once this process is gone.
const UNACKNOWLEDGED_MAX: u32 = 30_000;
/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The content, at most 1 MiB.
    pub body: Bytes,
}

/// There is no answer, or not all of it.
#[derive(Debug)]
pub enum Failed {
    /// Not a byte of the request was sent.
    NotSent(String),
    /// It may have been carried out.
    Lost(Cause, String),
    /// There was an answer with this status, and nobody can read all of it.
    Cut(u16, String),
}

/// A connection on which nothing was sent yet.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// Whom it leads to.
    place: String,
}

/// Sends a request, and reads its answer. Connecting may take this long, and the rest once more.
///
/// # Errors
/// There is no answer; it says whether anything was sent.
pub async fn send(request: Request<Full<Bytes>>, within: Duration) -> Result<Answer, Failed> {
    let connection = Connection::open(request.uri(), within).await?;
    connection.send(request, within).await
}

impl Connection {
    /// Connects to the host of an address, with TLS if it is one of `https`.
    ///
    /// # Errors
    /// [`Failed::NotSent`]: there is no connection.
    pub async fn open(uri: &Uri, within: Duration) -> Result<Self, Failed> {
        let place = place(uri);
        match timeout(within, connect(uri)).await {
            Ok(Ok(stream)) => Ok(Self { stream, place }),
            Ok(Err(error)) => Err(Failed::NotSent(format!("{place}: {error}"))),
            Err(_) => Err(Failed::NotSent(format!("{place}: no connection in time"))),
        }
    }

    /// Sends the one request of this connection, and reads its answer within this time.
    ///
    /// # Errors
    /// There is no answer; it says whether anything was sent.
    pub async fn send(
        self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Answer, Failed> {
        match timeout(within, exchange(self.stream, request)).await {
            Ok(answered) => answered,
            Err(_) => {
                let text = format!("{}: no answer within {within:?}", self.place);
                Err(Failed::Lost(Cause::TimedOut, text))
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.place)
    }
}

/// A value in an address: all but unreserved characters are encoded (RFC 3986, section 2.3).
pub fn encoded(value: &str) -> String {
    let byte = |it: u8| match it {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(it).to_string()
        }
        it => format!("%{it:02X}"),
    };
    value.bytes().map(byte).collect()
}

/// Whom an error is about; the rest of an address may hold a secret.
fn place(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(uri: &Uri) -> io::Result<Box<dyn Stream>> {
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX)?;
    if !is_tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(trusted()?);
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// With the certificates that this system trusts.
fn trusted() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("this system has no trusted certificates"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failed> {
    let (whole, request) = (place(request.uri()), relative(request));
    let lost = |text: String| Failed::Lost(Cause::ConnectionLost, format!("{whole}: {text}"));
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) =
        handshake.map_err(|error| Failed::NotSent(format!("{whole}: {error}")))?;
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(async {
        let answer = sender.send_request(request).await.map_err(|it| lost(it.to_string()))?;
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16();
        let cut = |error: &dyn std::fmt::Display| {
            Failed::Cut(status, format!("{whole}: answered with {status}, and then {error}"))
        };
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|it| cut(&it))?;
        Ok(Answer { status, headers: head.headers, body: body.to_bytes() })
    });
    tokio::select! {
        biased;
        answered = &mut answering => answered,
        // It may end with the answer in hand.
        _ = &mut connection => answering.await,
    }
}

/// As a server is asked: the path, and the host in a field.
fn relative(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let uri = request.uri().clone();
    let host = uri.authority().and_then(|it| it.as_str().parse().ok());
    if let Some(host) = host {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    let path = uri.path_and_query().cloned();
    if let Some(path) = path {
        *request.uri_mut() = Uri::from(path);
    }
    request
}
