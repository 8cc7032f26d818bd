//! Backup, restore, check and salvage know shelves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::{Record, Timestamp};
use onlyonce_store::Store;

use super::shelves::{AT_ONCE, tombstone};
use super::{get, id, pair, put};
use crate::check::check;
use crate::dir::Start;
use crate::error::JournalErrorKind;
use crate::journal::Journal;
use crate::label;
use crate::restore::restore;
use crate::salvage::{Salvaged, salvage};
use crate::shelves::LIST_FILE;

const NOW: Timestamp = Timestamp::from_millis(1_764_900_000_000);
const KEYS: u64 = 400;

/// A journal in a folder: its tombstones are on a shelf alone, one was deleted, one answer is kept.
fn in_folder() -> (tempfile::TempDir, PathBuf, Vec<Record>) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let (journal, _) = Journal::open_or_create(&dir, AT_ONCE, Start::First).unwrap();
    let records: Vec<Record> = (0..KEYS)
        .map(|number| {
            let answer = pair(&journal, number, 10);
            let record = tombstone(&answer);
            put(&journal, number, Some(&answer), &record).unwrap();
            record
        })
        .collect();
    block_on(journal.reclaim()).unwrap();
    block_on(journal.swap(id(7), Some(records[7].revision), None)).unwrap();
    for number in 1_000..1_060 {
        let answer = pair(&journal, number, 8_000);
        block_on(journal.swap(id(number), Some(answer.revision), None)).unwrap();
    }
    block_on(journal.reclaim()).unwrap();
    assert!(!dir.join("0000000001.log").exists());
    pair(&journal, 2_000, 100);
    journal.close();
    (folder, dir, records)
}

fn shelf_in(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut shelves = names.filter(|path| path.extension().is_some_and(|it| it == "old"));
    let shelf = shelves.next().unwrap();
    assert_eq!(shelves.next(), None);
    shelf
}

fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = if at < bytes.len() { at } else { bytes.len() - (usize::MAX - at) - 1 };
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Which of the tombstones are there, each as it was.
fn kept(dir: &Path, records: &[Record]) -> Vec<u64> {
    let journal = Journal::open(dir, AT_ONCE).unwrap();
    let is_kept = |number: &u64| match get(&journal, *number) {
        Some(found) => {
            assert_eq!(found, records[*number as usize]);
            true
        }
        None => false,
    };
    let kept = (0..KEYS).filter(is_kept).collect();
    assert!(get(&journal, 2_000).is_some());
    kept
}

fn all_but_the_deleted() -> Vec<u64> {
    (0..KEYS).filter(|number| *number != 7).collect()
}

#[test]
fn a_backup_has_what_is_on_shelves_and_a_restore_brings_it_back() {
    let (folder, dir, records) = in_folder();
    let (copy, new) = (folder.path().join("copy"), folder.path().join("new"));
    let journal = Journal::open(&dir, AT_ONCE).unwrap();
    let backup = journal.backup(&copy, NOW).unwrap();
    journal.close();
    assert_eq!(backup.shelves, 1);
    let report = check(&copy).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    // A program that knows no shelves must not restore without them.
    assert!(
        fs::read_to_string(copy.join("format")).unwrap().starts_with("onlyonce backup, format 2\n")
    );
    let restored = restore(&copy, &new, NOW, Duration::ZERO).unwrap();
    assert_eq!((restored.records, restored.made_unknown), (KEYS, 0));
    assert_eq!(kept(&new, &records), all_but_the_deleted());
    // The list lost, or a block of the shelf spoiled: nobody restores half of it.
    spoil(&shelf_in(&copy), 1_000);
    let error = restore(&copy, &folder.path().join("half"), NOW, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Damaged);
    spoil(&shelf_in(&copy), 1_000);
    fs::remove_file(copy.join(LIST_FILE)).unwrap();
    let error = restore(&copy, &folder.path().join("half"), NOW, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("the list of shelves is missing"), "{error}");
}

#[test]
fn check_finds_a_spoiled_shelf_and_salvage_saves_the_rest() {
    let (folder, dir, records) = in_folder();
    assert!(!check(&dir).unwrap().is_damaged());
    let shelf = shelf_in(&dir);
    // A block, the filter, the end; then the header as well.
    for (at, least) in [(10_000, 200), (usize::MAX - 120, 399), (usize::MAX - 10, 399), (3, 399)] {
        spoil(&shelf, at);
        let report = check(&dir).unwrap();
        let damage: Vec<_> = report.findings.iter().filter(|it| it.is_damage).collect();
        assert_eq!(damage.len(), 1, "{:?}", report.findings);
        assert_eq!(damage[0].file, shelf);
        let to = folder.path().join(format!("salvaged-{at}"));
        let Salvaged { lost, .. } = salvage(&dir, &to, NOW, Duration::ZERO).unwrap();
        assert_eq!((lost.len(), &lost[0].file), (1, &shelf));
        let kept = kept(&to, &records);
        assert!(least <= kept.len(), "{} are kept of {at}", kept.len());
        spoil(&shelf, at);
    }
    assert!(!check(&dir).unwrap().is_damaged());
    // Without the list what was forgotten is refused again: nothing runs that should not.
    fs::remove_file(dir.join(LIST_FILE)).unwrap();
    assert!(check(&dir).unwrap().is_damaged());
    let to = folder.path().join("salvaged");
    assert_eq!(salvage(&dir, &to, NOW, Duration::ZERO).unwrap().lost.len(), 1);
    assert_eq!(kept(&to, &records).len() as u64, KEYS);
}

#[test]
fn the_label_tells_a_journal_with_shelves() {
    let (_folder, dir, records) = in_folder();
    assert!(label::read(&dir).unwrap().has_shelves);
    assert_eq!(kept(&dir, &records), all_but_the_deleted());
    // What an older program wrote has none, and opens.
    let old = dir.with_file_name("old");
    Journal::init(&old, AT_ONCE, Start::First).unwrap();
    let text = fs::read_to_string(old.join("format")).unwrap();
    assert!(text.starts_with("onlyonce journal, format 1\n"), "{text}");
    assert!(!old.join(LIST_FILE).exists());
    Journal::open(&old, AT_ONCE).unwrap().close();
}
