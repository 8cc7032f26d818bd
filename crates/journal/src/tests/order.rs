//! Where an entry stands decides nothing: its revision does. And what may go without being missed.

use futures_executor::block_on;
use onlyonce_core::{Floor, Record, Timestamp};
use onlyonce_store::{Store as _, codec};

use super::sim_disk::SimDisk;
use super::{SMALL, claimed, completed, get, id, new_disk, open, pair};
use crate::disk::Disk as _;
use crate::entry::{self, Position};
use crate::keeper;
use crate::segment::{self, Header};
use crate::snapshot;

fn entry_of(number: u64, record: &Record) -> Vec<u8> {
    let mut payload = Vec::new();
    codec::encode(id(number), record, &mut payload);
    payload
}

/// Puts a segment with these entries on the disk, and says where it ends.
fn put_segment(disk: &SimDisk, previous: Position, entries: &[Vec<u8>]) -> Position {
    let header = Header { number: previous.segment + 1, previous, ..Header::default() };
    let mut bytes = header.bytes().to_vec();
    for payload in entries {
        entry::append(&mut bytes, header.number, 0, payload);
    }
    let name = segment::name(header.number);
    let medium = keeper::zeros(disk, &name, SMALL.segment_bytes).unwrap();
    medium.write_at(&bytes, 0).unwrap();
    medium.sync().unwrap();
    disk.sync_names().unwrap();
    Position { segment: header.number, offset: bytes.len() as u64 }
}

#[test]
fn the_highest_revision_counts_and_a_deletion_beats_the_one_it_deleted() {
    let (older, gone) = (claimed(1), claimed(3));
    let newer = completed(&older, 2, b"order".to_vec());
    let first = [entry_of(1, &newer), entry::deleted(id(2), gone.revision), entry_of(3, &newer)];
    let second = [entry_of(1, &older), entry_of(2, &gone), entry::deleted(id(3), older.revision)];
    let disk = SimDisk::default();
    let end = put_segment(&disk, Position::default(), &first);
    put_segment(&disk, end, &second);
    // The second time from the snapshot that the first one has made.
    for _ in 0..2 {
        let journal = open(&disk).unwrap();
        assert_eq!(get(&journal, 1), Some(newer.clone()));
        assert_eq!(get(&journal, 2), None);
        assert_eq!(get(&journal, 3), Some(newer.clone()));
        assert_eq!(block_on(journal.revision_max()).unwrap(), gone.revision.get());
        assert!(disk.names().contains(&snapshot::name(1)));
    }
}

#[test]
fn an_old_segment_that_goes_takes_neither_the_floor_nor_the_highest_number_along() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let floor = Floor::at(Timestamp::from_millis(77));
    block_on(journal.raise_floor(floor)).unwrap();
    let highest = pair(&journal, 1_000_000, 10).revision.get();
    (0..50).for_each(|number| drop(pair(&journal, number, 8_000)));
    assert!(3 < journal.stats().segments);
    journal.close();
    let numbers = segment::numbers(&disk).unwrap();
    for number in &numbers[..numbers.len() - 1] {
        disk.forget(&segment::name(*number));
        disk.forget(&snapshot::name(*number));
    }
    let journal = open(&disk).unwrap();
    assert_eq!(get(&journal, 1_000_000), None);
    assert_eq!(block_on(journal.floor()).unwrap(), floor);
    assert_eq!(block_on(journal.revision_max()).unwrap(), highest);
}
