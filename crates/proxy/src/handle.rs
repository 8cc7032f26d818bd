//! One request: its route, its answer, and a line about it in the log.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use onlyonce::Engine;
use onlyonce_http::{FailureKind, Problem, RoutePolicy, answer, problem, well_known};
use onlyonce_listen::{Busy, Pace, Paced, Peer, Telemetry};
use onlyonce_tower::{ClientCertificate, Evaluated, Once, ResponseBody};
use serde_json::json;
use tokio::time::Instant;
use tower_service::Service;
use tracing::Instrument as _;

use crate::body::{AnswerBody, Patient};
use crate::config::{Config, Route};
use crate::upstream::{Failed, Upstream};

/// The body of an answer to a caller.
pub(crate) type Answer = Response<Either<ResponseBody<AnswerBody>, Full<Bytes>>>;

/// It as it goes out.
pub(crate) type Leaving = Response<Paced<Either<ResponseBody<AnswerBody>, Full<Bytes>>>>;

/// A protected upstream with one policy.
pub(crate) type Guarded = Once<Upstream>;

/// What all requests share.
pub(crate) struct Proxy {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    /// The services of the routes, in the routes' order, and the one for all else.
    pub(crate) routes: Vec<Guarded>,
    pub(crate) other: Guarded,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) peer: Peer,
    pub(crate) pace: Arc<Pace>,
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Leaving;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Leaving, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { proxy, peer, pace } = self.clone();
        let (coming, going) = (pace.busy(), pace.busy());
        let span = tracing::info_span!(
            "request",
            method = %request.method(),
            path = request.uri().path(),
            peer = %address(&peer),
        );
        let answered = async move {
            let answer = proxy.handle(request, peer, coming).await;
            Ok(answer.map(|body| Paced::new(body, going)))
        };
        Box::pin(answered.instrument(span))
    }
}

impl Proxy {
    async fn handle(&self, mut request: Request<Incoming>, peer: Peer, coming: Busy) -> Answer {
        let started = Instant::now();
        if request.method() == Method::CONNECT {
            return whole(
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                "CONNECT is not for here\n",
            );
        }
        if request.uri().path() == well_known::PATH && request.method() == Method::GET {
            return self.well_known();
        }
        self.telemetry.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(&self.telemetry);
        forwarded(&mut request, &peer);
        if let Some(certificate) = peer.certificate {
            request.extensions_mut().insert(ClientCertificate(certificate));
        }
        let (guarded, policy) = self.route(request.uri().path());
        let mut guarded = guarded.clone();
        let limit = self.config.limits.body_time;
        // It was ready when it was made, and always is.
        let request = request.map(|body| Patient::new(body, limit, Some(coming)));
        let answered = guarded.call(request).await;
        let answer = match answered {
            Ok(answer) => answer.map(Either::Left),
            Err(failed) => self.unprotected_failed(&failed, policy),
        };
        drop(running);
        self.note(&answer, started);
        answer
    }

    fn route(&self, path: &str) -> (&Guarded, &RoutePolicy) {
        let mut routes = self.config.routes.iter().zip(&self.routes);
        let found = routes.find(|(route, _): &(&Route, &Guarded)| route.fits(path));
        found.map_or((&self.other, &*self.config.policy), |(route, guarded)| {
            (guarded, &*route.policy)
        })
    }

    /// A request that was not protected got no answer: nobody recorded anything.
    fn unprotected_failed(&self, failed: &Failed, policy: &RoutePolicy) -> Answer {
        tracing::warn!(error = %failed, "no answer from the upstream");
        let kind = failed.failure.kind();
        // Whatever the route's policy says, nothing would know the same request again.
        let holds = onlyonce::core::Policy::default();
        let problem = answer::failed(kind, None, &holds, self.engine.now());
        rendered(&problem, policy)
    }

    fn well_known(&self) -> Answer {
        whole(StatusCode::OK, "application/json", self.document().to_string())
    }

    fn document(&self) -> serde_json::Value {
        let own = std::iter::once(("/", &*self.config.policy));
        let routes = self.config.routes.iter().map(|it| (it.path.as_str(), &*it.policy));
        well_known::document(own.chain(routes))
    }

    /// What callers can read, and for operators what may be lost all the same.
    pub(crate) fn document_with_risks(&self) -> serde_json::Value {
        let risks = self.telemetry.risks().iter();
        let risks = risks.map(|taken| json!({ "risk": taken.risk, "why": taken.why })).collect();
        let mut document = self.document();
        document["risks_accepted"] = serde_json::Value::Array(risks);
        document
    }

    fn note(&self, answer: &Answer, started: Instant) {
        let took = started.elapsed();
        self.telemetry.answered(took);
        let status = answer.status().as_u16();
        let ms = took.as_millis() as u64;
        let Some(evaluated) = answer.extensions().get::<Evaluated>() else {
            self.telemetry.count("onlyonce_requests_total", "none");
            tracing::info!(status, ms, "answered");
            return;
        };
        self.telemetry.count("onlyonce_requests_total", evaluated.status.name());
        if let Some(problem) = evaluated.problem {
            self.telemetry.count("onlyonce_problems_total", problem.name());
        }
        if evaluated.anonymous {
            self.telemetry.count("onlyonce_anonymous_total", "");
        }
        tracing::info!(
            status,
            ms,
            idempotency = evaluated.status.name(),
            key = evaluated.key_id.map(|id| id.to_string()),
            age_ms = evaluated.age.map(|age| age.as_millis() as u64),
            attempt = evaluated.attempt,
            fence = evaluated.fence.map(onlyonce::core::Fence::get),
            problem = evaluated.problem.map(problem::ProblemKind::name),
            "answered"
        );
    }
}

/// For the log.
fn address(peer: &Peer) -> String {
    peer.address.map_or_else(String::new, |address| address.to_string())
}

/// One request less is running when it is dropped, also if its caller goes away.
struct Running<'a>(&'a Telemetry);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the upstream failed in, for the counts.
pub(crate) const fn kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NeverSent => "never-sent",
        FailureKind::SentAndLost => "sent-and-lost",
        FailureKind::TimedOut => "timed-out",
        FailureKind::AnswerCut => "answer-cut",
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Says on whose behalf the request comes (RFC 9110 section 7.6.3 for `Via`).
fn forwarded(request: &mut Request<Incoming>, peer: &Peer) {
    let host = request.headers().get(header::HOST).cloned().or_else(|| {
        let authority = request.uri().authority()?;
        HeaderValue::from_str(authority.as_str()).ok()
    });
    let via = match request.version() {
        http::Version::HTTP_2 => "2 onlyonce",
        _ => "1.1 onlyonce",
    };
    let headers = request.headers_mut();
    if let Some(address) = peer.address {
        append(headers, FORWARDED_FOR, &address.ip().to_string());
    }
    let proto = HeaderValue::from_static(if peer.tls { "https" } else { "http" });
    headers.entry(FORWARDED_PROTO).or_insert(proto);
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    append(headers, header::VIA, via);
}

/// Adds to a list in one line, so that what came before is not lost.
fn append(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let lines = headers.get_all(&name).iter().map(|it| String::from_utf8_lossy(it.as_bytes()));
    let all = lines.map(String::from).chain([text.to_owned()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(name, value);
    }
}

fn whole(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Right(Full::new(body.into())));
    *answer.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer
}

fn rendered(problem: &Problem, policy: &RoutePolicy) -> Answer {
    let rendered = problem.render(&policy.problem_base, None);
    Response::from_parts(rendered.head, Either::Right(Full::new(rendered.body)))
}
