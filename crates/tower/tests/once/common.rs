//! A service that counts its effects, a store that can be held up or fail, and callers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use onlyonce::core::{KeyId, Record, Revision, Secret, State};
use onlyonce::store::{BoxFuture, MemoryStore, Store, StoreError, StoreErrorKind, Swap};
use onlyonce::{Engine, Settings};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::{BoxError, Once, OnceLayer, RequestBody, ResponseBody};
use tokio::sync::{Barrier, Notify, Semaphore, mpsc};
use tower::{Layer, Service, ServiceExt};

/// A body sent frame by frame by the test; dropping the sender without `end` cuts it.
pub(crate) struct Script {
    frames: mpsc::UnboundedReceiver<Option<Frame<Bytes>>>,
}

pub(crate) type Frames = mpsc::UnboundedSender<Option<Frame<Bytes>>>;

/// A scripted body and its other end; `None` ends it.
pub(crate) fn script() -> (Frames, AnyBody) {
    let (frames, script) = mpsc::unbounded_channel();
    (frames, AnyBody::Script(Script { frames: script }))
}

pub(crate) fn data(text: &'static str) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// What the service answers with.
pub(crate) enum AnyBody {
    Full(Full<Bytes>),
    Script(Script),
}

impl From<&'static str> for AnyBody {
    fn from(text: &'static str) -> Self {
        Self::Full(Full::from(text))
    }
}

impl From<String> for AnyBody {
    fn from(text: String) -> Self {
        Self::Full(Full::from(text))
    }
}

impl Body for AnyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full).poll_frame(context).map_err(Into::into),
            Self::Script(script) => script.frames.poll_recv(context).map(|got| match got {
                Some(Some(frame)) => Some(Ok(frame)),
                Some(None) => None,
                None => Some(Err("cut".into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Script(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Script(_) => http_body::SizeHint::default(),
        }
    }
}

/// What a swap that ends a claim meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ends {
    #[default]
    Kept,
    /// It waits for [`Slow::gate`].
    Held,
    /// It fails without having happened.
    Lost,
    /// It never takes place, and no answer ever comes.
    Hung,
    /// Not it, but whoever takes a key over from another attempt waits for [`Slow::gate`].
    TakeOversHeld,
    /// Not it, but claims wait for [`Slow::gate`].
    ClaimsHeld,
}

/// A store in memory whose claims or ends can be made to fail or to wait.
#[derive(Default)]
pub(crate) struct Slow {
    inner: MemoryStore,
    is_shared: bool,
    pub(crate) ends: Mutex<Ends>,
    /// What the next swaps that end a claim meet, before `ends` counts again.
    pub(crate) next_ends: Mutex<VecDeque<Ends>>,
    pub(crate) is_down: Mutex<bool>,
    /// What it has cannot be read.
    pub(crate) is_damaged: Mutex<bool>,
    pub(crate) gate: Notify,
    /// Claims of an absent key go on together, once as many have come as it waits for.
    pub(crate) rush: Mutex<Option<Arc<Barrier>>>,
    swaps: AtomicU32,
    held: AtomicU32,
}

impl Slow {
    /// One that several processes may use.
    pub(crate) fn shared() -> Self {
        Self { is_shared: true, ..Self::default() }
    }

    /// How many swaps it was asked for.
    pub(crate) fn swaps(&self) -> u32 {
        self.swaps.load(Ordering::SeqCst)
    }

    /// How many take-overs have waited.
    pub(crate) fn held(&self) -> u32 {
        self.held.load(Ordering::SeqCst)
    }

    fn down(&self) -> Result<(), StoreError> {
        if *self.is_damaged.lock().unwrap() {
            return Err(StoreError::new(StoreErrorKind::Damaged, "damaged"));
        }
        let down = *self.is_down.lock().unwrap();
        if down { Err(StoreError::new(StoreErrorKind::NotApplied, "down")) } else { Ok(()) }
    }
}

impl Store for Slow {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.down()?;
            self.inner.get(id).await
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            self.down()?;
            self.swaps.fetch_add(1, Ordering::SeqCst);
            let is_claim = next.as_ref().is_some_and(|it| matches!(it.state, State::InFlight(_)));
            let attempt = next.as_ref().map_or(0, |it| it.attempt);
            let rush = self.rush.lock().unwrap().clone().filter(|_| expected.is_none());
            if let Some(rush) = rush {
                rush.wait().await;
            }
            let next_end = if is_claim { None } else { self.next_ends.lock().unwrap().pop_front() };
            let ends = next_end.unwrap_or(*self.ends.lock().unwrap());
            match ends {
                Ends::Held if !is_claim => self.gate.notified().await,
                Ends::TakeOversHeld | Ends::ClaimsHeld
                    if is_claim && (1 < attempt || ends == Ends::ClaimsHeld) =>
                {
                    self.held.fetch_add(1, Ordering::SeqCst);
                    self.gate.notified().await;
                }
                Ends::Lost if !is_claim => {
                    return Err(StoreError::new(StoreErrorKind::NotApplied, "lost"));
                }
                Ends::Hung if !is_claim => std::future::pending().await,
                Ends::Kept
                | Ends::Held
                | Ends::Lost
                | Ends::Hung
                | Ends::TakeOversHeld
                | Ends::ClaimsHeld => {}
            }
            self.inner.swap(id, expected, next).await
        })
    }

    fn is_exclusive(&self) -> bool {
        !self.is_shared
    }

    onlyonce_conformance::hands_on!(
        inner: floor, raise_floor, revision_max, due, reclaim, list, reply_max
    );
}

