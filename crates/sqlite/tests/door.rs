//! What is refused when a store is made or opened, and what a file that changes under it does.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use futures_executor::block_on;
use onlyonce_conformance::{answered, claimed, id};
use onlyonce_core::{Floor, StateKind, Timestamp};
use onlyonce_sqlite::{Sqlite, doctor};
use onlyonce_store::OpenErrorKind::{self, Exists, Foreign, Missing, Newer, Refused};
use onlyonce_store::{Check, OpenError, Store as _, StoreErrorKind, Swap};
use rusqlite::Connection;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("once.db");
    (folder, file)
}

fn new_store() -> (tempfile::TempDir, PathBuf) {
    let (folder, file) = folder();
    Sqlite::init(&file, Floor::NONE).unwrap();
    (folder, file)
}

/// Opens it, which is refused by something that a doctor tells, or else by nothing of that.
fn try_open(file: &Path) -> Result<Sqlite, OpenError> {
    let refusals: Vec<OpenError> = doctor(file).iter().filter_map(Check::error).collect();
    let opened = Sqlite::open(file);
    assert_eq!(opened.as_ref().err(), refusals.first());
    opened
}

#[track_caller]
fn refused(file: &Path, kind: OpenErrorKind, says: &str) {
    let Err(error) = try_open(file) else { panic!("it opened") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn a_store_is_made_once_for_its_owner_alone_and_never_by_opening_it() {
    let (_folder, file) = folder();
    refused(&file, Missing, "onlyonce store init");
    assert!(!file.exists());

    let floor = Floor::at(Timestamp::from_millis(77));
    Sqlite::init(&file, floor).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let store = try_open(&file).unwrap();
    let secret = store.secret().clone();
    assert_eq!(block_on(store.floor()).unwrap(), floor);
    assert_eq!(Sqlite::init(&file, Floor::NONE).unwrap_err().kind(), Exists);
    assert!(store.secret() == Sqlite::open(&file).unwrap().secret());
    assert_eq!(block_on(store.floor()).unwrap(), floor);

    let (_folder, other) = new_store();
    assert!(&secret != Sqlite::open(&other).unwrap().secret());
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_again() {
    let (_folder, file) = folder();
    std::fs::write(&file, "").unwrap();
    refused(&file, Missing, "onlyonce store init");
    Connection::open(&file).unwrap().execute_batch("PRAGMA journal_mode = wal").unwrap();
    refused(&file, Missing, "onlyonce store init");
    Sqlite::init(&file, Floor::NONE).unwrap();
    Sqlite::open(&file).unwrap();
}

#[test]
fn another_programs_file_is_refused_and_left_as_it_is() {
    let (_folder, file) = folder();
    std::fs::write(&file, "a letter to somebody, and no database at all").unwrap();
    refused(&file, Foreign, "no SQLite file");
    assert_eq!(Sqlite::init(&file, Floor::NONE).unwrap_err().kind(), Foreign);
    assert!(std::fs::read(&file).unwrap().starts_with(b"a letter"));

    std::fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let before = std::fs::read(&file).unwrap();
    refused(&file, Foreign, "another program");
    assert_eq!(Sqlite::init(&file, Floor::NONE).unwrap_err().kind(), Foreign);
    assert!(std::fs::read(&file).unwrap() == before);
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let (_folder, file) = new_store();
    Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    refused(&file, Newer, "format is 2");
}

#[test]
fn a_journal_mode_that_keeps_less_is_refused_and_named() {
    for mode in ["delete", "truncate", "persist"] {
        let (_folder, file) = new_store();
        let set = format!("PRAGMA journal_mode = {mode}");
        Connection::open(&file).unwrap().execute_batch(&set).unwrap();
        refused(&file, Refused, "journal_mode");
    }
}

#[test]
fn a_file_that_was_replaced_takes_no_more_writes() {
    let (folder, file) = new_store();
    let store = Sqlite::open(&file).unwrap();
    let (tell, told) = channel();
    store.on_poison(move |why| tell.send(why.to_owned()).unwrap());
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);

    std::fs::rename(&file, folder.path().join("moved.db")).unwrap();
    Sqlite::init(&file, Floor::NONE).unwrap();
    for number in [2, 3] {
        let error = block_on(store.swap(id(number), None, Some(claimed(number)))).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Poisoned);
    }
    assert!(told.recv().unwrap().contains("moved"));
    let other = Sqlite::open(&file).unwrap();
    assert_eq!(other.count(None).unwrap(), 0);
}

/// Case B86.
#[test]
fn a_writer_that_holds_the_lock_is_waited_for() {
    let (_folder, file) = new_store();
    let store = Sqlite::open(&file).unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let swap = scope.spawn(|| block_on(store.swap(id(1), None, Some(claimed(1)))));
        // Reads do not wait, not even for a writer.
        assert_eq!(block_on(store.get(id(1))).unwrap(), None);
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(swap.join().unwrap().unwrap(), Swap::Done);
    });
}

