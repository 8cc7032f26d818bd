//! The journal against a disk that loses, tears, refuses and flips.

mod backup;
mod crash;
mod damage;
mod full;
mod golden;
mod listing;
mod order;
mod reclaim;
mod restore;
mod restored_ages;
mod shelves;
mod shelves_copied;
mod shelves_damaged;
mod shelves_left;
mod sim_disk;
mod versions;

use std::sync::Arc;

use bytes::Bytes;
use futures_executor::block_on;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Secret, Timestamp, decide,
};
use onlyonce_store::{Store, StoreError, Swap};

use crate::disk::Disk;
use crate::error::JournalError;
use crate::journal::{Journal, Settings};
use crate::keeper;
use crate::segment::{self, Header};
use sim_disk::SimDisk;

const SMALL: Settings = Settings { segment_bytes: 128 << 10, ..Settings::DEFAULT };

fn id(number: u64) -> KeyId {
    let mut bytes = [0; 16];
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bytes[..8].copy_from_slice(&mixed.to_be_bytes());
    bytes[8..].copy_from_slice(&mixed.rotate_left(31).to_be_bytes());
    KeyId::from_bytes(bytes)
}

/// What a claim writes.
fn claimed(at: u64) -> Record {
    let claim = Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([1; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Committing,
    });
    written(None, at, &claim)
}

/// What its completion writes.
fn completed(record: &Record, at: u64, reply: Vec<u8>) -> Record {
    let reply = Reply::kept(201, Bytes::from(reply));
    written(Some(record), at, &Command::Complete { fence: record.fence, reply })
}

fn written(record: Option<&Record>, at: u64, command: &Command) -> Record {
    let now = Timestamp::from_millis(1_764_000_000_000 + at);
    match decide(now, Floor::NONE, &Policy::default(), record, command).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
    }
}

/// A disk with a new journal on it.
fn new_disk() -> SimDisk {
    new_disk_of(SMALL.segment_bytes)
}

/// The same with a first segment of this size.
fn new_disk_of(bytes: u64) -> SimDisk {
    let disk = SimDisk::default();
    let header = Header { number: 1, ..Header::default() };
    let medium = keeper::zeros(&disk, &segment::name(1), bytes).unwrap();
    medium.write_at(&header.bytes(), 0).unwrap();
    medium.sync().unwrap();
    disk.sync_names().unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<Journal, JournalError> {
    open_with(disk, SMALL)
}

fn open_with(disk: &SimDisk, settings: Settings) -> Result<Journal, JournalError> {
    Journal::on(Arc::new(disk.clone()), settings, Secret::from_bytes([1; 32]), None)
}

fn put(
    journal: &Journal,
    number: u64,
    before: Option<&Record>,
    next: &Record,
) -> Result<Swap, StoreError> {
    let expected = before.map(|record| record.revision);
    block_on(journal.swap(id(number), expected, Some(next.clone())))
}

fn get(journal: &Journal, number: u64) -> Option<Record> {
    block_on(journal.get(id(number))).unwrap()
}

/// Claims and completes a key.
fn pair(journal: &Journal, number: u64, reply: usize) -> Record {
    let claim = claimed(number);
    assert_eq!(put(journal, number, None, &claim).unwrap(), Swap::Done);
    let complete = completed(&claim, number + 1, vec![number as u8; reply]);
    assert_eq!(put(journal, number, Some(&claim), &complete).unwrap(), Swap::Done);
    complete
}
