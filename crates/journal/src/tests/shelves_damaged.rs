//! A block of a shelf that cannot be read: nothing runs that may be in it, and all else goes on.

use std::collections::BTreeSet;

use futures_executor::block_on;
use onlyonce_core::{Record, Timestamp};
use onlyonce_store::{Due, Store, StoreErrorKind, Swap};

use super::shelves::{AT_ONCE, again, bury, delete, files, reclaim, shelved};
use super::sim_disk::SimDisk;
use super::{claimed, get, id, new_disk, open_with, pair, put};
use crate::journal::{Journal, Settings};
use crate::segment;

const KEYS: u64 = 2_000;
/// Segments that hold all of them.
const LARGE: Settings = Settings { segment_bytes: 2 << 20, ..AT_ONCE };

/// Spoils the fifth block or so of the first shelf, or mends it again.
fn spoil(disk: &SimDisk) {
    let file = files(disk)[0].clone();
    disk.tamper(&file, |bytes| bytes[40_000] ^= 1);
}

/// What a read says: what is there, or that it is damaged, and where.
fn look(journal: &Journal, number: u64) -> Result<Option<Record>, String> {
    block_on(journal.get(id(number))).map_err(|error| {
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        assert!(error.to_string().contains(".old at byte"), "{error}");
        error.to_string()
    })
}

/// That room is given back, and that it is said what is damaged.
fn reclaim_and_hear(journal: &Journal) {
    let error = block_on(journal.reclaim()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.to_string().contains("0000000001.old at byte"), "{error}");
}

/// Half a megabyte of keys that are deleted at once.
fn fill_up(journal: &Journal, from: u64) {
    let fill = |number| (number, pair(journal, number, 8_000));
    let filler: Vec<(u64, Record)> = (from..from + 60).map(fill).collect();
    for (number, record) in &filler {
        // One that the damaged block may have stays.
        let _ = block_on(journal.swap(id(*number), Some(record.revision), None));
    }
}

/// A journal whose only copies of old tombstones are on a shelf.
fn on_shelf_alone(disk: &SimDisk) -> (Journal, Vec<Record>) {
    let (journal, records) = shelved(disk, KEYS);
    let first = segment::numbers(disk).unwrap()[0];
    fill_up(&journal, 900_000);
    reclaim(&journal);
    assert!(first < segment::numbers(disk).unwrap()[0]);
    (journal, records)
}

/// The keys of which nobody can say anything; all others are as they were.
fn unread(journal: &Journal, records: &[Record]) -> BTreeSet<u64> {
    let mut unread = BTreeSet::new();
    for (number, record) in (0..).zip(records) {
        match look(journal, number) {
            Ok(found) => assert_eq!(found.as_ref(), Some(record), "{number}"),
            Err(_) => drop(unread.insert(number)),
        }
    }
    unread
}

#[test]
fn a_damaged_block_refuses_its_keys_and_nothing_else() {
    let disk = new_disk();
    let (journal, records) = on_shelf_alone(&disk);
    journal.close();
    spoil(&disk);
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let lost = unread(&journal, &records);
    assert!(50 < lost.len() && lost.len() < 200, "{} are lost", lost.len());
    for number in &lost {
        // Neither a first request nor a deletion gets past it.
        let error = put(&journal, *number, None, &claimed(9)).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        let revision = Some(records[*number as usize].revision);
        assert!(block_on(journal.swap(id(*number), revision, None)).is_err());
    }
    // A key that is new is denied by the filter, but for one in seventy of those in that place.
    let refused = (10_000..12_000).filter(|number| look(&journal, *number).is_err()).count();
    assert!(refused < 20, "{refused} of 2,000 new keys are refused");
}

