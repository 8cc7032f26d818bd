//! Room comes back once records are gone, and nothing that lives goes with them.

use std::fs;

use futures_executor::block_on;
use onlyonce_core::Record;
use onlyonce_store::{Store, StoreErrorKind, Swap};

use super::sim_disk::SimDisk;
use super::{SMALL, get, id, new_disk, new_disk_of, open, open_with, pair};
use crate::dir::Start;
use crate::journal::{Journal, Settings, Stats};
use crate::reclaim::COPY_BYTES;
use crate::segment;

const KEYS: u64 = 100;

/// A journal with answers of 8 KB in several segments.
fn filled(disk: &SimDisk) -> (Journal, Vec<Record>) {
    let journal = open(disk).unwrap();
    let records = (0..KEYS).map(|number| pair(&journal, number, 8_000)).collect();
    assert!(5 < journal.stats().segments);
    (journal, records)
}

fn delete(journal: &Journal, number: u64, record: &Record) {
    let gone = block_on(journal.swap(id(number), Some(record.revision), None));
    assert_eq!(gone.unwrap(), Swap::Done);
}

/// Case B139.
#[test]
fn what_was_deleted_gives_its_room_back_and_what_lives_is_carried_on() {
    let disk = new_disk();
    let (journal, records) = filled(&disk);
    let living = |number: u64| number % 25 == 3;
    for (number, record) in (0..).zip(&records).filter(|(number, _)| !living(*number)) {
        delete(&journal, number, record);
    }
    block_on(journal.reclaim()).unwrap();
    assert!(journal.stats().segments <= 2, "{:?}", journal.stats());
    for journal in [journal.clone(), {
        journal.close();
        open(&disk).unwrap()
    }] {
        for (number, record) in (0..).zip(&records) {
            let expected = living(number).then(|| record.clone());
            assert_eq!(get(&journal, number), expected, "{number}");
        }
    }
    let names = disk.names();
    let oldest = names.iter().filter_map(|name| segment::number(name)).min().unwrap();
    let mut snapshots = names.iter().filter_map(|name| name.strip_suffix(".idx"));
    assert!(snapshots.all(|name| oldest <= name.parse().unwrap()), "{names:?}");
}

#[test]
fn nothing_moves_while_most_of_it_lives() {
    let disk = new_disk();
    let (journal, records) = filled(&disk);
    (0..10).for_each(|number| delete(&journal, number * 9, &records[number as usize * 9]));
    let before = journal.stats();
    block_on(journal.reclaim()).unwrap();
    let after = journal.stats();
    // But for memory that nothing needs.
    assert!(after.index_bytes <= before.index_bytes);
    assert_eq!(Stats { index_bytes: 0, ..after }, Stats { index_bytes: 0, ..before });
}

#[test]
fn nobody_waits_while_a_segment_is_closed() {
    let disk = new_disk();
    let (journal, records) = filled(&disk);
    (1..KEYS).for_each(|number| delete(&journal, number, &records[number as usize]));
    let (cut, go_on) = disk.wait_when_cut();
    std::thread::scope(|scope| {
        let reclaiming = scope.spawn(|| block_on(journal.reclaim()).unwrap());
        cut.recv().unwrap();
        assert_eq!(get(&journal, 0).as_ref(), Some(&records[0]));
        pair(&journal, 1_000, 10);
        go_on.send(()).unwrap();
        reclaiming.join().unwrap();
    });
    assert!(get(&journal, 1_000).is_some());
}

#[test]
fn a_copy_of_the_folder_by_hard_links_keeps_what_has_left_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, copy) = (folder.path().join("journal"), folder.path().join("copy"));
    Journal::init(&dir, SMALL, Start::First).unwrap();
    let journal = Journal::open(&dir, SMALL).unwrap();
    let records: Vec<Record> = (0..40).map(|number| pair(&journal, number, 8_000)).collect();
    fs::create_dir(&copy).unwrap();
    let oldest = segment::name(1);
    fs::hard_link(dir.join(&oldest), copy.join(&oldest)).unwrap();
    let before = fs::read(copy.join(&oldest)).unwrap();
    (1..40).for_each(|number| delete(&journal, number, &records[number as usize]));
    block_on(journal.reclaim()).unwrap();
    assert!(!dir.join(&oldest).exists());
    assert!(fs::read(copy.join(&oldest)).unwrap() == before, "the copy was changed");
}

#[test]
fn what_is_carried_on_is_read_by_a_thread_for_it() {
    let disk = new_disk();
    let (journal, records) = filled(&disk);
    (1..KEYS).for_each(|number| delete(&journal, number, &records[number as usize]));
    disk.readers();
    block_on(journal.reclaim()).unwrap();
    assert!(disk.readers().iter().all(|name| name.starts_with("journal ")));
    assert_eq!(get(&journal, 0).as_ref(), Some(&records[0]));
}

#[test]
fn nobody_waits_behind_more_than_a_megabyte_of_copies_and_each_is_made() {
    let settings = Settings { segment_bytes: 6 << 20, ..Settings::DEFAULT };
    let disk = new_disk_of(settings.segment_bytes);
    let journal = open_with(&disk, settings).unwrap();
    let records: Vec<Record> = (0..70).map(|number| pair(&journal, number, 100_000)).collect();
    (0..33).for_each(|number| delete(&journal, number, &records[number as usize]));
    let (oldest, living) = journal.shared.to_unlink().unwrap().unwrap();
    assert!(2 * COPY_BYTES < living.len() * 100_000);
    let (mut next, mut copied) = (0, 0);
    while next < living.len() {
        let (copies, until) = journal.shared.to_copy(&oldest, &living, next).unwrap();
        let bytes: usize = copies.iter().map(|(_, payload)| payload.len()).sum();
        assert!(bytes < COPY_BYTES + 101_000, "{bytes} bytes at once");
        (next, copied) = (until, copied + copies.len());
    }
    assert_eq!(copied, living.len());
}

#[test]
fn a_new_segment_is_synced_in_pieces() {
    let disk = new_disk();
    let settings = Settings { segment_bytes: 10 << 20, ..Settings::DEFAULT };
    let journal = open_with(&disk, settings).unwrap();
    pair(&journal, 1, 10);
    journal.close();
    assert!(disk.names().contains(&"0000000002.log.new".to_owned()), "{:?}", disk.names());
    // A sync of the writer's waits behind so much at most.
    assert!(disk.most_at_once() <= 4 << 20, "{} bytes", disk.most_at_once());
}

/// Case B140.
#[test]
fn memory_comes_back_too() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let records: Vec<_> = (0..3_000).map(|number| pair(&journal, number, 10)).collect();
    let before = journal.stats().index_bytes;
    (0..).zip(&records).for_each(|(number, record)| delete(&journal, number, record));
    block_on(journal.reclaim()).unwrap();
    let after = journal.stats();
    assert!(after.index_bytes * 4 < before, "{before} and {after:?}");
    assert_eq!((after.keys, after.in_flight, after.unknown), (0, 0, 0));
    assert!(after.segments <= 2, "{after:?}");
}

#[test]
fn a_living_record_that_cannot_be_read_keeps_its_segment() {
    let disk = new_disk();
    let (journal, records) = filled(&disk);
    for (number, record) in (0..).zip(&records).skip(1) {
        delete(&journal, number, record);
    }
    let slot = journal.shared.index.get(id(0)).unwrap();
    assert_eq!(slot.segment, 1);
    disk.tamper(&segment::name(1), |bytes| bytes[slot.offset as usize + 20] ^= 1);
    let error = block_on(journal.reclaim()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(disk.names().contains(&segment::name(1)));
}
