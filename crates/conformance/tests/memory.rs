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
