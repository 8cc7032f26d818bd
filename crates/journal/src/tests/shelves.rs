//! Old tombstones are in files and not in memory, and nobody notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::{Command, KeyId, Record, Revision, StateKind, Timestamp};
use onlyonce_store::{Due, Filter, Store, StoreErrorKind, Swap};

use super::sim_disk::{Random, SimDisk};
use super::{SMALL, claimed, completed, get, id, new_disk, open_with, pair, put, written};
use crate::disk::Disk as _;
use crate::error::JournalErrorKind;
use crate::journal::{Journal, Settings};
use crate::merge;
use crate::segment;
use crate::shelve::{self, Install};
use crate::shelves;
use crate::writer::{Change, Written};

/// Every tombstone is old at once.
pub(super) const AT_ONCE: Settings = Settings { shelve_after: Duration::ZERO, ..SMALL };
const DAY: u64 = 86_400_000;

/// What the sweeper makes of an answer a day later.
pub(super) fn tombstone(answer: &Record) -> Record {
    let at = answer.revision.get() - 1_764_000_000_000 + DAY;
    let record = written(Some(answer), at, &Command::Sweep);
    assert_eq!(record.state.kind(), StateKind::Tombstone);
    record
}

/// A key that was answered and whose answer is over.
pub(super) fn bury(journal: &Journal, number: u64) -> Record {
    let answer = pair(journal, number, 10);
    let record = tombstone(&answer);
    assert_eq!(put(journal, number, Some(&answer), &record).unwrap(), Swap::Done);
    record
}

pub(super) fn reclaim(journal: &Journal) {
    block_on(journal.reclaim()).unwrap();
}

pub(super) fn delete(journal: &Journal, number: u64, record: &Record) -> Swap {
    block_on(journal.swap(id(number), Some(record.revision), None)).unwrap()
}

/// A journal whose tombstones are on one shelf.
pub(super) fn shelved(disk: &SimDisk, keys: u64) -> (Journal, Vec<Record>) {
    let journal = open_with(disk, AT_ONCE).unwrap();
    let records = (0..keys).map(|number| bury(&journal, number)).collect();
    reclaim(&journal);
    assert_eq!(journal.stats().shelved as u64, keys);
    assert_eq!(journal.shared.index.len(), 0);
    (journal, records)
}

pub(super) fn again(journal: Journal, disk: &SimDisk) -> Journal {
    journal.close();
    drop(journal);
    open_with(disk, AT_ONCE).unwrap()
}

/// Until the first segment, with all that was written until now, is gone.
fn drive_out(journal: &Journal, disk: &SimDisk) {
    let fill = |number| (number, pair(journal, number, 8_000));
    let filler: Vec<(u64, Record)> = (1_000..1_060).map(fill).collect();
    for (number, record) in &filler {
        delete(journal, *number, record);
    }
    reclaim(journal);
    assert!(1 < segment::numbers(disk).unwrap()[0]);
}

pub(super) fn files(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".old")).collect()
}

#[test]
fn an_old_tombstone_takes_at_most_two_bytes_of_memory_and_96_on_disk() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 3_000);
    let stats = journal.stats();
    assert!(stats.shelved_bytes <= 2 * records.len(), "{stats:?}");
    assert_eq!(stats.index_bytes, 0, "{stats:?}");
    let length = disk.open(&files(&disk)[0]).unwrap().len().unwrap();
    assert!(length <= 96 * records.len() as u64, "{length} bytes");
    let journal = again(journal, &disk);
    assert_eq!(journal.stats().shelved_bytes, stats.shelved_bytes);
    assert_eq!(journal.stats().index_bytes, 0);
}

#[test]
fn tombstones_that_were_in_the_index_leave_no_room_there_once_they_are_on_a_shelf() {
    let (disk, large) = (new_disk(), Settings { segment_bytes: 8 << 20, ..AT_ONCE });
    let journal = open_with(&disk, large).unwrap();
    (10_000..12_000).for_each(|number| drop(pair(&journal, number, 10)));
    let alone = again(journal, &disk).stats();
    let journal = open_with(&disk, large).unwrap();
    (0..4_000).for_each(|number| drop(bury(&journal, number)));
    let many = journal.stats().index_bytes;
    reclaim(&journal);
    // The log still has them all, also for who opens it.
    assert_eq!(segment::numbers(&disk).unwrap(), [1, 2]);
    for journal in [journal.clone(), again(journal, &disk)] {
        let stats = journal.stats();
        assert_eq!((stats.shelved, stats.keys), (4_000, 6_000));
        // Room for a quarter more keys, and no table shrinks by less than half.
        let room = alone.index_bytes * 5 / 4;
        assert!(stats.index_bytes <= room && room < many, "{stats:?}, {alone:?} without them");
    }
}

