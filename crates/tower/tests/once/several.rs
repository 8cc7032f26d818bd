//! Several instances of a service that share one store.

use std::sync::Arc;
use std::time::Duration;

use onlyonce::core::{ClaimId, Holder, Secret, Timestamp};
use onlyonce::store::BoxFuture;
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
}

/// As many instances as there are clocks, each ahead of the true time by so much.
pub(crate) async fn several(clocks: &[Duration], shop: Shop, policy: RoutePolicy) -> Several {
    let store = Arc::new(Slow::shared());
    let policy = Arc::new(policy.check().unwrap());
    let (mut doors, mut engines) = (Vec::new(), Vec::new());
    for ahead in clocks {
        let runtime = Arc::new(Ahead { inner: TokioRuntime::new(), by: *ahead });
        let settings = Settings::default();
        let engine = Engine::start(store.clone(), runtime, settings, None).await.unwrap();
        let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
        let layer = OnceLayer::new(engine.clone(), keys, Arc::clone(&policy));
        doors.push(layer.layer(shop.clone()));
        engines.push(engine);
    }
    Several { doors, engines, store, shop }
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
