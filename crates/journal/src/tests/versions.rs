//! What a newer program has written is refused by its number, and nothing of it is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::Timestamp;
use onlyonce_store::{Store as _, StoreErrorKind, Swap, codec};

use super::shelves::{AT_ONCE, bury, delete, reclaim};
use super::{SMALL, claimed, id, pair, put};
use crate::check::check;
use crate::dir::Start;
use crate::disk::Folder;
use crate::entry;
use crate::error::{JournalError, JournalErrorKind};
use crate::journal::Journal;
use crate::restore::restore;
use crate::salvage::salvage;
use crate::shelf::Shelf;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_100_000);

/// A closed journal with three answered keys.
fn closed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    (0..3).for_each(|number| drop(pair(&journal, number, 100)));
    journal.close();
    (folder, dir)
}

/// The next format that this program does not know.
const NEXT: u8 = codec::VERSION + 1;

/// Adds an entry at the end of a segment, as a program does that knows the next format.
fn add_newer(dir: &Path, number: u64, record: u64) {
    let file = dir.join(crate::segment::name(number));
    let mut bytes = fs::read(&file).unwrap();
    let end = crate::survey::survey(&bytes.clone().into(), number).end as usize;
    let mut payload = Vec::new();
    codec::encode(id(record), &claimed(50), &mut payload);
    payload[0] = NEXT << 4 | payload[0] & 0x0F;
    let mut batch = Vec::new();
    entry::append(&mut batch, number, end as u64, &payload);
    bytes[end..end + batch.len()].copy_from_slice(&batch);
    fs::write(&file, bytes).unwrap();
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("lock"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn is_refused<T>(result: Result<T, JournalError>, says: &str) {
    let Err(error) = result else { panic!("it was not refused: {says}") };
    assert_eq!(error.kind(), JournalErrorKind::Format, "{error}");
    let text = error.to_string();
    assert!(text.contains(says) && text.contains("use a newer onlyonce"), "{text}");
}

#[test]
fn a_folder_of_a_newer_format_is_refused_by_its_number_and_left_as_it_is() {
    for what in ["journal", "backup"] {
        let (_folder, dir) = closed();
        let label = fs::read_to_string(dir.join("format")).unwrap();
        let (_, rest) = label.split_once('\n').unwrap();
        fs::write(dir.join("format"), format!("onlyonce {what}, format 3\n{rest}")).unwrap();
        let before = files(&dir);
        let to = dir.with_file_name("new");
        is_refused(Journal::open(&dir, SMALL), "format 3");
        is_refused(Journal::open_or_create(&dir, SMALL, Start::First), "format 3");
        is_refused(restore(&dir, &to, NOW, Duration::ZERO), "format 3");
        is_refused(salvage(&dir, &to, NOW, Duration::ZERO), "format 3");
        assert!(!to.exists());
        assert_eq!(files(&dir), before);
    }
}

#[test]
fn a_record_of_a_newer_format_is_no_damage_that_may_be_left_out() {
    let (_folder, dir) = closed();
    add_newer(&dir, 1, 7);
    let before = files(&dir);
    let (says, to) = (format!("record format {NEXT}"), dir.with_file_name("new"));
    is_refused(Journal::open(&dir, SMALL), &says);
    is_refused(salvage(&dir, &to, NOW, Duration::ZERO), &says);
    assert!(restore(&dir, &to, NOW, Duration::ZERO).unwrap_err().to_string().contains(&says));
    let report = check(&dir).unwrap();
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert!(finding.is_damage && finding.text.contains(&says), "{finding}");
    assert!(!to.exists());
    assert_eq!(files(&dir), before);
}

/// A closed journal with a shelf, which the log says nothing of any more.
fn shelved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    Journal::init(&dir, AT_ONCE, Start::First).unwrap();
    let journal = Journal::open(&dir, AT_ONCE).unwrap();
    (0..300).for_each(|number| drop(bury(&journal, number)));
    reclaim(&journal);
    for number in 1_000..1_060 {
        let answer = pair(&journal, number, 8_000);
        assert_eq!(delete(&journal, number, &answer), Swap::Done);
    }
    reclaim(&journal);
    assert!(!dir.join("0000000001.log").exists());
    journal.close();
    (folder, dir)
}

/// Makes a tombstone on the shelf one of the next format, and says how many share its block.
fn make_newer(dir: &Path) -> u32 {
    let file = dir.join("0000000001.old");
    let mut bytes = fs::read(&file).unwrap();
    let shelf = Shelf::open(&Folder::at(dir), 1, &[]).unwrap();
    let (at, end) = (shelf.block_at(1) as usize, shelf.block_at(2) as usize);
    let mut block = bytes[at + entry::FRAME..end].to_vec();
    // Behind a length of one byte.
    assert!(block[0] < 0x80);
    block[1] = NEXT << 4 | block[1] & 0x0F;
    let mut whole = Vec::new();
    entry::append(&mut whole, 1, at as u64, &block);
    bytes[at..end].copy_from_slice(&whole);
    fs::write(&file, bytes).unwrap();
    shelf.ordinal(2) - shelf.ordinal(1)
}

#[test]
fn a_tombstone_of_a_newer_format_on_a_shelf_is_not_left_out_either() {
    let (_folder, dir) = shelved();
    let in_block = make_newer(&dir);
    let before = files(&dir);
    let (says, to) = (format!("record format {NEXT}"), dir.with_file_name("new"));
    let is_refused_by_all = || {
        is_refused(salvage(&dir, &to, NOW, Duration::ZERO), &says);
        assert!(restore(&dir, &to, NOW, Duration::ZERO).unwrap_err().to_string().contains(&says));
        let report = check(&dir).unwrap();
        assert!(report.findings.iter().any(|it| it.is_damage && it.text.contains(&says)));
        assert!(!to.exists());
    };
    is_refused_by_all();
    assert_eq!(files(&dir), before);
    // It may be any key of those, so each of them hears of it, and nothing of them runs.
    let journal = Journal::open(&dir, AT_ONCE).unwrap();
    let told: Vec<_> = (0..300).filter_map(|it| block_on(journal.get(id(it))).err()).collect();
    assert_eq!(told.len() as u32, in_block);
    assert!(told.iter().all(|it| it.to_string().contains(&says)), "{told:?}");
    journal.close();
    // Also where the shelf's end is lost.
    let file = dir.join("0000000001.old");
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 5);
    fs::write(&file, bytes).unwrap();
    is_refused(salvage(&dir, &to, NOW, Duration::ZERO), &says);
}

