//! Encrypted or not, a store keeps its promises.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::Arc;

use onlyonce_conformance::StoreBuilder;
use onlyonce_store::MemoryStore;
use onlyonce_vault::{Encrypted, Keyring};

struct Memory;

impl StoreBuilder for Memory {
    type Store = Encrypted;

    fn fresh(&self) -> Self::Store {
        let keys = Keyring::parse(&"7".repeat(64)).unwrap();
        Encrypted::new(Arc::new(MemoryStore::new()), keys)
    }

    fn after_crash(&self, _store: Self::Store) -> Self::Store {
        self.fresh()
    }
}

onlyonce_conformance::conformance_suite!(Memory);
