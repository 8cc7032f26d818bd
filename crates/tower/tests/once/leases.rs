//! Leases that end because the store cannot be reached: the service inside begins nothing more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use onlyonce::Lease;
use onlyonce_http::RoutePolicy;
use onlyonce_tower::{BoxError, RequestBody};
use tower_layer::Layer as _;
use tower_service::Service;

use crate::common::{AnyBody, Reaction, Shop, post, read, send, set};

/// Charges twice, with a long time between.
#[derive(Clone, Default)]
struct TwoParts {
    charges: Arc<AtomicU32>,
    /// Whether it asks its lease before the second.
    asks: bool,
}

impl Service<Request<RequestBody<Full<bytes::Bytes>>>> for TwoParts {
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Reaction> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Full<bytes::Bytes>>>) -> Self::Future {
        let Self { charges, asks } = self.clone();
        let lease = request.extensions().get::<Lease>().cloned();
        Box::pin(async move {
            charges.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(45)).await;
            if asks && lease.is_none_or(|lease| lease.is_over()) {
                return Ok(Response::builder().status(202).body("one of two".into())?);
            }
            charges.fetch_add(1, Ordering::SeqCst);
            Ok(Response::builder().status(201).body("both".into())?)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_service_would_begin_after_its_lease_it_does_not() {
    for (is_away, asks, status, charges) in
        [(true, false, 504, 1), (true, true, 202, 1), (false, false, 201, 2), (false, true, 201, 2)]
    {
        let set = set(Shop::default(), RoutePolicy::default()).await;
        let layer = if asks { set.layer.clone().keeps_lease() } else { set.layer.clone() };
        let parts = TwoParts { asks, ..TwoParts::default() };
        let mut door = layer.layer(parts.clone());
        let asked = tokio::spawn(door.call(post("tap", "seat")));
        tokio::time::sleep(Duration::from_secs(1)).await;
        *set.store.is_down.lock().unwrap() = is_away;
        let told = read(asked.await.unwrap().unwrap()).await;
        assert_eq!(told.status, status, "{told:?}");
        match (is_away, asks) {
            (true, false) => assert_eq!(told.problem(), "outcome-unknown"),
            // It is what happened, and nobody could write it down.
            (true, true) => assert_eq!((told.text(), told.says()), ("one of two", "unrecorded")),
            (false, _) => assert_eq!((told.text(), told.says()), ("both", "executed")),
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(parts.charges.load(Ordering::SeqCst), charges);
        *set.store.is_down.lock().unwrap() = false;
        if is_away {
            assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
        }
    }
}
