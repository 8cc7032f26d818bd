//! The journal keeps what every store promises.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use onlyonce_conformance::{Damages, StoreBuilder};
use onlyonce_core::KeyId;
use onlyonce_journal::{Journal, Settings, Start};
use tempfile::TempDir;

/// Small segments, so that a case spans several of them.
const SETTINGS: Settings = Settings { segment_bytes: 256 << 10, ..Settings::DEFAULT };

/// Folders live as long as the builder.
#[derive(Default)]
struct Journals(Mutex<Vec<(PathBuf, TempDir)>>);

impl StoreBuilder for Journals {
    type Store = Journal;

    fn fresh(&self) -> Journal {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        let (journal, _) = Journal::open_or_create(&dir, SETTINGS, Start::First).unwrap();
        self.0.lock().unwrap().push((dir, folder));
        journal
    }

    /// As if the process had been killed: what its files hold now is all that is left. They are
    /// copied while the store is open, since in one process nothing else can be ended.
    fn after_crash(&self, store: Journal) -> Journal {
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
        journal
    }
}

impl Damages for Journals {
    fn damage(&self, _store: &Journal, id: KeyId) {
        let folders = self.0.lock().unwrap();
        let (dir, _) = folders.last().unwrap();
        let mut spoiled = 0;
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let at = bytes.windows(16).rposition(|it| it == id.as_bytes());
            let Some(at) = at.filter(|_| entry.path().extension().is_some_and(|it| it == "log"))
            else {
                continue;
            };
            bytes[at + 16] ^= 0xFF;
            // In its place: the journal has the file open.
            let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
            file.write_all_at(&bytes[at + 16..=at + 16], at as u64 + 16).unwrap();
            spoiled += 1;
        }
        assert_eq!(spoiled, 1, "its newest entry stands in one segment");
    }
}

onlyonce_conformance::conformance_suite!(Journals::default());
onlyonce_conformance::durable_suite!(Journals::default());
onlyonce_conformance::damage_suite!(Journals::default());