#[test]
fn a_journal_opens_when_its_log_speaks_of_a_damaged_block() {
    let disk = new_disk();
    let journal = open_with(&disk, LARGE).unwrap();
    fill_up(&journal, 800_000);
    let records: Vec<Record> = (0..KEYS).map(|number| bury(&journal, number)).collect();
    reclaim(&journal);
    let log = segment::numbers(&disk).unwrap();
    assert_eq!((journal.shared.index.len(), log.len()), (0, 1), "the log still has them all");
    let gone = |number: u64| number.is_multiple_of(20);
    for (number, record) in (0..).zip(&records).filter(|(number, _)| gone(*number)) {
        assert_eq!(delete(&journal, number, record), Swap::Done);
    }
    journal.close();
    spoil(&disk);
    let journal = open_with(&disk, LARGE).unwrap();
    let mut in_doubt = BTreeSet::new();
    let mut holds = |journal: &Journal, when: &str| {
        for (number, record) in (0..).zip(&records) {
            match look(journal, number) {
                // The log has it, whatever became of the shelf.
                Ok(found) if !gone(number) => {
                    assert_eq!(found.as_ref(), Some(record), "{number} {when}");
                }
                Ok(found) => assert_eq!(found, None, "{number} {when}"),
                Err(error) => {
                    assert!(gone(number), "{number} {when}: {error}");
                    in_doubt.insert(number);
                }
            }
        }
    };
    holds(&journal, "at once");
    // Nobody knows what of it was deleted, so it is not served when it can be read again.
    spoil(&disk);
    holds(&journal, "when it can be read again");
    spoil(&disk);
    reclaim_and_hear(&journal);
    holds(&journal, "after room was given back");
    let mut from = 900_000;
    while segment::numbers(&disk).unwrap()[0] == log[0] {
        from += 60;
        fill_up(&journal, from);
        reclaim_and_hear(&journal);
    }
    holds(&journal, "when the log has moved on");
    holds(&again(journal, &disk), "opened anew");
    assert!(!in_doubt.is_empty() && in_doubt.len() < 20, "{in_doubt:?}");
}

#[test]
fn shelves_are_merged_and_swept_without_the_damaged_one() {
    let disk = new_disk();
    let (journal, records) = on_shelf_alone(&disk);
    journal.close();
    spoil(&disk);
    let journal = open_with(&disk, AT_ONCE).unwrap();
    let lost = unread(&journal, &records);
    let buried = |numbers: std::ops::Range<u64>| -> Vec<(u64, Record)> {
        let can_be_told = numbers.filter(|number| look(&journal, *number).is_ok());
        can_be_told.map(|number| (number, bury(&journal, number))).collect()
    };
    // A later shelf of which nothing counts any more.
    let over = buried(19_000..19_020);
    reclaim(&journal);
    assert_eq!(files(&disk).len(), 2);
    over.iter().for_each(|(number, record)| drop(delete(&journal, *number, record)));
    // More than half of the damaged one is deleted, so it would be written anew.
    for (number, record) in (0..).zip(&records).filter(|(number, _)| number % 4 != 1) {
        if !lost.contains(&number) {
            delete(&journal, number, record);
        }
    }
    // The pass that finds the damage goes on with the other.
    reclaim_and_hear(&journal);
    assert_eq!(files(&disk).len(), 1);
    let mut later = Vec::new();
    for batch in 0..20 {
        later.extend(buried(20_000 + batch * 20..20_020 + batch * 20));
        reclaim_and_hear(&journal);
        assert!(files(&disk).len() <= 10, "{:?}", files(&disk));
    }
    let journal = again(journal, &disk);
    for (number, record) in &later {
        assert_eq!(get(&journal, *number).as_ref(), Some(record));
    }
    // What is due is found on all of them, and the damaged block is named each time.
    let over_at = Timestamp::from_millis(segment::due(&later[later.len() - 1].1));
    let due = Due { over_at, forget_until: over_at, released_until: Timestamp::from_millis(0) };
    let found: BTreeSet<_> = block_on(journal.due(due, usize::MAX)).unwrap().into_iter().collect();
    assert!(later.iter().all(|(number, _)| found.contains(&id(*number))));
    assert!(found.iter().any(|id| block_on(journal.get(*id)).is_err()));
}
