//! Bytes that are not as they were written: refused with file and offset, or cut.

use super::sim_disk::{Random, SimDisk};
use super::{get, new_disk, open, pair};
use crate::error::JournalErrorKind;

/// Three pairs, each synced on its own, and where the third begins.
fn three() -> (SimDisk, usize) {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    pair(&journal, 1, 700);
    pair(&journal, 2, 700);
    let before = end(&disk);
    pair(&journal, 3, 700);
    journal.close();
    (disk, before)
}

/// Where the first segment's bytes end.
fn end(disk: &SimDisk) -> usize {
    let mut end = 0;
    disk.tamper("0000000001.log", |bytes| {
        end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    });
    end
}

#[test]
fn any_flipped_bit_that_was_synced_is_refused_with_file_and_offset() {
    let (disk, before) = three();
    let mut random = Random(3);
    for _ in 0..300 {
        let (at, bit) = (64 + random.below(before as u64 - 64) as usize, random.below(8));
        let flip = |disk: &SimDisk| {
            disk.tamper("0000000001.log", |bytes| bytes[at] ^= 1 << bit);
        };
        flip(&disk);
        let error = open(&disk).err().unwrap_or_else(|| panic!("byte {at} bit {bit} was served"));
        assert_eq!(error.kind(), JournalErrorKind::Damaged, "{error}");
        assert!(error.place().ends_with("0000000001.log"));
        let offset = error.offset().unwrap() as usize;
        assert!(offset <= at && at < offset + 1_000, "{at} was found at {offset}");
        flip(&disk);
    }
    assert!(open(&disk).is_ok());
}

#[test]
fn a_flipped_bit_in_a_header_is_refused() {
    let (disk, _) = three();
    for at in 0..64 {
        disk.tamper("0000000001.log", |bytes| bytes[at] ^= 4);
        assert_eq!(open(&disk).err().unwrap().kind(), JournalErrorKind::Damaged, "byte {at}");
        disk.tamper("0000000001.log", |bytes| bytes[at] ^= 4);
    }
}

#[test]
fn zeros_in_the_middle_are_damage_too() {
    let (disk, before) = three();
    disk.tamper("0000000001.log", |bytes| bytes[64..before - 300].fill(0));
    let error = open(&disk).err().unwrap();
    assert_eq!((error.kind(), error.offset()), (JournalErrorKind::Damaged, Some(64)));
}

#[test]
fn a_torn_tail_is_cut_and_never_comes_back() {
    let (disk, before) = three();
    let end = end(&disk);
    // The last batch is torn in its middle; nothing proves that it was synced.
    disk.tamper("0000000001.log", |bytes| bytes[end - 400..end - 300].fill(0xAA));
    let journal = open(&disk).unwrap();
    assert!(0 < journal.cut());
    assert!(get(&journal, 1).is_some() && get(&journal, 2).is_some());
    assert!(get(&journal, 3).is_some_and(|record| record.fence.get() == record.revision.get()));
    journal.close();
    let mut rest = 1;
    disk.tamper("0000000001.log", |bytes| {
        rest = bytes[end - 300..].iter().filter(|byte| **byte != 0).count();
    });
    assert_eq!(rest, 0);
    assert!(before < end);
    assert_eq!(open(&disk).unwrap().cut(), 0);
}

#[test]
fn bytes_that_stand_where_they_were_not_written_are_no_entries() {
    let (disk, before) = three();
    let end = end(&disk);
    disk.tamper("0000000001.log", |bytes| bytes.copy_within(before..end, end));
    let journal = open(&disk).unwrap();
    assert_eq!(journal.cut(), (end - before) as u64);
    assert!(get(&journal, 3).is_some());
}

#[test]
fn a_sealed_segment_is_held_to_where_it_ended() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    for number in 0..60 {
        pair(&journal, number, 8_000);
    }
    journal.close();
    assert!(disk.names().contains(&"0000000002.idx".to_owned()), "{:?}", disk.names());
    let read_back =
        |disk: &SimDisk| (0..60).all(|number| get(&open(disk).unwrap(), number).is_some());
    assert!(read_back(&disk));
    // A snapshot that is wrong is made again.
    disk.tamper("0000000002.idx", |bytes| bytes[70] ^= 1);
    assert!(read_back(&disk));
    disk.forget("0000000002.idx");
    assert!(read_back(&disk));
    // Without it, a broken segment is noticed when it is opened; with it, when it is read.
    disk.tamper("0000000002.log", |bytes| bytes[5_000] ^= 1);
    let journal = open(&disk).unwrap();
    let results = (0..60).map(|number| {
        futures_executor::block_on(onlyonce_store::Store::get(&journal, super::id(number)))
    });
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("0000000002.log at byte"), "{}", errors[0]);
    journal.close();
    disk.forget("0000000002.idx");
    let error = open(&disk).err().unwrap();
    assert_eq!(error.kind(), JournalErrorKind::Damaged);
    assert!(error.to_string().contains("0000000002.log at byte"), "{error}");
    // A segment that is gone is missed.
    disk.forget("0000000002.log");
    let error = open(&disk).err().unwrap();
    assert!(error.to_string().contains("0000000002.log"), "{error}");
}