#[test]
fn a_list_that_cannot_be_written_leaves_tombstones_in_memory_no_longer_than_that() {
    let disk = new_disk();
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let records: Vec<Record> = (0..100).map(|number| bury(&journal, number)).collect();
    for refused in [true, true, false] {
        disk.refuse_new(refused.then_some("shelves.new"));
        assert_eq!(block_on(journal.reclaim()).is_err(), refused);
        for (number, record) in (0..).zip(&records) {
            assert_eq!(get(&journal, number).as_ref(), Some(record));
        }
        assert_eq!(journal.shared.index.len(), if refused { 100 } else { 0 });
    }
    assert_eq!((journal.stats().shelved, files(&disk).len()), (100, 1));
    assert_eq!(get(&again(journal, &disk), 3), Some(records[3].clone()));
}

#[test]
fn a_tombstone_on_a_shelf_is_seen_as_if_it_were_in_the_index() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 300);
    let later = bury(&journal, 1_000);
    let revision_max = block_on(journal.revision_max()).unwrap();
    for journal in [journal.clone(), again(journal, &disk)] {
        assert_eq!(journal.stats().keys, 301);
        for (number, record) in (0..).zip(&records) {
            assert_eq!(get(&journal, number).as_ref(), Some(record));
            // Nobody claims it, and who expects another revision hears what is there.
            let conflict = Swap::Conflict(Some(record.clone()));
            assert_eq!(put(&journal, number, None, &claimed(9)).unwrap(), conflict);
            let other = Revision::new(record.revision.get() - 1);
            assert_eq!(block_on(journal.swap(id(number), other, None)).unwrap(), conflict);
        }
        assert_eq!(get(&journal, 5_000), None);
        assert_eq!(block_on(journal.revision_max()).unwrap(), revision_max);
        assert_eq!(revision_max, later.revision.get());
        let filters = [None, Some(StateKind::Tombstone)];
        for state in filters {
            let listed = all(&journal, Filter { state, limit: 7 });
            let expected: BTreeMap<KeyId, Record> = (0..)
                .zip(&records)
                .chain([(1_000, &later)])
                .map(|(number, record)| (id(number), record.clone()))
                .collect();
            assert_eq!(listed, expected.into_iter().collect::<Vec<_>>());
        }
        let completed = Filter { state: Some(StateKind::Completed), limit: 7 };
        assert_eq!(all(&journal, completed), []);
    }
}

/// All pages of a listing.
fn all(journal: &Journal, filter: Filter) -> Vec<(KeyId, Record)> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = block_on(journal.list(filter.clone(), after)).unwrap();
        assert_eq!(page.damaged, []);
        listed.extend(page.records);
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}

#[test]
fn what_is_due_on_a_shelf_is_named_until_it_is_deleted() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 300);
    let due = |journal: &Journal, at: u64, limit| {
        let over_at = Timestamp::from_millis(at);
        let released_until = Timestamp::from_millis(0);
        block_on(journal.due(Due { over_at, forget_until: over_at, released_until }, limit))
            .unwrap()
    };
    let forget_at = |record: &Record| segment::due(record);
    assert!(due(&journal, forget_at(&records[0]) - 1, 1_000).is_empty());
    assert_eq!(due(&journal, forget_at(&records[99]), 1_000).len(), 100);
    assert_eq!(due(&journal, forget_at(&records[299]), 70).len(), 70);
    for (number, record) in (0..).zip(&records).take(100) {
        assert_eq!(delete(&journal, number, record), Swap::Done);
    }
    assert!(due(&journal, forget_at(&records[99]), 1_000).is_empty());
    let journal = again(journal, &disk);
    assert_eq!(due(&journal, forget_at(&records[100]), 1_000), [id(100)]);
    assert_eq!(due(&journal, forget_at(&records[299]), 1_000).len(), 200);
}

