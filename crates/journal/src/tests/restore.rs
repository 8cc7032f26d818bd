//! A restored journal answers what was answered, and lets nothing run of which nobody can know
//! whether it ran after the copy was made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_executor::block_on;
use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Event, Fingerprint, Floor, Holder, Outcome, Phase, Policy,
    Record, State, Timestamp, decide,
};
use onlyonce_store::{Store, codec};

use super::{SMALL, claimed, completed, get, id, pair, put, written};
use crate::check::check;
use crate::dir::Start;
use crate::entry;
use crate::error::JournalErrorKind;
use crate::journal::{Journal, Settings};
use crate::restore::restore;
use crate::salvage::salvage;
use crate::segment::{HEADER, STEP};
use crate::survey::survey;

/// Times of records count from here.
const EPOCH: u64 = 1_764_000_000_000;
const TAKEN: Timestamp = Timestamp::from_millis(EPOCH + 1_000);
const NOW: Timestamp = Timestamp::from_millis(EPOCH + 500_000);
const AHEAD: Duration = Duration::from_secs(300);

const IN_FLIGHT: u64 = 200;
const RELEASED: u64 = 201;
const UNKNOWN: u64 = 202;
const TOMBSTONE: u64 = 203;
const DELETED: u64 = 204;
const ABSENT: u64 = 205;

/// A journal with a record of every state, and forty answers over several segments.
fn filled() -> (tempfile::TempDir, PathBuf, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    (0..40).for_each(|number| drop(pair(&journal, number, 8_000)));
    let claim = claimed(100);
    let fence = claim.fence;
    let then = |number: u64, command: &Command| {
        put(&journal, number, None, &claim).unwrap();
        let next = written(Some(&claim), 200, command);
        put(&journal, number, Some(&claim), &next).unwrap();
        next
    };
    put(&journal, IN_FLIGHT, None, &claim).unwrap();
    then(RELEASED, &Command::Release { fence, stranger: false });
    then(UNKNOWN, &Command::Abandon { fence, cause: Cause::TimedOut });
    let reply = completed(&claim, 200, b"kept".to_vec());
    put(&journal, TOMBSTONE, None, &claim).unwrap();
    put(&journal, TOMBSTONE, Some(&claim), &reply).unwrap();
    let (day, sweep) = (2 * 86_400_000, Command::Sweep);
    put(&journal, TOMBSTONE, Some(&reply), &written(Some(&reply), day, &sweep)).unwrap();
    assert!(matches!(get(&journal, TOMBSTONE).unwrap().state, State::Tombstone { .. }));
    put(&journal, DELETED, None, &claim).unwrap();
    block_on(journal.swap(id(DELETED), Some(claim.revision), None)).unwrap();
    (folder, dir, journal)
}

fn records(journal: &Journal) -> Vec<Option<Record>> {
    (0..=ABSENT).map(|number| get(journal, number)).collect()
}

/// All files with what is in them.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    all.sort();
    all
}

/// What a request gets that arrives after the restore.
fn answer(journal: &Journal, number: u64, key_time: Option<Timestamp>) -> Outcome {
    let claim = Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([2; 16]),
        holder: Holder::default(),
        key_time,
        credential: None,
        phase: Phase::Committing,
    });
    let (floor, record) = (block_on(journal.floor()).unwrap(), get(journal, number));
    decide(NOW, floor, &Policy::default(), record.as_ref(), &claim).outcome
}

