//! The journal keeps what every store promises while each tombstone goes to a shelf at once: room
//! is given back after each change.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use onlyonce_conformance::{StoreBuilder, block_on, claimed, id, tombstone};
use onlyonce_core::{KeyId, Record, Revision};
use onlyonce_journal::{Journal, Settings, Start};
use onlyonce_store::{BoxFuture, Store, StoreError, Swap};
use tempfile::TempDir;

const SETTINGS: Settings =
    Settings { segment_bytes: 256 << 10, shelve_after: Duration::ZERO, ..Settings::DEFAULT };

/// A journal that gives room back after each change.
struct Eager(Journal);

impl Store for Eager {
    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            let swap = self.0.swap(id, expected, next).await?;
            self.0.reclaim().await?;
            Ok(swap)
        })
    }

    onlyonce_conformance::hands_on!(
        0: get, floor, raise_floor, revision_max, due, reclaim, list, reply_max, is_exclusive
    );
}

/// Folders live as long as the builder.
#[derive(Default)]
struct Journals(Mutex<Vec<(PathBuf, TempDir)>>);

impl StoreBuilder for Journals {
    type Store = Eager;

    fn fresh(&self) -> Eager {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        let (journal, _) = Journal::open_or_create(&dir, SETTINGS, Start::First).unwrap();
        self.0.lock().unwrap().push((dir, folder));
        Eager(journal)
    }

    /// As if the process had been killed: what its files hold now is all that is left.
    fn after_crash(&self, store: Eager) -> Eager {
        let mut folders = self.0.lock().unwrap();
        let (from, _) = folders.last().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        std::fs::create_dir(&dir).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().ends_with(".new") {
                std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
            }
        }
        drop(store);
        let journal = Journal::open(&dir, SETTINGS).unwrap();
        folders.push((dir, folder));
        Eager(journal)
    }
}

onlyonce_conformance::conformance_suite!(Journals::default());
onlyonce_conformance::durable_suite!(Journals::default());

#[test]
fn tombstones_of_these_tests_do_go_to_shelves() {
    let journals = Journals::default();
    let store = journals.fresh();
    let record = tombstone(&claimed(1));
    assert_eq!(block_on(store.swap(id(1), None, Some(record.clone()))).unwrap(), Swap::Done);
    assert_eq!((store.0.stats().shelved, store.0.stats().index_bytes), (1, 0));
    assert_eq!(block_on(store.get(id(1))).unwrap(), Some(record));
}
