//! The layer and its service: decides what a request is and answers it.

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts as Head;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use onlyonce::core::{Fingerprint, KeyId, Outcome, Phase};
use onlyonce::{Acted, Claimed, Engine, EngineError, Waited};
use onlyonce_http::headers::{strip_request, strip_response};
use onlyonce_http::{
    Bypass, IdempotencyStatus, Intake, Keys, Likeness, OnStoreError, Problem, ProblemKind,
    Protected, RoutePolicy, cors, intake,
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::body::{RequestBody, ResponseBody};
use crate::exchange::{Caller, Exchange, is_damaged};
use crate::gather::{Gathered, gather_while};
use crate::room::Room;
use crate::{probe, run};

/// Bodies from this size on are compared on a thread for blocking work, in bytes: reading JSON
/// of this size takes about as long as handing it over pays for.
const OFFLOAD_FROM: usize = 256 << 10;

/// The certificate of the client in DER, to be put into a request's extensions by a server that
/// has verified it. It then counts towards the caller's scope.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Bytes);

/// Makes services run each idempotency key once.
#[derive(Clone, Debug)]
pub struct OnceLayer {
    shared: Arc<Shared>,
}

/// What all requests of a layer have in common.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) keys: Arc<Keys>,
    pub(crate) policy: Arc<RoutePolicy>,
    pub(crate) tasks: TaskTracker,
    pub(crate) room: Room,
    /// Keys that the service is being asked about.
    pub(crate) asking: Mutex<HashSet<KeyId>>,
    /// Whether the service inside begins nothing by itself once its lease is over.
    pub(crate) keeps_lease: bool,
}

impl Shared {
    /// The same with nobody in it.
    fn anew(&self) -> Self {
        let Self { engine, keys, policy, tasks, room, asking: _, keeps_lease } = self;
        Self {
            engine: engine.clone(),
            keys: Arc::clone(keys),
            policy: Arc::clone(policy),
            tasks: tasks.clone(),
            room: room.clone(),
            asking: Mutex::default(),
            keeps_lease: *keeps_lease,
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl OnceLayer {
    /// A layer with one policy for all requests that pass through it. Several layers may share
    /// an engine; the policy is one that [`RoutePolicy::check`] has let pass.
    pub fn new(engine: Engine, keys: Arc<Keys>, policy: Arc<RoutePolicy>) -> Self {
        let (tasks, room, asking) = (TaskTracker::new(), Room::default(), Mutex::default());
        let keeps_lease = false;
        let shared = Shared { engine, keys, policy, tasks, room, asking, keeps_lease };
        Self { shared: Arc::new(shared) }
    }

    /// Runs operations on this tracker. A server that ends closes it and waits for it, so that
    /// operations finish and are recorded although their clients are gone.
    #[must_use]
    pub fn with_tasks(self, tasks: TaskTracker) -> Self {
        Self { shared: Arc::new(Shared { tasks, ..self.shared.anew() }) }
    }

    /// Holds the bodies of requests in this memory. Layers of one server share it.
    #[must_use]
    pub fn with_room(self, room: Room) -> Self {
        Self { shared: Arc::new(Shared { room, ..self.shared.anew() }) }
    }

    /// The service inside asks the [`Lease`](onlyonce::Lease) that it finds in the extensions of a
    /// request, and begins nothing under it once it is over. Then its answer is waited for
    /// however long it takes. Without this the service's future is dropped when the lease ends
    /// before it has begun to answer, which is only where the store cannot be reached to renew it,
    /// and the outcome is unknown.
    #[must_use]
    pub fn keeps_lease(self) -> Self {
        Self { shared: Arc::new(Shared { keeps_lease: true, ..self.shared.anew() }) }
    }

    /// Where operations run.
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }
}

impl<S> Layer<S> for OnceLayer {
    type Service = Once<S>;

    fn layer(&self, inner: S) -> Once<S> {
        Once { inner, shared: Arc::clone(&self.shared) }
    }
}

/// A service in which each idempotency key runs once.
#[derive(Clone, Debug)]
pub struct Once<S> {
    inner: S,
    shared: Arc<Shared>,
}

type Answering<R, E> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody<R>>, E>> + Send + 'static>>;

impl<S, B, R> Service<Request<B>> for Once<S>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    /// Only requests that are not protected can fail; all others are answered.
    type Error = S::Error;
    type Future = Answering<R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled ready is the one to be called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        let (mut head, body) = request.into_parts();
        strip_request(&mut head.headers);
        let certificate = head.extensions.get::<ClientCertificate>().cloned();
        let certificate = certificate.as_ref().map(|it| &*it.0);
        let now = shared.engine.now();
        match intake::read(&head, certificate, &shared.policy, &shared.keys, now) {
            Intake::Bypass(why) => Box::pin(pass(inner, head, body, why, shared)),
            Intake::Refuse { problem, key } => {
                let caller = Caller::new(shared, &head.headers, key);
                Box::pin(async move { Ok(caller.problem(&problem)) })
            }
            Intake::Protect(request) => {
                let caller = Caller::of(shared, &head.headers, &request);
                Box::pin(protect(inner, head, body, caller, request))
            }
        }
    }
}

