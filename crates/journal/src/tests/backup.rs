//! A backup holds all that was confirmed before it, whatever goes on meanwhile, and a half-made one
//! is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_executor::block_on;
use onlyonce_core::{Floor, Record, Secret, Timestamp};
use onlyonce_store::{Store, Swap};

use super::sim_disk::{Random, SimDisk};
use super::{SMALL, claimed, completed, get, id, new_disk, open, pair, put};
use crate::check::check;
use crate::dir::Start;
use crate::disk::{Disk, Folder, Medium};
use crate::error::JournalErrorKind;
use crate::journal::Journal;
use crate::keeper::Prepared;
use crate::segment::{self, Header};
use crate::shared::Standing;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const KEYS: u64 = 60;

/// A journal in a real folder, where a file that lost its name can still be read.
fn in_folder() -> (tempfile::TempDir, PathBuf, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    (folder, dir, journal)
}

/// What is in a backup, read as a journal would be.
fn opened(backup: Arc<dyn Disk>) -> Journal {
    Journal::on(backup, SMALL, Secret::from_bytes([1; 32]), None).unwrap()
}

fn opened_at(dir: &Path) -> Journal {
    opened(Arc::new(Folder::at(dir)))
}

fn is_clean(dir: &Path) {
    let report = check(dir).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_crash_while_it_is_made_leaves_none_or_a_whole_one() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let floor = Floor::at(Timestamp::from_millis(77));
    block_on(journal.raise_floor(floor)).unwrap();
    let records: Vec<Record> = (0..KEYS).map(|number| pair(&journal, number, 8_000)).collect();
    journal.close();
    let revision_max = block_on(journal.revision_max()).unwrap();
    let journal = open(&disk).unwrap();

    let (target, before) = (SimDisk::default(), disk.calls());
    let backup = journal.copy_to(&target, NOW).unwrap();
    assert_eq!(backup.segments, journal.stats().segments);
    assert!(3 < backup.segments);
    assert_eq!(disk.calls(), before, "the journal's own files are only read");
    let mut random = Random(11);
    let mut whole = 0;
    for calls in 0..=target.calls() {
        for crashed in [target.after_crash(calls, &mut random), target.after_kill(calls)] {
            if !crashed.names().iter().any(|name| name == "format") {
                continue;
            }
            whole += 1;
            let copy = opened(Arc::new(crashed));
            for (number, record) in (0..).zip(&records) {
                assert_eq!(get(&copy, number).as_ref(), Some(record), "{number} of {calls}");
            }
            assert_eq!(block_on(copy.floor()).unwrap(), floor);
            assert_eq!(block_on(copy.revision_max()).unwrap(), revision_max);
            assert_eq!(copy.cut(), 0);
        }
    }
    assert!(0 < whole && whole < target.calls());
}

#[test]
fn one_that_begins_with_a_new_segment_ends_at_its_start() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let record = pair(&journal, 1, 8_000);
    // What the writer does when a segment is full, before it writes to the next one.
    let Standing { segments: before, until: end, .. } = journal.shared.standing();
    assert!(8_000 < end.offset);
    let header = Header { number: 2, previous: end, ..Header::default() };
    let (name, length) = (segment::name(2), SMALL.segment_bytes);
    let medium = disk.create(&name).unwrap();
    medium.write_at(&header.bytes(), 0).unwrap();
    journal.shared.begin_segment(2, Prepared { name, medium, length });
    let target = SimDisk::default();
    let backup = journal.copy_to(&target, NOW).unwrap();
    assert_eq!(backup.segments, before.len() + 1);
    assert_eq!(backup.bytes, end.offset + segment::HEADER as u64);
    assert_eq!(get(&opened(Arc::new(target)), 1), Some(record));
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let (_folder, dir, journal) = in_folder();
    (0..KEYS).for_each(|number| drop(pair(&journal, number, 8_000)));
    let to = dir.with_file_name("backup");
    let place = dir.join(segment::name(2));
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&place, bytes).unwrap();
    let error = journal.backup(&to, NOW).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Damaged, "damage is not copied: {error}");
    assert_eq!(error.place(), place);
    let names = std::fs::read_dir(dir.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1, "only the journal is there");
}