#[test]
fn only_what_is_old_enough_goes_and_nothing_but_tombstones() {
    let disk = new_disk();
    let settings = Settings { shelve_after: Duration::from_millis(DAY), ..SMALL };
    let journal = open_with(&disk, settings).unwrap();
    let old = bury(&journal, 1);
    let answer = pair(&journal, 2, 10);
    let young = bury(&journal, DAY / 4);
    reclaim(&journal);
    assert_eq!(journal.stats().shelved, 0);
    // An hour past the day it is looked for.
    let free = pair(&journal, 2 * DAY + DAY / 24 + 5, 10);
    reclaim(&journal);
    assert_eq!(journal.stats().shelved, 1);
    for (number, record) in
        [(1, old), (2, answer), (DAY / 4, young), (2 * DAY + DAY / 24 + 5, free)]
    {
        assert_eq!(get(&journal, number), Some(record));
    }
    // The time that the sweeper names counts too: a quiet journal forgets as well.
    let over_at = Timestamp::from_millis(1_764_000_000_000 + 3 * DAY);
    let asked = Due { over_at, forget_until: over_at, released_until: over_at };
    block_on(journal.due(asked, 1)).unwrap();
    reclaim(&journal);
    assert_eq!(journal.stats().shelved, 2);
}

#[test]
fn a_deleted_key_never_comes_back_when_its_deletion_has_left_the_log() {
    let disk = new_disk();
    let (mut journal, records) = shelved(&disk, 100);
    let gone = |number: u64| number % 5 == 2;
    for (number, record) in (0..).zip(&records).filter(|(number, _)| gone(*number)) {
        assert_eq!(delete(&journal, number, record), Swap::Done);
    }
    drive_out(&journal, &disk);
    for _ in 0..2 {
        journal = again(journal, &disk);
        for (number, record) in (0..).zip(&records) {
            let expected = (!gone(number)).then(|| record.clone());
            assert_eq!(get(&journal, number), expected, "{number}");
        }
        assert_eq!(journal.stats().keys, 80);
    }
    // A new life is another record, also once it is deleted.
    let answer = pair(&journal, 2, 10);
    assert_eq!(get(&again(journal.clone(), &disk), 2), Some(answer.clone()));
    let journal = open_with(&disk, AT_ONCE).unwrap();
    delete(&journal, 2, &answer);
    assert_eq!(get(&again(journal, &disk), 2), None);
}

#[test]
fn what_is_deleted_while_room_is_given_back_does_not_come_back_either() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 20);
    // As if tombstones had been moved already when this one goes.
    assert_eq!(delete(&journal, 3, &records[3]), Swap::Done);
    for number in 1_000..1_060 {
        let answer = pair(&journal, number, 8_000);
        delete(&journal, number, &answer);
    }
    block_on(journal.unlink_oldest()).unwrap();
    assert!(1 < segment::numbers(&disk).unwrap()[0]);
    assert_eq!(get(&again(journal, &disk), 3), None);
}

#[test]
fn a_tombstone_can_be_replaced_and_what_it_was_never_shows_again() {
    let disk = new_disk();
    let (mut journal, records) = shelved(&disk, 50);
    let newer: Vec<Record> = records
        .iter()
        .map(|record| Record {
            revision: Revision::new(record.revision.get() + 7).unwrap(),
            ..record.clone()
        })
        .collect();
    for (number, record) in (0..).zip(&newer) {
        assert_eq!(
            put(&journal, number, Some(&records[number as usize]), record).unwrap(),
            Swap::Done
        );
    }
    for shelves in [1, 2] {
        for journal in [journal.clone(), again(journal.clone(), &disk)] {
            assert_eq!(get(&journal, 3), Some(newer[3].clone()), "with {shelves} shelves");
            journal.close();
        }
        journal = open_with(&disk, AT_ONCE).unwrap();
        // Now both may be on shelves.
        reclaim(&journal);
    }
    for (number, record) in (0..).zip(&newer) {
        assert_eq!(delete(&journal, number, record), Swap::Done);
        assert_eq!(get(&journal, number), None);
    }
    let journal = again(journal, &disk);
    assert!((0..50).all(|number| get(&journal, number).is_none()));
}

#[test]
fn shelves_stay_few_and_go_when_all_on_them_is_deleted() {
    let disk = new_disk();
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let mut records = Vec::new();
    for batch in 0..20 {
        records.extend((0..20).map(|at| bury(&journal, batch * 20 + at)));
        reclaim(&journal);
        assert!(files(&disk).len() <= 9, "{:?}", files(&disk));
    }
    for (number, record) in (0..).zip(&records) {
        assert_eq!(get(&journal, number).as_ref(), Some(record));
    }
    let journal = again(journal, &disk);
    let before = journal.stats();
    assert_eq!(before.shelved, 400);
    // Most of them, then all.
    for (number, record) in (0..).zip(&records).filter(|(number, _)| number % 4 != 1) {
        delete(&journal, number, record);
    }
    reclaim(&journal);
    let half = journal.stats();
    assert_eq!(half.shelved, 100);
    assert!(half.shelved_bytes <= before.shelved_bytes, "{half:?}");
    for (number, record) in (0..).zip(&records).filter(|(number, _)| number % 4 == 1) {
        assert_eq!(get(&journal, number).as_ref(), Some(record));
        delete(&journal, number, record);
    }
    reclaim(&journal);
    assert_eq!(files(&disk), Vec::<String>::new());
    assert_eq!(journal.stats().keys, 0);
    assert_eq!(again(journal, &disk).stats().keys, 0);
}