#[test]
fn a_record_that_was_changed_behind_our_back_is_damaged_and_named() {
    let (_folder, file) = new_store();
    let store = Sqlite::open(&file).unwrap();
    let one = claimed(1);
    block_on(store.swap(id(1), None, Some(one.clone()))).unwrap();
    let other = Connection::open(&file).unwrap();
    let set = "UPDATE records SET record = CAST(x'00' || record AS BLOB)";
    assert_eq!(other.execute(set, ()).unwrap(), 1);

    let error = block_on(store.get(id(1))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.to_string().contains(&id(1).to_string()), "{error}");
    // Who asks for something else there is not told that it is free.
    let error = block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    let page = block_on(store.list(Default::default(), None)).unwrap();
    assert_eq!((page.records.len(), page.damaged.len()), (0, 1));
    // Whoever holds it can still say how it ended.
    let two = answered(&one, 2, "order");
    let swap = store.swap(id(1), Some(one.revision), Some(two.clone()));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    assert_eq!(block_on(store.get(id(1))).unwrap(), Some(two));
    assert_eq!(store.count(Some(StateKind::Completed)).unwrap(), 1);
}

#[test]
fn the_log_does_not_grow_with_each_process_that_is_killed() {
    let (folder, mut file) = new_store();
    let mut longest = 0;
    for life in 0..20 {
        let store = Sqlite::open(&file).unwrap();
        for number in life * 10..life * 10 + 10 {
            let one = claimed(number);
            let two = answered(&one, number + 1, "order ".repeat(2_000));
            let (key, revision) = (id(number), one.revision);
            assert_eq!(block_on(store.swap(key, None, Some(one))).unwrap(), Swap::Done);
            let swap = store.swap(key, Some(revision), Some(two));
            assert_eq!(block_on(swap).unwrap(), Swap::Done);
        }
        // What a kill at this moment leaves behind: nothing is closed and nobody writes.
        let next = folder.path().join(format!("life-{life}.db"));
        std::fs::copy(&file, &next).unwrap();
        let log = |file: &Path| file.with_extension("db-wal");
        longest = longest.max(std::fs::copy(log(&file), log(&next)).unwrap());
        file = next;
    }
    assert!(longest < 1 << 20, "a log of {longest} bytes");
    let store = Sqlite::open(&file).unwrap();
    assert_eq!(store.count(Some(StateKind::Completed)).unwrap(), 200);
}

#[test]
fn a_closed_store_refuses_writes_and_lets_others_in() {
    let (_folder, file) = new_store();
    let store = Sqlite::open(&file).unwrap();
    block_on(store.swap(id(1), None, Some(claimed(1)))).unwrap();
    store.close();
    let error = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied);
    let other = Sqlite::open(&file).unwrap();
    assert_eq!(block_on(other.get(id(1))).unwrap(), Some(claimed(1)));
}