/// A request that is none of our business.
async fn pass<S, B, R>(
    mut inner: S,
    head: Head,
    body: B,
    why: Bypass,
    shared: Arc<Shared>,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    // Only a preflight's answer depends on what its request said.
    let asked = if why == Bypass::Preflight { head.headers.clone() } else { HeaderMap::new() };
    let answer = inner.call(Request::from_parts(head, RequestBody::passed(body))).await?;
    let (mut head, body) = answer.into_parts();
    strip_response(&mut head.headers);
    match why {
        Bypass::Preflight => {
            let policy = &shared.policy;
            policy.cors.apply_preflight(&asked, &mut head.headers, &policy.key_names);
        }
        Bypass::Method | Bypass::NoKey => cors::expose(&mut head.headers),
    }
    Ok(Response::from_parts(head, ResponseBody::passed(body)))
}

/// A request with a key: reads it whole, claims, and runs it or says why not.
async fn protect<S, B, R>(
    inner: S,
    head: Head,
    body: B,
    caller: Caller,
    request: Protected,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let policy = Arc::clone(&caller.shared.policy);
    let room = caller.shared.room.clone();
    let (mut share, mut is_full) = (room.share(), false);
    let mut grow = |more| {
        is_full = !share.grow(more);
        !is_full
    };
    let (data, trailers) = match gather_while(pin!(body), policy.body_max, &mut grow).await {
        Gathered::Whole(whole) => (whole.joined(), whole.trailers),
        Gathered::Over(_) if is_full => return Ok(caller.problem(&intake::no_room(&policy))),
        Gathered::Over(_) => return Ok(caller.problem(&intake::body_too_large(&policy))),
        Gathered::Cut(..) => {
            return Ok(caller.problem(&Problem::new(ProblemKind::BodyIncomplete)));
        }
    };
    let asked = asked(&caller.shared, &head, &request, data.clone()).await;
    let exchange = Exchange { caller, request, asked, held: share.kept() };
    let body = RequestBody::whole(data, trailers);
    let (say, said) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    // Both on a task of its own: a client that goes away meanwhile cancels nothing.
    let request = Request::from_parts(head, body);
    // Boxed, since a future is copied whole each time that it is handed on.
    let running = Box::pin(claim_and_run(inner, request, exchange.clone(), (say, tell)));
    exchange.shared().tasks.spawn(running);
    match said.await {
        // Nothing is told if the task panicked; its ticket was abandoned on the way.
        Ok(Said::Granted) | Err(_) => Ok(told.await.unwrap_or_else(|_| exchange.lost())),
        Ok(Said::Refused(acted)) => Ok(attend(acted, &exchange).await),
        Ok(Said::Away(error, inner, request)) => {
            if exchange.asked.runs_anyway && !is_damaged(&error) {
                tracing::warn!(key = %exchange.asked.id, %error, "passed on without protection");
                return pass_unprotected(inner, request, &exchange).await;
            }
            Ok(exchange.refused(&error))
        }
    }
}