#[test]
fn what_is_deleted_while_a_shelf_is_made_is_not_on_it() {
    let disk = new_disk();
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let records: Vec<Record> = (0..40).map(|number| bury(&journal, number)).collect();
    let segments = [(1, 0)];
    let made = shelve::make(&journal.shared, &segments, u64::MAX - 1).unwrap().unwrap();
    delete(&journal, 3, &records[3]);
    let install = Install { new: Some(Arc::clone(&made.shelf)), without: Vec::new() };
    let show = |install| {
        let asked = journal.ask(Vec::new(), Change::Shelves(install)).unwrap();
        block_on(asked).unwrap().unwrap()
    };
    assert_eq!(show(install), Written::Done);
    assert_eq!(get(&journal, 3), None);
    // The same while shelves are merged.
    let inputs = journal.shared.shelves().list.clone();
    let new = merge::merged(&journal.shared, &inputs).unwrap();
    delete(&journal, 4, &records[4]);
    let without = inputs.iter().map(|it| it.number).collect();
    assert_eq!(show(Install { new: new.clone(), without }), Written::Done);
    let moved = std::mem::take(&mut *journal.shared.moved.lock().unwrap());
    assert_eq!(moved.len(), 40);
    moved.iter().for_each(|(id, slot)| journal.shared.index.forget(*id, *slot));
    for number in 0..40 {
        let expected = (number != 3 && number != 4).then(|| records[number as usize].clone());
        assert_eq!(get(&journal, number), expected, "{number}");
    }
    // A shelf for which nobody has noted what was deleted is not shown.
    assert_eq!(show(Install { new, without: Vec::new() }), Written::Raced);
}

#[test]
fn whoever_asked_before_the_shelves_changed_looks_again() {
    let disk = new_disk();
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let records: Vec<Record> = (0..40).map(|number| bury(&journal, number)).collect();
    let (_, claim) = journal.shared.look(id(99), false).unwrap();
    let (_, deletion) = journal.shared.look(id(3), true).unwrap();
    reclaim(&journal);
    let ask = |number, expected: Option<&Record>, next: Option<&Record>, looked| {
        let expected = expected.map(|record| record.revision.get());
        let (payload, fact) = crate::journal::change(id(number), expected, next).unwrap();
        let asked = journal.ask(payload, Change::Key { expected, fact, looked });
        block_on(asked.unwrap()).unwrap().unwrap()
    };
    assert_eq!(ask(99, None, Some(&claimed(9)), claim), Written::Raced);
    assert_eq!(ask(3, Some(&records[3]), None, deletion), Written::Raced);
    assert_eq!(delete(&journal, 3, &records[3]), Swap::Done);
    assert_eq!(get(&journal, 3), None);
}

#[test]
fn a_crash_between_a_shelf_and_the_end_of_its_segments_leaves_each_key_once() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 40);
    // The segment is still there: it is the last one.
    assert_eq!(segment::numbers(&disk).unwrap().len(), 1);
    let journal = again(journal, &disk);
    assert_eq!((journal.stats().keys, journal.shared.index.len()), (40, 0));
    assert_eq!(get(&journal, 7).as_ref(), Some(&records[7]));
    let before = files(&disk);
    reclaim(&journal);
    assert_eq!(files(&disk), before, "nothing is moved twice");
}

#[test]
fn a_journal_says_that_it_has_shelves_and_refuses_to_open_without_their_list() {
    let disk = new_disk();
    let journal = open_with(&disk, AT_ONCE).unwrap();
    bury(&journal, 1);
    assert!(!disk.names().contains(&"format".to_owned()));
    reclaim(&journal);
    journal.close();
    let label = disk.open("format").unwrap().read_all().unwrap();
    // A program that knows no shelves knows formats up to 1 and refuses.
    assert!(label.starts_with(b"onlyonce journal, format 2\nsecret "), "{label:?}");
    disk.forget(shelves::LIST_FILE);
    let error = open_with(&disk, AT_ONCE).err().unwrap();
    assert_eq!(error.kind(), JournalErrorKind::Damaged);
    assert!(error.to_string().contains("disk/shelves at byte 0"), "{error}");
}

