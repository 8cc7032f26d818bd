//! Encrypted or not, a store keeps its promises.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use onlyonce_conformance::StoreBuilder;
use onlyonce_store::MemoryStore;
use onlyonce_vault::{Encrypted, Keyring};

struct Memory;

impl StoreBuilder for Memory {
    type Store = Encrypted<MemoryStore>;

    fn fresh(&self) -> Self::Store {
        Encrypted::new(MemoryStore::new(), Keyring::parse(&"7".repeat(64)).unwrap())
    }

    fn after_crash(&self, _store: Self::Store) -> Self::Store {
        self.fresh()
    }
}

onlyonce_conformance::conformance_suite!(Memory);