/// What a claim has come to.
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
enum Said<S, B> {
    /// It runs.
    Granted,
    /// It does not; this is why.
    Refused(Acted),
    /// The store could not say. The request comes back.
    Away(EngineError, S, Request<RequestBody<B>>),
}

/// Claims, and runs what is granted to its end.
async fn claim_and_run<S, B, R>(
    inner: S,
    request: Request<RequestBody<B>>,
    exchange: Exchange,
    (say, tell): (oneshot::Sender<Said<S, B>>, run::Tell<R>),
) where
    B: Body<Data = Bytes> + Send + 'static,
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let mut claimed = ask(&exchange).await;
    if let Ok(Claimed::Refused(acted)) = &claimed
        && probe::is_wanted(&exchange, acted)
        && probe::settled(inner.clone(), &head, &exchange, acted).await
    {
        claimed = ask(&exchange).await;
    }
    let request = Request::from_parts(head, body);
    // Whoever asked may be gone.
    let _ = match claimed {
        Ok(Claimed::Granted(ticket)) => {
            let _ = say.send(Said::Granted);
            return run::run(inner, request, ticket, exchange, tell).await;
        }
        Ok(Claimed::Refused(acted)) => say.send(Said::Refused(acted)),
        Err(error) => say.send(Said::Away(error, inner, request)),
    };
}

/// What the engine is asked about a request.
async fn asked(
    shared: &Shared,
    head: &Head,
    request: &Protected,
    data: Bytes,
) -> onlyonce::Request {
    let length = data.len();
    let likeness = Likeness::new(head, data, &shared.policy.fingerprint, request.first_sent);
    let keys = Arc::clone(&shared.keys);
    let fingerprint = fingerprint(likeness.clone(), Arc::clone(&keys), length).await;
    let older = move |version| likeness.fingerprint_of_version(version, &keys);
    onlyonce::Request {
        id: request.key_id,
        fingerprint,
        refingerprint: Some(Arc::new(older)),
        key_time: request.key_time,
        credential: request.credential,
        runs_anyway: shared.policy.on_store_error == OnStoreError::Open && !request.replay_only,
    }
}

async fn fingerprint(likeness: Likeness, keys: Arc<Keys>, length: usize) -> Fingerprint {
    if length < OFFLOAD_FROM {
        return likeness.fingerprint(&keys);
    }
    let again = (likeness.clone(), Arc::clone(&keys));
    let work = tokio::task::spawn_blocking(move || likeness.fingerprint(&keys));
    // It fails only while the runtime shuts down.
    work.await.unwrap_or_else(|_| again.0.fingerprint(&again.1))
}

/// Claims, or only looks if the request must not run.
async fn ask(exchange: &Exchange) -> Result<Claimed, EngineError> {
    let (engine, policy) = (&exchange.shared().engine, &exchange.shared().policy.record);
    if exchange.request.replay_only {
        return engine.look(&exchange.asked, policy).await.map(Claimed::Refused);
    }
    engine.claim(&exchange.asked, policy, Phase::Committing).await
}

/// The answer to a request that was refused the claim: it may have to wait for another's.
async fn attend<R>(acted: Acted, exchange: &Exchange) -> Response<ResponseBody<R>> {
    if !acted.is_running() {
        return exchange.answer(&acted);
    }
    let Shared { engine, policy, .. } = exchange.shared();
    match engine.wait(&exchange.asked, &policy.record, policy.wait).await {
        Ok(Waited::Ended { acted, shared: Some(reply) })
            if acted.outcome == Outcome::Absent && !exchange.request.replay_only =>
        {
            exchange.share(&reply, &acted)
        }
        Ok(Waited::Ended { acted, .. } | Waited::StillRunning(acted)) => exchange.answer(&acted),
        Err(error) => exchange.refused(&error),
    }
}

/// For routes that would rather run an operation twice than refuse it.
async fn pass_unprotected<S, B, R>(
    mut inner: S,
    request: Request<RequestBody<B>>,
    exchange: &Exchange,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    let (mut head, body) = inner.call(request).await?.into_parts();
    exchange.mark(&mut head, IdempotencyStatus::Unprotected, None);
    Ok(Response::from_parts(head, ResponseBody::passed(body)))
}