#[test]
fn it_is_made_in_a_new_folder_beside_the_journal() {
    let (folder, dir, journal) = in_folder();
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    std::fs::create_dir(folder.path().join("begun.new")).unwrap();
    let (begun, inside) = (folder.path().join("begun"), dir.join("backup"));
    for to in [&taken, &link, &begun, &inside, &dir, &folder.path().join("..")] {
        let error = journal.backup(to, NOW).unwrap_err();
        assert_eq!(error.kind(), JournalErrorKind::Exists, "{error}");
    }
    assert!(folder.path().join("begun.new").exists(), "it may be somebody else's");
    let missing = journal.backup(&folder.path().join("no/where"), NOW).unwrap_err();
    assert_eq!(missing.kind(), JournalErrorKind::Io, "{missing}");
}

/// A folder in which something else happens once the second segment is begun.
struct Meanwhile<'a> {
    disk: Folder,
    then: &'a (dyn Fn() + Send + Sync),
}

impl fmt::Debug for Meanwhile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Meanwhile<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        if name == segment::name(2) {
            (self.then)();
        }
        self.disk.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.disk.place(name)
    }
}

#[test]
fn segments_that_are_given_back_meanwhile_are_in_it() {
    let (folder, dir, journal) = in_folder();
    let records: Vec<Record> = (0..KEYS).map(|number| pair(&journal, number, 8_000)).collect();
    let to = folder.path().join("backup");
    std::fs::create_dir(&to).unwrap();
    let meanwhile = || {
        for (number, record) in (0..).zip(&records).filter(|(number, _)| number % 20 != 3) {
            let gone = block_on(journal.swap(id(number), Some(record.revision), None));
            assert_eq!(gone.unwrap(), Swap::Done);
        }
        drop(pair(&journal, 1_000, 8_000));
        block_on(journal.reclaim()).unwrap();
        assert!(!dir.join(segment::name(2)).exists(), "it is unlinked while it is copied");
    };
    let target = Meanwhile { disk: Folder::at(&to), then: &meanwhile };
    journal.copy_to(&target, NOW).unwrap();
    is_clean(&to);
    let copy = opened_at(&to);
    for (number, record) in (0..).zip(&records) {
        assert_eq!(get(&copy, number).as_ref(), Some(record), "{number}");
    }
    assert_eq!(get(&copy, 1_000), None, "what came later is not in it");
    // And the journal has gone on.
    let living: BTreeSet<u64> =
        (0..KEYS).filter(|number| get(&journal, *number).is_some()).collect();
    assert_eq!(living, BTreeSet::from([3, 23, 43]));
}

/// Lets others end, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_confirmed_before_it_begins_is_in_it_while_callers_write() {
    let (folder, _, journal) = in_folder();
    let (ends, confirmed) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    let write = |from: u64| {
        for number in (from..).take_while(|_| !ends.load(Ordering::Relaxed)) {
            let claim = claimed(number);
            put(&journal, number, None, &claim).unwrap();
            confirmed.lock().unwrap().insert(number, vec![claim.clone()]);
            let complete = completed(&claim, number + 1, vec![number as u8; 2_000]);
            put(&journal, number, Some(&claim), &complete).unwrap();
            confirmed.lock().unwrap().entry(number).or_default().push(complete.clone());
            if number % 3 == 0 {
                let gone = block_on(journal.swap(id(number), Some(complete.revision), None));
                assert_eq!(gone.unwrap(), Swap::Done);
                confirmed.lock().unwrap().remove(&number);
            }
        }
    };
    let reclaim = || {
        while !ends.load(Ordering::Relaxed) {
            block_on(journal.reclaim()).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let ending = Ending(&ends);
        for from in [0, 1_000_000, 2_000_000] {
            let write = &write;
            scope.spawn(move || write(from));
        }
        scope.spawn(reclaim);
        for round in 0..8 {
            // Over several segments.
            let begun = journal.stats().entries;
            while journal.stats().entries < begun + 150 {
                std::thread::yield_now();
            }
            let before: BTreeMap<u64, Vec<Record>> = confirmed.lock().unwrap().clone();
            let to = folder.path().join(format!("backup-{round}"));
            journal.backup(&to, NOW).unwrap();
            is_clean(&to);
            let copy = opened_at(&to);
            for (number, records) in &before {
                let found = get(&copy, *number);
                // It may have gone on meanwhile, and have been deleted then.
                let later = found.as_ref().map_or(number % 3 == 0, |found| {
                    records.last().map(|it| it.revision) <= Some(found.revision)
                });
                assert!(later, "{number} is {found:?} and was {records:?}");
            }
        }
        drop(ending);
    });
}
