//! HTTP as the clients use it: one request, one answer, or none.
//!
//! Each request has a connection of its own, so that none is ever found closed by the other side.
//! It follows no redirect, knows no cookies, and sends nothing again by itself.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// A whole answer: its body has come to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The first field of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON, or not of this type.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// How far the request got: `executed`, `replayed`, ... (docs/http.md).
    pub fn idempotency_status(&self) -> Option<&str> {
        self.header("idempotency-status").map(str::trim)
    }

    /// Whether the answer had been given before.
    pub fn is_replayed(&self) -> bool {
        self.header("idempotent-replayed").is_some_and(|it| it.trim() == "true")
    }
}

/// No whole answer came. What was sent may have arrived or not.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

/// Sends requests; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http {
    /// Whom to trust; the system's certificates if nothing was said.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Http {
    pub(crate) fn with_tls(config: Arc<ClientConfig>) -> Self {
        Self { tls: Arc::new(OnceLock::from(config)) }
    }

    /// Sends a request, and reads its whole answer within this time.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Answer, Lost> {
        let whom = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let exchange = async {
            let stream = self.connect(request.uri()).await.map_err(|it| Lost(it.to_string()))?;
            exchange(stream, request).await
        };
        match timeout(within, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Lost(why))) => Err(Lost(format!("{whom}: {why}"))),
            Err(_) => Err(Lost(format!("{whom}: no answer within {within:?}"))),
        }
    }

    async fn connect(&self, uri: &Uri) -> io::Result<Box<dyn Stream>> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.trusted()?);
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    fn trusted(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(io::Error::other("this system has no trusted certificates"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whether an address is one of http or https.
pub(crate) fn is_address(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, Lost> {
    let lost = |error: &dyn std::fmt::Display| Lost(error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|it| lost(&it))?;
    let mut connection = std::pin::pin!(connection);
    let mut answering = std::pin::pin!(async {
        let answer = sender.send_request(relative(request)).await.map_err(|it| lost(&it))?;
        let (head, body) = answer.into_parts();
        // An answer that breaks off is none.
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|it| lost(&it))?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
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
    let host = uri.authority().and_then(|it| {
        let whole = it.as_str();
        whole.rsplit_once('@').map_or(whole, |(_, host)| host).parse().ok()
    });
    if let Some(host) = host {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    if let Some(path) = uri.path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    request
}
