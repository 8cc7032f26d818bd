//! How long a claim is exclusive, for whoever sends something under it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{Either, select};
use onlyonce_core::{Policy, Receiver, Record, State, Timestamp};

use crate::clock::Moment;
use crate::inner::Inner;

/// Until when a claim is exclusive, as far as that is durable. It is renewed while the operation is
/// held; nothing may be sent under the claim that is not sent when it is over. One that was granted
/// because the receiver still remembers the key is over when it no longer may, renewed or not. One
/// whose claim is found to be lost is over at once.
///
/// It ends by this process's clock; others wait for `skew_max` longer. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
    /// In milliseconds, as a [`Timestamp`]. It only rises.
    until: Arc<AtomicU64>,
    /// The same as a [`Moment`], in case the time is set meanwhile: whichever comes first.
    ends: Arc<AtomicU64>,
    lost: Arc<Lost>,
    /// What is sent later may arrive when the receiver has forgotten the key, however often the
    /// lease is renewed.
    window: Timestamp,
}

/// Whether the claim is known to be somebody else's, or settled, and who waits for that.
#[derive(Default)]
struct Lost {
    is: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Lost {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock, so that whoever says it later finds this one waiting.
        if self.is.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Lease {
    pub(crate) fn new(inner: Arc<Inner>, policy: &Policy, record: &Record) -> Self {
        let window = window(policy, record);
        let (until, ends) = (Arc::default(), Arc::default());
        let lease = Self { inner, until, ends, lost: Arc::default(), window };
        lease.renewed(record);
        lease
    }

    /// Takes over the end that was made durable with `record`, which is our claim's.
    pub(crate) fn renewed(&self, record: &Record) {
        match &record.state {
            State::InFlight(flight) => {
                // The moment first: a pause between the two makes it end earlier.
                let moment = self.inner.moment();
                let left = flight.lease_until.since(self.inner.now());
                self.until.fetch_max(flight.lease_until.as_millis(), Ordering::AcqRel);
                self.ends.fetch_max(moment.plus(left).as_millis(), Ordering::AcqRel);
            }
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => {}
        }
    }

    /// The claim is not ours any more: nothing may be sent under it, whatever is left of its time.
    pub(crate) fn lose(&self) {
        let mut waiting = self.lost.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.lost.is.store(true, Ordering::Release);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether it is over because the claim is not ours any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is.load(Ordering::Acquire)
    }

    /// When the claim lapses, by the engine's clock, if it is not lost before.
    fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until.load(Ordering::Acquire))
    }

    /// When it ends, if it is not lost before.
    pub(crate) fn ends(&self) -> Moment {
        let left = self.until().since(self.inner.now());
        self.inner.moment().plus(left).min(Moment::from_millis(self.ends.load(Ordering::Acquire)))
    }

    /// Whether it has ended by itself, and not for the window of its receiver.
    pub(crate) fn has_lapsed(&self) -> bool {
        self.ends() <= self.inner.moment()
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        if self.is_lost() {
            return Duration::ZERO;
        }
        // Asked at each turn of what runs: each clock is read once.
        let by_time = self.until().min(self.window).since(self.inner.now());
        let ends = Moment::from_millis(self.ends.load(Ordering::Acquire));
        by_time.min(ends.since(self.inner.moment()))
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
            let lost = std::future::poll_fn(|context| self.lost.poll(context));
            select(self.inner.runtime.sleep(left), lost).await;
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

/// When the last of a run must be sent. Only one out of an unknown outcome, which the receiver
/// makes harmless for as long as it remembers the key, has such an end.
fn window(policy: &Policy, record: &Record) -> Timestamp {
    let is_again = match &record.state {
        State::InFlight(flight) => flight.inherited.is_some(),
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    };
    let Receiver { always, keyed, settle: _, late } = policy.receiver;
    match (always, keyed, record.first_commit_at) {
        (None, Some(window), Some(first)) if is_again => {
            first.plus(window).minus(late).minus(policy.skew_max)
        }
        (Some(_), _, _) | (None, _, _) => Timestamp::MAX,
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until()).finish_non_exhaustive()
    }
}
