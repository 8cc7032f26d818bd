//! A member that takes one call a step, so that a schedule can put any other call before it.

use std::fmt::Debug;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use onlyonce_core::{Floor, KeyId, Record, Revision};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, Swap};

/// Whose turn it is, and what each task was told so far.
#[derive(Default)]
pub(crate) struct Told {
    /// Whether calls do not wait for their turn any more.
    pub(crate) is_over: AtomicBool,
    pub(crate) turn: AtomicUsize,
    pub(crate) tasks: Mutex<[u64; 3]>,
}

impl Told {
    fn note(&self, what: &impl Debug) {
        let mut tasks = self.tasks.lock().unwrap();
        let told = &mut tasks[self.turn.load(Ordering::Relaxed)];
        *told = digest(&(*told, format!("{what:?}")));
    }
}

pub(crate) fn digest(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A member. The map is read without a step: by when it is read nothing is decided.
pub(crate) struct Gated {
    pub(crate) inner: Arc<MemoryStore>,
    pub(crate) told: Arc<Told>,
}

impl Gated {
    async fn turn(&self, id: KeyId) {
        let mut waited = id == MARK || self.told.is_over.load(Ordering::Relaxed);
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl Store for Gated {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.turn(id).await;
            let found = self.inner.get(id).await;
            self.told.note(&found);
            found
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            self.turn(id).await;
            let swap = self.inner.swap(id, expected, next).await;
            self.told.note(&swap);
            swap
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.inner.floor()
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.raise_floor(to)
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision_max()
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.inner.due(due, limit)
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.inner.list(filter, after)
    }

    fn reply_max(&self) -> usize {
        self.inner.reply_max()
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
