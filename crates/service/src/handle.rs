//! One request: who sends it, which endpoint it is for, its answer, and a line in the log.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use onlyonce_core::KeyId;
use onlyonce_http::{Problem, ProblemKind};
use onlyonce_listen::{Busy, Pace, Paced, Peer, Telemetry};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::body::Room;
use crate::callers::{self, Caller};
use crate::endpoint::{Endpoint, Row};
use crate::work::Desk;

/// An answer before it goes out.
type Answer = Response<Full<Bytes>>;

/// What all requests share.
pub(crate) struct Service {
    pub(crate) desk: Arc<Desk>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) room: Room,
    pub(crate) problem_base: String,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Commands on their way: they go on although their callers go away.
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: AtomicBool,
    /// The description of the endpoints.
    pub(crate) document: Bytes,
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) service: Arc<Service>,
    pub(crate) peer: Peer,
    pub(crate) pace: Arc<Pace>,
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<Paced<Full<Bytes>>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { service, peer, pace } = self.clone();
        let (coming, going) = (pace.busy(), pace.busy());
        let span = tracing::info_span!("request", path = request.uri().path());
        let answered = async move {
            let answer = service.answer(request, &peer, coming).await;
            Ok(answer.map(|body| Paced::new(body, going)))
        };
        Box::pin(answered.instrument(span))
    }
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Service {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
        coming: Busy,
    ) -> Answer {
        let started = Instant::now();
        let Some(row) = Row::at(request.uri().path()) else {
            return self.aside(&request, peer).await;
        };
        self.telemetry.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.telemetry));
        let answered = Arc::clone(&self).asked(row, request, peer, coming).await;
        drop(running);
        self.telemetry.count("onlyonce_service_requests_total", row.name);
        self.telemetry.answered(started.elapsed());
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match answered {
            Ok(document) => {
                tracing::info!(status = 200, ms, "answered");
                whole(StatusCode::OK, JSON, document)
            }
            Err(problem) => {
                let (status, name) = (problem.status().as_u16(), problem.kind().name());
                tracing::info!(status, ms, problem = name, "answered");
                self.refusal(&problem)
            }
        }
    }

    async fn asked(
        self: Arc<Self>,
        row: &'static Row,
        request: Request<Incoming>,
        peer: &Peer,
        coming: Busy,
    ) -> Result<Bytes, Problem> {
        if request.method() != Method::POST {
            return Err(Problem::new(ProblemKind::MethodNotAllowed));
        }
        let (head, body) = request.into_parts();
        let caller = callers::find(&self.callers, &head.headers, peer)?.clone();
        if row.operator && !caller.operator {
            let text = "This endpoint is for operators.";
            return Err(Problem::new(ProblemKind::NotAllowed).with_detail(text));
        }
        media_type(&head.headers)?;
        let body = self.room.read(body).await?;
        drop(coming);
        let desk = Arc::clone(&self.desk);
        if row.endpoint == Endpoint::Wait {
            // Who waits and goes away changes nothing by that.
            return desk.answer(row.endpoint, &caller, &body.bytes).await;
        }
        let command = async move { desk.answer(row.endpoint, &caller, &body.bytes).await };
        let ended = self.tasks.spawn(command.in_current_span()).await;
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a command did not end");
            Err(Problem::new(ProblemKind::StoreUnavailable))
        })
    }

    /// What is no endpoint: the description, and what operators look at.
    async fn aside(&self, request: &Request<Incoming>, peer: &Peer) -> Answer {
        let path = request.uri().path();
        let known = ["/v1/openapi.json", "/livez", "/readyz", "/metrics"];
        if !known.contains(&path) {
            return self.refusal(&Problem::new(ProblemKind::PathUnknown));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = self.refusal(&Problem::new(ProblemKind::MethodNotAllowed));
            let allow = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        match path {
            "/v1/openapi.json" => whole(StatusCode::OK, JSON, self.document.clone()),
            "/livez" => whole(StatusCode::OK, PLAIN, "alive\n"),
            "/readyz" if self.draining.load(Ordering::Acquire) => {
                whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n")
            }
            // Any key will do: what counts is that the store answers.
            "/readyz" => match self.desk.engine.get(KeyId::from_bytes([0; 16])).await {
                Ok(_) => whole(StatusCode::OK, PLAIN, "ready\n"),
                Err(_) => whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "no store\n"),
            },
            _ => match callers::find(&self.callers, request.headers(), peer) {
                Ok(caller) if caller.operator => {
                    whole(StatusCode::OK, PLAIN, self.telemetry.render())
                }
                Ok(_) => self.refusal(&Problem::new(ProblemKind::NotAllowed)),
                Err(problem) => self.refusal(&problem),
            },
        }
    }

    fn refusal(&self, problem: &Problem) -> Answer {
        self.telemetry.count("onlyonce_problems_total", problem.kind().name());
        let rendered = problem.render(&self.problem_base, None);
        let mut answer = Response::from_parts(rendered.head, Full::new(rendered.body));
        let headers = answer.headers_mut();
        if problem.kind() == ProblemKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if problem.kind() == ProblemKind::MethodNotAllowed {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        answer
    }
}

/// One request less is running when it is dropped, also if its caller goes away.
struct Running(Arc<Telemetry>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body without a type is taken for JSON; one with another is refused, as is a coded one.
fn media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || Err(Problem::new(ProblemKind::MediaTypeUnsupported));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refused();
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(JSON) { Ok(()) } else { refused() }
}

fn whole(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