#[test]
fn any_flipped_bit_of_a_shelf_or_its_list_is_refused_with_file_and_offset() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 200);
    delete(&journal, 1, &records[1]);
    drive_out(&journal, &disk);
    journal.close();
    let (file, mut random) = (files(&disk)[0].clone(), Random(7));
    let mut served = 0;
    for name in [file.as_str(), shelves::LIST_FILE] {
        let length = disk.open(name).unwrap().len().unwrap();
        for _ in 0..150 {
            let (at, bit) = (random.below(length) as usize, random.below(8));
            let flip = || disk.tamper(name, |bytes| bytes[at] ^= 1 << bit);
            flip();
            match open_with(&disk, AT_ONCE) {
                Ok(journal) => {
                    served += 1;
                    for (number, record) in (0..).zip(&records) {
                        match block_on(journal.get(id(number))) {
                            Ok(found) => {
                                assert_eq!(found, (number != 1).then(|| record.clone()));
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), StoreErrorKind::Damaged);
                                assert!(error.to_string().contains(".old at byte"), "{error}");
                            }
                        }
                    }
                    let broken = (0..200).filter(|it| block_on(journal.get(id(*it))).is_err());
                    assert_ne!(broken.count(), 0, "byte {at} of {name}");
                    journal.close();
                }
                Err(error) => {
                    assert_eq!(error.kind(), JournalErrorKind::Damaged, "{error}");
                    assert!(error.place().ends_with(name) && error.offset().is_some(), "{error}");
                }
            }
            flip();
        }
    }
    assert_ne!(served, 0, "blocks are read only when somebody asks for a key of them");
    assert!(open_with(&disk, AT_ONCE).is_ok());
}

#[test]
fn a_shelf_that_is_missing_or_cut_short_is_refused() {
    let disk = new_disk();
    let (journal, _) = shelved(&disk, 50);
    journal.close();
    let file = files(&disk)[0].clone();
    let mut whole = Vec::new();
    disk.tamper(&file, |bytes| {
        whole = bytes.clone();
        bytes.truncate(bytes.len() - 9);
    });
    let error = open_with(&disk, AT_ONCE).err().unwrap();
    assert_eq!(error.kind(), JournalErrorKind::Damaged, "{error}");
    disk.tamper(&file, |bytes| bytes.clear());
    assert!(open_with(&disk, AT_ONCE).err().unwrap().to_string().contains(&file));
    disk.forget(&file);
    let error = open_with(&disk, AT_ONCE).err().unwrap();
    assert!(error.to_string().contains(&format!("{file} at byte 0: it is missing")), "{error}");
}

/// A life of the journal at random, beside a map that says what is true.
#[test]
fn whatever_happens_in_whatever_order_the_journal_says_what_a_map_says() {
    for seed in 1..5 {
        let (disk, mut random) = (new_disk(), Random(seed));
        let mut truth: BTreeMap<u64, Record> = BTreeMap::new();
        let mut journal = open_with(&disk, AT_ONCE).unwrap();
        let mut at = 0;
        for _ in 0..400 {
            // A new life of a key has revisions above all earlier ones.
            at += 2 * DAY;
            let number = random.below(60);
            let known = truth.get(&number).cloned();
            match (random.below(12), known) {
                (0, _) => reclaim(&journal),
                (1, _) => journal = again(journal, &disk),
                (2..=3, Some(record)) => {
                    assert_eq!(delete(&journal, number, &record), Swap::Done);
                    truth.remove(&number);
                }
                (_, None) => {
                    let claim = claimed(at);
                    assert_eq!(put(&journal, number, None, &claim).unwrap(), Swap::Done);
                    truth.insert(number, claim);
                }
                (_, Some(record)) => {
                    let next = match record.state.kind() {
                        StateKind::InFlight => completed(&record, at, vec![7; 900]),
                        StateKind::Completed => tombstone(&record),
                        StateKind::Tombstone | StateKind::Released | StateKind::Unknown => {
                            let revision = Revision::new(record.revision.get() + 1).unwrap();
                            Record { revision, ..record.clone() }
                        }
                    };
                    assert_eq!(put(&journal, number, Some(&record), &next).unwrap(), Swap::Done);
                    truth.insert(number, next);
                }
            }
            for number in 0..60 {
                assert_eq!(get(&journal, number).as_ref(), truth.get(&number), "seed {seed}");
            }
        }
        let listed: BTreeMap<KeyId, Record> =
            all(&journal, Filter { state: None, limit: 3 }).into_iter().collect();
        let expected = truth.iter().map(|(number, record)| (id(*number), record.clone()));
        assert_eq!(listed, expected.collect());
    }
}
