//! The SQLite file keeps what every store promises.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::PathBuf;
use std::sync::Mutex;

use onlyonce_conformance::{Damages, StoreBuilder};
use onlyonce_core::{Floor, KeyId};
use onlyonce_sqlite::Sqlite;
use rusqlite::Connection;
use tempfile::TempDir;

/// Folders live as long as the builder.
#[derive(Default)]
struct Files(Mutex<Vec<(PathBuf, TempDir)>>);

impl StoreBuilder for Files {
    type Store = Sqlite;

    fn fresh(&self) -> Sqlite {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("once.db");
        Sqlite::init(&file, Floor::NONE).unwrap();
        let store = Sqlite::open(&file).unwrap();
        self.0.lock().unwrap().push((file, folder));
        store
    }

    /// As if the machine had stopped: what the database and its log hold now is all that is left,
    /// without the index of the log that lies in shared memory.
    fn after_crash(&self, store: Sqlite) -> Sqlite {
        let mut files = self.0.lock().unwrap();
        let (from, _) = files.last().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("once.db");
        std::fs::copy(from, &file).unwrap();
        std::fs::copy(from.with_extension("db-wal"), folder.path().join("once.db-wal")).unwrap();
        drop(store);
        let store = Sqlite::open(&file).unwrap();
        files.push((file, folder));
        store
    }
}

impl Damages for Files {
    fn damage(&self, _: &Sqlite, id: KeyId) {
        let files = self.0.lock().unwrap();
        let connection = Connection::open(&files.last().unwrap().0).unwrap();
        let spoil = "UPDATE records SET record = zeroblob(length(record)) WHERE id = ?1";
        assert_eq!(connection.execute(spoil, [&id.as_bytes()[..]]).unwrap(), 1);
    }
}

onlyonce_conformance::conformance_suite!(Files::default());
onlyonce_conformance::durable_suite!(Files::default());
onlyonce_conformance::damage_suite!(Files::default());
