//! Two SQLite files as one store keep what every store promises.

use std::sync::{Arc, Mutex};

use crate::bench::{Beside, map, seated, steady};
use onlyonce_conformance::{StoreBuilder, block_on};
use onlyonce_core::{Floor, Secret};
use onlyonce_spread::{Given, Spread};
use onlyonce_sqlite::Sqlite;
use tempfile::TempDir;

/// Folders live as long as the builder.
#[derive(Default)]
struct Files(Mutex<Vec<TempDir>>);

impl Files {
    fn open(folder: &TempDir) -> Spread {
        let given = [1, 2].map(|own| {
            let store = Sqlite::open(&folder.path().join(format!("{own}.db"))).unwrap();
            let store = Arc::new(Beside::new(store, seated(own, &map("1 1,2 -"))));
            Given { name: own.to_string(), store, secret: Secret::from_bytes([7; 32]) }
        });
        block_on(Spread::open(given.into(), steady(0))).unwrap()
    }
}

impl StoreBuilder for Files {
    type Store = Spread;

    fn fresh(&self) -> Spread {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::from_bytes([7; 32]);
        for own in [1, 2] {
            let file = folder.path().join(format!("{own}.db"));
            Sqlite::init_with(&file, Floor::NONE, &secret).unwrap();
        }
        let spread = Self::open(&folder);
        self.0.lock().unwrap().push(folder);
        spread
    }

    fn after_crash(&self, store: Spread) -> Spread {
        drop(store);
        Self::open(self.0.lock().unwrap().last().unwrap())
    }
}

onlyonce_conformance::conformance_suite!(Files::default());
onlyonce_conformance::durable_suite!(Files::default());