/// How the service answers one run.
pub(crate) type Reaction = Result<Response<AnyBody>, BoxError>;

/// The service behind the middleware: it counts what it runs.
#[derive(Clone, Default)]
pub(crate) struct Shop {
    inner: Arc<Inner>,
}

struct Inner {
    runs: AtomicU32,
    seen: Mutex<Vec<(HeaderMap, Bytes)>>,
    reactions: Mutex<VecDeque<Reaction>>,
    /// A run waits for one of these.
    permits: Semaphore,
    started: Notify,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            runs: AtomicU32::new(0),
            seen: Mutex::default(),
            reactions: Mutex::default(),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            started: Notify::new(),
        }
    }
}

impl Shop {
    /// One whose runs wait until [`Shop::go_on`].
    pub(crate) fn held() -> Self {
        let inner = Inner { permits: Semaphore::new(0), ..Inner::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Lets one run end.
    pub(crate) fn go_on(&self) {
        self.inner.permits.add_permits(1);
    }

    /// Until a run has begun.
    pub(crate) async fn started(&self) {
        self.inner.started.notified().await;
    }

    /// The next run is answered so; without this, with 201 and the number of the run.
    pub(crate) fn answers(self, reaction: Reaction) -> Self {
        self.inner.reactions.lock().unwrap().push_back(reaction);
        self
    }

    pub(crate) fn runs(&self) -> u32 {
        self.inner.runs.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<(HeaderMap, Bytes)> {
        self.inner.seen.lock().unwrap().clone()
    }
}

impl<B> Service<Request<RequestBody<B>>> for Shop
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reaction> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<B>>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            assert_ne!(body, "panic", "the handler panics on purpose");
            let number = inner.runs.fetch_add(1, Ordering::SeqCst) + 1;
            inner.seen.lock().unwrap().push((head.headers, body));
            inner.started.notify_one();
            inner.permits.acquire().await?.forget();
            let next = inner.reactions.lock().unwrap().pop_front();
            next.unwrap_or_else(|| {
                let answer = Response::builder().status(201).header("x-shop", "yes");
                Ok(answer.body(format!("order {number}").into())?)
            })
        })
    }
}

pub(crate) type Door = Once<Shop>;

/// The middleware before a shop.
pub(crate) struct Set {
    pub(crate) door: Door,
    pub(crate) layer: OnceLayer,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Slow>,
    pub(crate) shop: Shop,
}

pub(crate) async fn set(shop: Shop, policy: RoutePolicy) -> Set {
    let (store, runtime) = (Arc::new(Slow::default()), Arc::new(TokioRuntime::new()));
    let engine = Engine::start(store.clone(), runtime, Settings::default(), None).await.unwrap();
    let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
    let layer = OnceLayer::new(engine.clone(), keys, Arc::new(policy.check().unwrap()));
    Set { door: layer.layer(shop.clone()), layer, engine, store, shop }
}

/// A keyed POST.
pub(crate) fn post(key: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/orders?x=1")
        .header("idempotency-key", key)
        .header("content-type", "text/plain")
        .body(Full::from(body))
        .unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `Err` holds what came before it broke off.
    pub(crate) body: Result<Bytes, Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Told {
    pub(crate) fn says(&self) -> &str {
        self.headers.get("idempotency-status").map_or("", |it| it.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    /// The end of a problem's type.
    pub(crate) fn problem(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(self.text()).unwrap();
        body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.contains_key("idempotent-replayed")
    }
}

pub(crate) async fn read<R>(answer: Response<ResponseBody<R>>) -> Told
where
    R: Body<Data = Bytes> + Send,
    R::Error: Into<BoxError>,
{
    let (head, body) = answer.into_parts();
    let mut body = Box::pin(body);
    let (mut data, mut trailers) = (Vec::new(), None);
    let body = loop {
        match body.frame().await {
            None => break Ok(data.into()),
            Some(Err(_)) => break Err(data.into()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(more) => data.extend_from_slice(&more),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    };
    let status = head.status.as_u16();
    Told { status, headers: head.headers, body, trailers }
}

pub(crate) async fn send(door: &Door, request: Request<Full<Bytes>>) -> Told {
    read(door.clone().oneshot(request).await.unwrap()).await
}

pub(crate) fn answer(status: u16, body: impl Into<AnyBody>) -> Reaction {
    Ok(Response::builder().status(StatusCode::from_u16(status)?).body(body.into())?)
}

/// Until `holds`, at most for a minute: what happens on other tasks has no other sign.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..60_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it has not come to hold");
}

/// Keeps `Infallible` services and this crate's error apart in signatures.
pub(crate) type Never = Infallible;
