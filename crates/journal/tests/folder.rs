//! A journal in a real folder: made once, opened by one process, checked and salvaged.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::{Cause, Command, Floor, Record, State, Timestamp};
use onlyonce_journal::{Journal, JournalErrorKind, Settings, Start, check, restore, salvage};
use onlyonce_store::Store;

use common::{NOW, SMALL, claim, complete, id, pair, put, written};

fn get(journal: &Journal, number: u8) -> Option<Record> {
    block_on(journal.get(id(number))).unwrap()
}

/// A folder with a journal in it that holds `pairs` answered keys.
fn with_pairs(pairs: u8) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    for number in 0..pairs {
        pair(&journal, number, 4_000);
    }
    journal.close();
    (folder, dir)
}

fn kind(result: Result<Journal, onlyonce_journal::JournalError>) -> JournalErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn it_is_made_once_and_found_again() {
    let (_folder, dir) = with_pairs(100);
    let error = Journal::init(&dir, SMALL, Start::First).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Exists);
    let (journal, created) = Journal::open_or_create(&dir, SMALL, Start::First).unwrap();
    assert!(!created);
    assert_eq!(journal.stats().keys, 100);
    assert!(2 < journal.stats().segments);
    assert!((0..100).all(|number| get(&journal, number).is_some()));
}

#[test]
fn it_belongs_to_one_process_and_names_it() {
    let (_folder, dir) = with_pairs(1);
    let journal = Journal::open(&dir, SMALL).unwrap();
    let error = Journal::open(&dir, SMALL).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    journal.close();
    assert!(Journal::open(&dir, SMALL).is_ok());
    let error = block_on(journal.swap(id(9), None, Some(claim()))).unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
}

#[test]
fn without_its_own_secret_it_does_not_open() {
    let (_folder, dir) = with_pairs(1);
    let (_other_folder, other) = with_pairs(1);
    let secret = fs::read(dir.join("secret")).unwrap();
    fs::copy(other.join("secret"), dir.join("secret")).unwrap();
    assert_eq!(kind(Journal::open(&dir, SMALL)), JournalErrorKind::Secret);
    fs::write(dir.join("secret"), "short").unwrap();
    assert_eq!(kind(Journal::open(&dir, SMALL)), JournalErrorKind::Secret);
    fs::remove_file(dir.join("secret")).unwrap();
    assert_eq!(kind(Journal::open(&dir, SMALL)), JournalErrorKind::Secret);
    fs::write(dir.join("secret"), secret).unwrap();
    assert!(Journal::open(&dir, SMALL).is_ok());
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert_eq!(kind(Journal::open(&missing, SMALL)), JournalErrorKind::Missing);
    assert!(!missing.exists());
    let (_folder, dir) = with_pairs(1);
    fs::write(dir.join("format"), "onlyonce journal, format 9\nsecret 00\n").unwrap();
    assert_eq!(kind(Journal::open(&dir, SMALL)), JournalErrorKind::Format);
    // A journal whose mark is lost is not taken for an empty folder.
    fs::remove_file(dir.join("format")).unwrap();
    let error = Journal::init(&dir, SMALL, Start::First).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Exists);
}

#[test]
fn others_cannot_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, dir) = with_pairs(60);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_strict_start_has_its_floor_and_a_first_one_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::at(Timestamp::from_millis(NOW));
    for (name, start, expect) in
        [("a", Start::First, Floor::NONE), ("b", Start::Strict { floor }, floor)]
    {
        let dir = folder.path().join(name);
        let (journal, created) = Journal::open_or_create(&dir, SMALL, start).unwrap();
        assert!(created);
        assert_eq!(block_on(journal.floor()).unwrap(), expect);
    }
}

#[test]
fn check_finds_what_is_wrong_and_changes_nothing() {
    let (_folder, dir) = with_pairs(100);
    let report = check(&dir).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    assert_eq!(report.entries, 200);
    let file = dir.join("0000000002.log");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let report = check(&dir).unwrap();
    let damage: Vec<_> = report.findings.iter().filter(|it| it.is_damage).collect();
    assert_eq!(damage.len(), 1, "{:?}", report.findings);
    assert_eq!(damage[0].file, file);
    assert!(damage[0].offset <= 20_000 && 14_000 < damage[0].offset);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // It reads on behind the damage: a single record is lost, or a batch of one.
    assert!(197 <= report.entries);
    let journal = Journal::open(&dir, SMALL).unwrap();
    assert_eq!(check(&dir).unwrap_err().kind(), JournalErrorKind::Locked);
    drop(journal);
}

