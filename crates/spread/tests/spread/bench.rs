//! What the tests of sets share.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use onlyonce_conformance::block_on;
use onlyonce_core::{Fence, Floor, KeyId, Record, Revision, Timestamp};
use onlyonce_spread::{Map, Number, Seat, Steady};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, Swap};

/// The map in this text.
pub(crate) fn map(text: &str) -> Map {
    Map::parse(text).unwrap()
}

/// A clock that stands at so many seconds.
pub(crate) fn steady(seconds: u64) -> Steady {
    Arc::new(move || Duration::from_secs(seconds))
}

/// The record of a seat under this map.
pub(crate) fn seated(own: Number, map: &Map) -> Record {
    let store = MemoryStore::new();
    let set = Fence::new(7);
    block_on(Seat::take(&store, own, map, set, Timestamp::from_millis(10))).unwrap().unwrap();
    block_on(store.get(MARK)).unwrap().unwrap()
}

/// A store that keeps its seat beside its records: the suite's new stores have no record at all,
/// and a member has one.
pub(crate) struct Beside<S> {
    inner: S,
    seat: Mutex<Record>,
}

impl<S> Beside<S> {
    pub(crate) fn new(inner: S, seat: Record) -> Self {
        Self { inner, seat: Mutex::new(seat) }
    }
}

impl<S: Store> Store for Beside<S> {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        if id == MARK {
            let seat = self.seat.lock().unwrap().clone();
            return Box::pin(async { Ok(Some(seat)) });
        }
        self.inner.get(id)
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        assert_ne!(id, MARK);
        self.inner.swap(id, expected, next)
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.inner.floor()
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.raise_floor(to)
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.inner.clock()
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision_max()
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.inner.due(due, limit)
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.reclaim()
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
        self.inner.is_exclusive()
    }
}
