//! Several instances of a service that share one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onlyonce::core::{ClaimId, Floor, Holder, KeyId, Record, Revision, Secret, Timestamp};
use onlyonce::store::{BoxFuture, Cursor, Due, Filter, Page, Store, StoreError, Swap};
use onlyonce::{Engine, Runtime, Settings};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::OnceLayer;
use tower::Layer;

use crate::common::{Door, Shop, Slow};

/// Instances before one shop.
pub(crate) struct Several {
    pub(crate) doors: Vec<Door>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) store: Arc<Slow>,
    pub(crate) shop: Shop,
    lines: Vec<Arc<Line>>,
}

impl Several {
    /// Ends an instance as a kill does: it says nothing more, and what it was at work on stays.
    pub(crate) fn kill(&self, at: usize) {
        self.lines[at].is_dead.store(true, Ordering::SeqCst);
    }

    /// The only record there is.
    pub(crate) async fn record(&self) -> (KeyId, Record) {
        let page = self.store.list(Filter::default(), None).await.unwrap();
        let [record] = <[_; 1]>::try_from(page.records).unwrap();
        record
    }
}

/// As many instances as there are clocks, each ahead of the true time by so much.
pub(crate) async fn several(clocks: &[Duration], shop: Shop, policy: RoutePolicy) -> Several {
    let store = Arc::new(Slow::shared());
    let policy = Arc::new(policy.check().unwrap());
    let (mut doors, mut engines, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for ahead in clocks {
        let runtime = Arc::new(Ahead { inner: TokioRuntime::new(), by: *ahead });
        let settings = Settings::default();
        let line = Arc::new(Line { store: Arc::clone(&store), is_dead: AtomicBool::new(false) });
        let engine = Engine::start(line.clone(), runtime, settings, None).await.unwrap();
        let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
        let layer = OnceLayer::new(engine.clone(), keys, Arc::clone(&policy));
        doors.push(layer.layer(shop.clone()));
        engines.push(engine);
        lines.push(line);
    }
    Several { doors, engines, store, shop, lines }
}

/// Two instances with true clocks.
pub(crate) async fn two(shop: Shop, policy: RoutePolicy) -> Several {
    several(&[Duration::ZERO; 2], shop, policy).await
}

/// A runtime whose clock is ahead.
struct Ahead {
    inner: TokioRuntime,
    by: Duration,
}

impl Runtime for Ahead {
    fn now(&self) -> Timestamp {
        self.inner.now().plus(self.by)
    }

    fn steady(&self) -> Duration {
        self.inner.steady()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }

    fn claim_id(&self) -> ClaimId {
        self.inner.claim_id()
    }

    fn holder(&self) -> Holder {
        self.inner.holder()
    }
}

/// An instance's line to the store. To all others a killed instance is one on whose line nothing
/// arrives any more.
struct Line {
    store: Arc<Slow>,
    is_dead: AtomicBool,
}

impl Line {
    fn call<'a, T: Send + 'a>(&'a self, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        Box::pin(async move {
            if self.is_dead.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            call.await
        })
    }
}

impl Store for Line {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.call(self.store.get(id))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        self.call(self.store.swap(id, expected, next))
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.call(self.store.floor())
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(self.store.raise_floor(to))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.call(self.store.revision_max())
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.call(self.store.due(due, limit))
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(self.store.reclaim())
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.call(self.store.list(filter, after))
    }

    fn reply_max(&self) -> usize {
        self.store.reply_max()
    }

    fn is_exclusive(&self) -> bool {
        self.store.is_exclusive()
    }
}
