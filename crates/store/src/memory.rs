//! The store in memory: the reference model of the contract, and the store of tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onlyonce_core::{Floor, KeyId, Record, Revision, StateKind, limits};

use crate::error::StoreError;
use crate::notice::Teller;
use crate::store::{BoxFuture, Cursor, Due, Filter, Page, Store, Swap};

/// Keeps records in a map. It survives nothing: what it promises about crashes is void.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<KeyId, Record>,
    floor: Floor,
    revision_max: u64,
    tellers: Vec<Teller>,
}

impl MemoryStore {
    /// An empty store without a floor, as of a very first deployment.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every critical section below is a single step, so a panic cannot leave it by half.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn swap(&mut self, id: KeyId, expected: Option<Revision>, next: Option<Record>) -> Swap {
        let found = self.records.get(&id);
        if found.map(|record| record.revision) != expected {
            return Swap::Conflict(found.cloned());
        }
        match next {
            Some(next) => {
                assert!(expected < Some(next.revision), "a write must raise the revision");
                self.revision_max = self.revision_max.max(next.revision.get());
                self.records.insert(id, next);
            }
            None => {
                self.records.remove(&id);
            }
        }
        Swap::Done
    }

    /// Tells those who wait for a key on which nobody is at work any more.
    fn tell(&mut self, id: KeyId) {
        let found = self.records.get(&id).map(|record| record.state.kind());
        if found != Some(StateKind::InFlight) {
            self.tellers.retain(|teller| !teller.is_over());
            self.tellers.iter().for_each(|teller| teller.tell(id));
        }
    }

    fn list(&self, filter: &Filter, after: Option<&Cursor>) -> Page {
        let limit = if filter.limit == 0 { 1000 } else { filter.limit };
        let start = after
            .and_then(|cursor| <[u8; 16]>::try_from(cursor.0.as_slice()).ok())
            .map_or(Bound::Unbounded, |bytes| Bound::Excluded(KeyId::from_bytes(bytes)));
        let mut matching = self
            .records
            .range((start, Bound::Unbounded))
            .filter(|(_, record)| filter.state.is_none_or(|kind| kind == record.state.kind()));
        let records: Vec<_> =
            matching.by_ref().take(limit).map(|(id, record)| (*id, record.clone())).collect();
        let more = matching.next().is_some();
        let next = records.last().filter(|_| more).map(|(id, _)| Cursor(id.as_bytes().to_vec()));
        Page { records, damaged: Vec::new(), next }
    }
}

impl Store for MemoryStore {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { Ok(self.inner().records.get(&id).cloned()) })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            let mut inner = self.inner();
            let swap = inner.swap(id, expected, next);
            inner.tell(id);
            Ok(swap)
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async move { Ok(self.inner().floor) })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut inner = self.inner();
            inner.floor = inner.floor.max(to);
            Ok(())
        })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(self.inner().revision_max) })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(async move {
            let inner = self.inner();
            let due = inner.records.iter().filter(|(_, record)| due.names(record));
            Ok(due.take(limit).map(|(id, _)| *id).collect())
        })
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { Ok(self.inner().list(&filter, after.as_ref())) })
    }

    fn notices(&self, teller: Teller) {
        teller.flows();
        self.inner().tellers.push(teller);
    }

    fn reply_max(&self) -> usize {
        limits::REPLY_BYTES_MAX
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}
