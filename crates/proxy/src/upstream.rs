//! The upstream: connections that are used again, and the proof whether anything was sent.
//!
//! A request is never repeated here. When a pooled connection turns out to be closed before the
//! request was written, another one is taken: that is no repetition, since nothing was sent.

mod connect;
mod pool;
mod upgrade;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use onlyonce_http::headers::strip_hop_by_hop;
use onlyonce_http::{FailureKind, UpstreamFailure, render};
use onlyonce_listen::{Paced, Telemetry};
use onlyonce_tower::RequestBody;
use tower_service::Service;

use crate::body::{AnswerBody, CallerBody, Leased};
use crate::handle::kind_name;
pub(crate) use connect::Connector;
pub(crate) use pool::{Lent, Pool};

/// The body of a request for the upstream.
pub(crate) type Outgoing = RequestBody<CallerBody>;

/// It as it goes out.
pub(crate) type Leaving = Paced<Leased<Outgoing>>;

/// How long things may take, and how idle connections are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until a connection stands, TLS included.
    pub(crate) connect: Duration,
    /// How long the upstream may be silent in its turn: from the request's end until the head of
    /// its answer, and between two frames of its body; and how long it may take nothing of the
    /// request.
    pub(crate) answer: Duration,
    /// How long a connection is kept for the next request. Short, so that the upstream hardly
    /// ever closes one just as it is used again. One of HTTP/2 is used while something came on it
    /// that recently: who sends into silence learns of a dead connection by unknown outcomes.
    pub(crate) idle: Duration,
}

/// The service that sends a request to the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    telemetry: Arc<Telemetry>,
}

impl Upstream {
    pub(crate) fn new(connector: Connector, limits: Limits, telemetry: Arc<Telemetry>) -> Self {
        Self { pool: Arc::new(Pool::new(connector, limits)), telemetry }
    }

    fn count(&self, failed: &Failed) {
        let kind = failed.failure.kind();
        self.telemetry.count("onlyonce_upstream_failures_total", kind_name(kind));
        if failed.reused && kind != FailureKind::NeverSent {
            self.telemetry.count("onlyonce_upstream_lost_on_reused_total", "");
        }
    }

    async fn send(&self, mut request: Request<Outgoing>) -> Result<Response<AnswerBody>, Failed> {
        let upgrade = upgrade::take(&mut request);
        let takes_trailers = render::accepts_trailers(request.headers());
        strip_hop_by_hop(request.headers_mut());
        if takes_trailers {
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if request.body().size_hint().exact().is_none() {
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        if let Some(upgrade) = &upgrade {
            upgrade.announce(request.headers_mut());
        }
        self.target(&mut request)?;
        let mut answered = self.pool.send(request).await?;
        if answered.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match upgrade.filter(|it| it.is_agreed(&answered)) {
                Some(upgrade) => Ok(upgrade.join(answered)),
                None => {
                    let text = "it changes to a protocol that was not asked for";
                    Err(Failed::new(FailureKind::SentAndLost, "the answer", text))
                }
            };
        }
        strip_hop_by_hop(answered.headers_mut());
        Ok(answered)
    }

    /// Path and query for HTTP/1.1 with a `Host`, the whole address for HTTP/2.
    fn target(&self, request: &mut Request<Outgoing>) -> Result<(), Failed> {
        let connector = self.pool.connector();
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let authority = request.uri().authority().cloned();
        let host = match request.headers().get(header::HOST) {
            Some(host) => Authority::try_from(host.as_bytes()).ok(),
            None => authority,
        };
        let host = host.unwrap_or_else(|| connector.authority().clone());
        let never = |error: http::Error| Failed::never("the request's address", error);
        let uri = if connector.is_http2() {
            request.headers_mut().remove(header::HOST);
            let scheme = if connector.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
            Uri::builder().scheme(scheme).authority(host).path_and_query(path).build()
        } else {
            let host = HeaderValue::from_str(host.as_str());
            let host = host.map_err(|error| never(error.into()))?;
            request.headers_mut().insert(header::HOST, host);
            Uri::builder().path_and_query(path).build()
        };
        *request.uri_mut() = uri.map_err(never)?;
        let version = if connector.is_http2() { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.version_mut() = version;
        Ok(())
    }
}

/// A failure of the upstream, and on what connection.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: UpstreamFailure,
    /// The connection had carried another request before.
    pub(crate) reused: bool,
}

impl Failed {
    pub(crate) fn new(kind: FailureKind, text: &str, error: impl Into<crate::BoxError>) -> Self {
        let error = error.into();
        let text = format!("{text}: {}", whole_story(&*error));
        Self { failure: UpstreamFailure::new(kind, text).with_source(error), reused: false }
    }

    pub(crate) fn never(text: &str, error: impl Into<crate::BoxError>) -> Self {
        Self::new(FailureKind::NeverSent, text, error)
    }
}

/// An error with all that is behind it.
fn whole_story(error: &(dyn std::error::Error + 'static)) -> String {
    let mut story = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !story.ends_with(&text) {
            story = format!("{story}: {text}");
        }
        next = error.source();
    }
    story
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

impl Service<Request<Outgoing>> for Upstream {
    type Response = Response<AnswerBody>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Failed>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Outgoing>) -> Self::Future {
        let upstream = self.clone();
        Box::pin(async move {
            let answered = upstream.send(request).await;
            if let Err(failed) = &answered {
                upstream.count(failed);
            }
            answered
        })
    }
}