#[test]
fn a_shelf_or_a_list_of_a_newer_format_is_refused_by_its_number() {
    for (file, what) in [("0000000001.old", "shelf format 2"), ("shelves", "list format 2")] {
        let (_folder, dir) = shelved();
        let mut bytes = fs::read(dir.join(file)).unwrap();
        bytes[8] = 2;
        let checked = if file == "shelves" { bytes.len() - 4 } else { 60 };
        let check = crc32c::crc32c(&bytes[..checked]);
        bytes[checked..checked + 4].copy_from_slice(&check.to_le_bytes());
        fs::write(dir.join(file), bytes).unwrap();
        let (before, to) = (files(&dir), dir.with_file_name("new"));
        is_refused(Journal::open(&dir, AT_ONCE), what);
        is_refused(salvage(&dir, &to, NOW, Duration::ZERO), what);
        assert!(restore(&dir, &to, NOW, Duration::ZERO).unwrap_err().to_string().contains(what));
        assert!(!to.exists());
        assert_eq!(files(&dir), before);
    }
}

#[test]
fn one_in_a_segment_that_is_not_read_at_the_start_is_told_to_who_asks_for_it() {
    let (_folder, dir) = closed();
    let journal = Journal::open(&dir, SMALL).unwrap();
    put(&journal, 7, None, &claimed(50)).unwrap();
    // Until the first segment is sealed, with its snapshot beside it.
    for number in 10..60 {
        pair(&journal, number, 4_000);
    }
    journal.close();
    assert!(dir.join("0000000001.idx").exists());
    let file = dir.join("0000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let survey = crate::survey::survey(&bytes.clone().into(), 1);
    let is_seven = |it: &entry::Entry| matches!(it, entry::Entry::Record(it, _) if *it == id(7));
    let at = survey.entries.iter().find(|(_, it)| is_seven(it)).unwrap().0 as usize;
    let length = entry::length(bytes[at..at + entry::FRAME].try_into().unwrap());
    let mut payload = bytes[at + entry::FRAME..at + length].to_vec();
    payload[0] = NEXT << 4 | payload[0] & 0x0F;
    let mut whole = Vec::new();
    entry::append(&mut whole, 1, at as u64, &payload);
    bytes[at..at + length].copy_from_slice(&whole);
    fs::write(&file, bytes).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    let says = format!("record format {NEXT} is not known here");
    let told = block_on(journal.get(id(7))).unwrap_err();
    assert_eq!(told.kind(), StoreErrorKind::Damaged);
    assert!(told.to_string().contains(&says), "{told}");
    // Nobody can take its place, so nothing of that key runs.
    let told = put(&journal, 7, None, &claimed(90)).unwrap_err();
    assert!(told.to_string().contains(&says), "{told}");
    assert!(block_on(journal.get(id(0))).unwrap().is_some());
}
