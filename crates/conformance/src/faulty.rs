//! A store whose calls can be lost on their way there or on their way back, or take long.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::pending;
use onlyonce_core::{KeyId, Record, Revision};
use onlyonce_store::{BoxFuture, Store, StoreError, StoreErrorKind, Swap};

/// What happens to one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It never reaches the store, and the caller is told so.
    Refused,
    /// It never reaches the store, and the caller cannot know.
    LostThere,
    /// It takes place, and the caller cannot know.
    LostBack,
    /// It takes place, and no answer ever comes.
    Silent,
}

/// A store with faults in front of it. Swaps and reads meet them in the order they are planned.
#[derive(Debug, Default)]
pub struct FaultyStore<S> {
    inner: S,
    swaps: Mutex<VecDeque<Fault>>,
    reads: Mutex<VecDeque<Fault>>,
}

impl<S> FaultyStore<S> {
    /// Nothing is planned yet, and nothing happens.
    pub fn new(inner: S) -> Self {
        Self { inner, swaps: Mutex::default(), reads: Mutex::default() }
    }

    /// The store behind the faults.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// The next swaps meet these.
    pub fn plan_swaps(&self, faults: impl IntoIterator<Item = Fault>) {
        self.swaps.lock().unwrap().extend(faults);
    }

    /// The next reads of single records meet these.
    pub fn plan_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.reads.lock().unwrap().extend(faults);
    }

    fn next(plan: &Mutex<VecDeque<Fault>>) -> Fault {
        plan.lock().unwrap().pop_front().unwrap_or_default()
    }
}

async fn through<T>(
    fault: Fault,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let error = |kind, text| Err(StoreError::new(kind, text));
    match fault {
        Fault::None => call.await,
        Fault::Refused => error(StoreErrorKind::NotApplied, "refused on purpose"),
        Fault::LostThere => error(StoreErrorKind::Unknown, "lost on its way there"),
        Fault::LostBack => {
            call.await?;
            error(StoreErrorKind::Unknown, "lost on its way back")
        }
        Fault::Silent => {
            call.await?;
            pending().await
        }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { through(Self::next(&self.reads), self.inner.get(id)).await })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            through(Self::next(&self.swaps), self.inner.swap(id, expected, next)).await
        })
    }

    crate::hands_on!(
        inner: floor, clock, raise_floor, revision_max, due, reclaim, list, notices, reply_max,
            is_exclusive
    );
}
