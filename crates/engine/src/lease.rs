//! How long a claim is exclusive, for whoever sends something under it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use onlyonce_core::{Record, State, Timestamp};

use crate::engine::Inner;

/// Until when a claim is exclusive, as far as that is durable. It is renewed while the operation is
/// held; nothing may be sent under the claim that is not sent when it is over.
///
/// It ends by this process's clock; others wait for `skew_max` longer. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
    /// In milliseconds, as a [`Timestamp`]. It only rises.
    until: Arc<AtomicU64>,
}

impl Lease {
    pub(crate) fn new(inner: Arc<Inner>, record: &Record) -> Self {
        let lease = Self { inner, until: Arc::default() };
        lease.renewed(record);
        lease
    }

    /// Takes over the end that was made durable with `record`, which is our claim's.
    pub(crate) fn renewed(&self, record: &Record) {
        match &record.state {
            State::InFlight(flight) => {
                self.until.fetch_max(flight.lease_until.as_millis(), Ordering::AcqRel);
            }
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => {}
        }
    }

    /// When it ends, by the engine's clock.
    pub(crate) fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until.load(Ordering::Acquire))
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        self.until().since(self.inner.now())
    }

    /// Whether it is over: nothing more may be sent.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Completes once it is over, however often it is renewed until then.
    pub async fn over(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            self.inner.runtime.sleep(left).await;
        }
    }

    /// Runs `operation` for as long as it lasts, and then drops it; `None` if it had not ended.
    pub(crate) async fn bounds<F: Future>(&self, operation: F) -> Option<F::Output> {
        let mut operation = std::pin::pin!(operation);
        // Asked before each turn, and not only by a timer: a process that was stopped goes on
        // with whatever wakes first.
        let turn = std::future::poll_fn(|context| match self.is_over() {
            true => std::task::Poll::Ready(None),
            false => operation.as_mut().poll(context).map(Some),
        });
        match select(turn, std::pin::pin!(self.over())).await {
            Either::Left((output, _)) => output,
            Either::Right(((), _)) => None,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until()).finish_non_exhaustive()
    }
}