fn is_restored(journal: &Journal, before: &[Option<Record>]) {
    for (number, before) in (0..).zip(before) {
        let found = get(journal, number);
        if ![IN_FLIGHT, RELEASED, UNKNOWN].contains(&number) {
            assert_eq!(found, *before, "{number}");
            continue;
        }
        let (found, before) = (found.unwrap(), before.clone().unwrap());
        // What was in doubt may have been settled and have run again: it is written anew.
        let cause = if number == UNKNOWN { Cause::TimedOut } else { Cause::Restored };
        let State::Unknown(doubt) = &found.state else { panic!("{found:?}") };
        assert_eq!((doubt.cause, doubt.only), (cause, None), "{found:?}");
        assert!(before.revision < found.revision && NOW.as_millis() <= found.revision.get());
        assert!(before.fence < found.fence, "claims since then are older");
        assert_eq!(found.fingerprint, before.fingerprint);
        let last = found.history.entries().last().unwrap().clone();
        assert_eq!((last.event, last.at, &*last.by), (Event::Restored, NOW, "restore"));
        assert!(matches!(answer(journal, number, None), Outcome::OutcomeUnknown { .. }));
    }
    assert!(matches!(answer(journal, 7, Some(TAKEN)), Outcome::Replay { .. }));
    assert!(matches!(answer(journal, TOMBSTONE, Some(TAKEN)), Outcome::Gone { .. }));
    assert!(matches!(answer(journal, UNKNOWN, None), Outcome::OutcomeUnknown { .. }));
    // One that may have run since.
    assert_eq!(answer(journal, ABSENT, Some(NOW)), Outcome::Expired);
    // Nobody can tell: this is what the documents say.
    assert!(matches!(answer(journal, ABSENT, None), Outcome::Granted(_)));
}

#[test]
fn a_backup_becomes_a_journal_that_runs_nothing_twice() {
    let (folder, _dir, journal) = filled();
    let before = records(&journal);
    let revision_max = block_on(journal.revision_max()).unwrap();
    let (backup, to) = (folder.path().join("backup"), folder.path().join("restored"));
    journal.backup(&backup, TAKEN).unwrap();
    // What happens now is not in it.
    drop(pair(&journal, ABSENT, 10));
    let bytes = contents(&backup);
    let restored = restore(&backup, &to, NOW, AHEAD).unwrap();
    assert_eq!((restored.records, restored.made_unknown), (44, 2));
    assert_eq!((restored.taken, restored.floor), (Some(TAKEN), NOW.plus(AHEAD)));
    assert_eq!(contents(&backup), bytes, "it can be restored once more");

    let open = Journal::open(&to, SMALL).unwrap();
    assert_eq!(open.secret(), journal.secret());
    assert_eq!(block_on(open.floor()).unwrap(), Floor::at(NOW.plus(AHEAD)));
    assert!(revision_max <= block_on(open.revision_max()).unwrap());
    is_restored(&open, &before);
    open.close();
    assert!(!check(&to).unwrap().is_damaged());
    assert_eq!(restore(&backup, &to, NOW, AHEAD).unwrap_err().kind(), JournalErrorKind::Exists);
    is_restored(&Journal::open(&to, SMALL).unwrap(), &before);
}

#[test]
fn the_folder_of_a_closed_journal_can_be_restored_too() {
    let (folder, dir, journal) = filled();
    let before = records(&journal);
    let to = folder.path().join("restored");
    let error = restore(&dir, &to, NOW, AHEAD).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Locked);
    journal.close();
    let restored = restore(&dir, &to, NOW, AHEAD).unwrap();
    assert_eq!((restored.records, restored.made_unknown, restored.taken), (44, 2, None));
    is_restored(&Journal::open(&to, SMALL).unwrap(), &before);
}

#[test]
fn neither_floor_nor_revisions_go_back_with_a_clock_that_does() {
    let (folder, _dir, journal) = filled();
    let (floor, far) = (Floor::at(NOW.plus(AHEAD * 9)), claimed(90_000_000_000));
    block_on(journal.raise_floor(floor)).unwrap();
    put(&journal, DELETED, None, &far).unwrap();
    block_on(journal.swap(id(DELETED), Some(far.revision), None)).unwrap();
    let (backup, to) = (folder.path().join("backup"), folder.path().join("restored"));
    journal.backup(&backup, TAKEN).unwrap();
    assert_eq!(restore(&backup, &to, NOW, AHEAD).unwrap().floor, floor.time());
    let open = Journal::open(&to, SMALL).unwrap();
    assert_eq!(block_on(open.floor()).unwrap(), floor);
    assert_eq!(block_on(open.revision_max()).unwrap(), far.revision.get());
    // In the new one they stand in a header only, as they do once older segments are gone.
    open.close();
    let again = folder.path().join("again");
    assert_eq!(restore(&to, &again, NOW, AHEAD).unwrap().floor, floor.time());
    let open = Journal::open(&again, SMALL).unwrap();
    assert_eq!(block_on(open.revision_max()).unwrap(), far.revision.get());
}

