//! The store in memory passes, and the cases have teeth.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use onlyonce_conformance::StoreBuilder;
use onlyonce_store::MemoryStore;

struct Memory;

impl StoreBuilder for Memory {
    type Store = MemoryStore;

    fn fresh(&self) -> MemoryStore {
        MemoryStore::new()
    }

    fn after_crash(&self, _store: MemoryStore) -> MemoryStore {
        MemoryStore::new()
    }
}

onlyonce_conformance::conformance_suite!(Memory);

/// The same, used by several processes at once.
mod shared {
    use std::sync::Arc;

    use onlyonce_conformance::{StoreBuilder, Tells};
    use onlyonce_core::{Floor, KeyId, Record, Revision};
    use onlyonce_store::{
        BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, Swap, Teller,
    };

    struct Memory;

    struct Shared(Arc<MemoryStore>);

    impl StoreBuilder for Memory {
        type Store = Shared;

        fn fresh(&self) -> Shared {
            Shared(Arc::default())
        }

        fn after_crash(&self, store: Shared) -> Shared {
            store
        }
    }

    impl Tells for Memory {
        fn beside(&self, store: &Shared) -> Shared {
            Shared(Arc::clone(&store.0))
        }
    }

    impl Store for Shared {
        fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
            self.0.get(id)
        }

        fn swap(
            &self,
            id: KeyId,
            expected: Option<Revision>,
            next: Option<Record>,
        ) -> BoxFuture<'_, Result<Swap, StoreError>> {
            self.0.swap(id, expected, next)
        }

        fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
            self.0.floor()
        }

        fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
            self.0.raise_floor(to)
        }

        fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
            self.0.revision_max()
        }

        fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
            self.0.due(due, limit)
        }

        fn list(
            &self,
            filter: Filter,
            after: Option<Cursor>,
        ) -> BoxFuture<'_, Result<Page, StoreError>> {
            self.0.list(filter, after)
        }

        fn notices(&self, teller: Teller) {
            self.0.notices(teller);
        }

        fn reply_max(&self) -> usize {
            self.0.reply_max()
        }

        fn is_exclusive(&self) -> bool {
            false
        }
    }

    onlyonce_conformance::notice_suite!(Memory);
}
