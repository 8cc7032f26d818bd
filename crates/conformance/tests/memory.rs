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
    use onlyonce_store::{MemoryStore, Store};

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
        fn is_exclusive(&self) -> bool {
            false
        }

        onlyonce_conformance::hands_on!(
            0: get, swap, floor, raise_floor, revision_max, due, list, notices, reply_max
        );
    }

    onlyonce_conformance::notice_suite!(Memory);
}