#[test]
fn a_backup_is_not_opened_as_a_journal() {
    let (folder, _dir, journal) = filled();
    let backup = folder.path().join("backup");
    journal.backup(&backup, TAKEN).unwrap();
    let bytes = contents(&backup);
    let opened = Journal::open_or_create(&backup, SMALL, Start::First).map(|_| ());
    for error in [Journal::open(&backup, SMALL).unwrap_err(), opened.unwrap_err()] {
        assert_eq!(error.kind(), JournalErrorKind::Backup);
        assert!(error.to_string().contains("onlyonce journal restore"), "{error}");
    }
    let made = Journal::init(&backup, SMALL, Start::First).unwrap_err();
    assert_eq!(made.kind(), JournalErrorKind::Exists);
    fs::remove_file(backup.join("lock")).unwrap();
    assert_eq!(contents(&backup), bytes);
    assert!(check(&backup).unwrap().findings.is_empty());
    assert_eq!(contents(&backup), bytes);
    // Nor once it lost its label.
    fs::remove_file(backup.join("format")).unwrap();
    assert_eq!(Journal::open(&backup, SMALL).unwrap_err().kind(), JournalErrorKind::Missing);
    let made = Journal::init(&backup, SMALL, Start::First).unwrap_err();
    assert_eq!(made.kind(), JournalErrorKind::Exists);
}

#[test]
fn a_backup_that_is_not_whole_or_is_damaged_is_not_restored() {
    let (folder, _dir, journal) = filled();
    let (backup, to) = (folder.path().join("backup"), folder.path().join("restored"));
    let last = journal.backup(&backup, TAKEN).unwrap().segments;
    let name = |number: usize| backup.join(format!("{number:010}.log"));
    let is_refused = || {
        let error = restore(&backup, &to, NOW, AHEAD).unwrap_err();
        assert_eq!(error.kind(), JournalErrorKind::Damaged, "{error}");
        assert!(!to.exists() && !to.with_file_name("restored.new").exists());
        assert!(check(&backup).unwrap().is_damaged());
    };
    for number in 1..=last {
        let bytes = fs::read(name(number)).unwrap();
        fs::remove_file(name(number)).unwrap();
        is_refused();
        fs::write(name(number), &bytes[..bytes.len() - 1]).unwrap();
        is_refused();
        let mut flipped = bytes.clone();
        let at = flipped.len() - 5;
        flipped[at] ^= 1;
        fs::write(name(number), flipped).unwrap();
        is_refused();
        fs::write(name(number), bytes).unwrap();
    }
    // What can be read of a damaged one can be saved.
    fs::remove_file(name(last)).unwrap();
    assert!(30 <= salvage(&backup, &to, NOW, AHEAD).unwrap().records);
    assert!(Journal::open(&to, Settings::default()).is_ok());
}

/// Zeros are passed by in steps, and an entry may begin with zeros itself.
#[test]
fn an_entry_behind_zeros_is_found_wherever_it_begins() {
    let payload = (0..).find_map(|reply| {
        let (mut payload, record) = (Vec::new(), completed(&claimed(1), 2, vec![7; reply]));
        codec::encode(id(1), &record, &mut payload);
        (payload.len() == 512).then_some(payload)
    });
    let payload = payload.unwrap();
    for at in (STEP + HEADER - 8)..(STEP + HEADER + 8) {
        let mut entry = Vec::new();
        entry::append(&mut entry, 1, at as u64, &payload);
        assert_eq!(entry[..2], [0, 2], "its length begins with a zero");
        let mut all = vec![0; 4 * STEP];
        all[at..at + entry.len()].copy_from_slice(&entry);
        let survey = survey(&Bytes::from(all), 1);
        let found: Vec<u64> = survey.entries.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(found, [at as u64]);
    }
}