#[test]
fn salvage_keeps_answers_and_doubts_everything_open() {
    let (_folder, dir) = with_pairs(100);
    let journal = Journal::open(&dir, SMALL).unwrap();
    let running = claim();
    put(&journal, 200, None, &running);
    let released = Command::Release { fence: running.fence, stranger: false };
    put(&journal, 201, None, &running);
    put(&journal, 201, Some(&running), &written(Some(&running), &released));
    let gone = complete(&running, 10);
    put(&journal, 202, None, &running);
    put(&journal, 202, Some(&running), &gone);
    block_on(journal.swap(id(202), Some(gone.revision), None)).unwrap();
    let secret = journal.secret().clone();
    journal.close();
    let file = dir.join("0000000002.log");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::remove_file(dir.join("0000000002.idx")).unwrap();
    let error = Journal::open(&dir, SMALL).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Damaged);

    let to = dir.with_file_name("salvaged");
    let now = Timestamp::from_millis(NOW + 1_000);
    let result = salvage(&dir, &to, now, Duration::from_secs(300)).unwrap();
    assert_eq!(result.lost.len(), 1);
    assert_eq!(result.lost[0].file, file);
    let journal = Journal::open(&to, Settings::default()).unwrap();
    assert_eq!(*journal.secret(), secret);
    let floor = block_on(journal.floor()).unwrap();
    assert_eq!(floor, Floor::at(Timestamp::from_millis(NOW + 301_000)));
    for number in [200, 201] {
        let record = get(&journal, number).unwrap();
        assert!(matches!(record.state, State::Unknown(doubt) if doubt.cause == Cause::Restored));
    }
    assert_eq!(get(&journal, 202), None);
    let kept = (0..100).filter_map(|number| get(&journal, number));
    let (answered, doubted): (Vec<_>, Vec<_>) =
        kept.partition(|record| matches!(record.state, State::Completed { .. }));
    // What was lost is a claim (then its completion is there) or a completion (then it is in
    // doubt); never is an answered key free again.
    assert_eq!(answered.len() + doubted.len(), 100);
    assert!(doubted.len() <= 1);
    assert_eq!(result.made_unknown, 2 + doubted.len() as u64);
    // The old one is as it was, and a second salvage does not overwrite the first.
    assert!(salvage(&dir, &to, now, Duration::ZERO).is_err());
}

#[test]
fn the_names_of_keys_go_with_every_copy() {
    let (_folder, dir) = with_pairs(3);
    let at = |name: &str| dir.with_file_name(name);
    let (now, ahead) = (Timestamp::from_millis(NOW + 1_000), Duration::ZERO);
    let journal = Journal::open(&dir, SMALL).unwrap();
    journal.backup(&at("none"), now).unwrap();
    fs::write(dir.join("keys"), "1a2b3c4d\n").unwrap();
    journal.backup(&at("backup"), now).unwrap();
    journal.close();
    drop(journal);
    restore(&at("none"), &at("none-restored"), now, ahead).unwrap();
    restore(&at("backup"), &at("restored"), now, ahead).unwrap();
    salvage(&dir, &at("salvaged"), now, ahead).unwrap();
    for copy in ["none", "none-restored"] {
        assert!(!at(copy).join("keys").exists(), "{copy}");
    }
    for copy in ["backup", "restored", "salvaged"] {
        assert_eq!(fs::read_to_string(at(copy).join("keys")).unwrap(), "1a2b3c4d\n", "{copy}");
        assert_eq!(check(&at(copy)).unwrap().findings, [], "{copy}");
    }
}

#[test]
fn making_a_journal_that_was_interrupted_begins_anew_and_loses_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    Journal::init(&dir, SMALL, Start::First).unwrap();
    fs::remove_file(dir.join("format")).unwrap();
    assert!(Journal::open(&dir, SMALL).is_err());
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    put(&journal, 1, None, &claim());
    journal.close();
    // With something in it, it is somebody's journal.
    fs::remove_file(dir.join("format")).unwrap();
    let error = Journal::init(&dir, SMALL, Start::First).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Exists);
}
