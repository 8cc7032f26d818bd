//! What a sealed segment says about keys, in a file beside it: opening need not read bodies.
//!
//! A snapshot is only ever a copy: one that is missing or wrong is made again from its segment.

use std::collections::HashMap;

use onlyonce_core::{Floor, KeyId, Timestamp};

use crate::disk::{self, Disk};
use crate::error::JournalError;
use crate::segment::{Fact, Scan, What};

const MAGIC: &[u8; 8] = b"onlyindx";
/// In format 1 a tombstone was not told from an answer.
const FORMAT: u32 = 2;
const HEADER: usize = 64;
const FACT: usize = 40;

/// A snapshot as it is read.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) number: u64,
    /// Where the segment's entries end.
    pub(crate) end: u64,
    pub(crate) floor: Floor,
    pub(crate) revision_max: u64,
    /// The newest entry of each key in the segment.
    pub(crate) facts: Vec<Fact>,
}

impl Snapshot {
    /// What a segment says, once it is sealed.
    pub(crate) fn of(scan: &Scan) -> Self {
        let mut newest: HashMap<KeyId, Fact> = HashMap::with_capacity(scan.facts.len());
        for fact in &scan.facts {
            let newer = |known: &Fact| {
                known.revision < fact.revision
                    || (known.revision == fact.revision && fact.what == What::Deleted)
            };
            if newest.get(&fact.id).is_none_or(newer) {
                newest.insert(fact.id, *fact);
            }
        }
        let mut facts: Vec<Fact> = newest.into_values().collect();
        facts.sort_unstable_by_key(|fact| fact.offset);
        let Scan { header, end, floor, revision_max, .. } = scan;
        let (number, end, floor, revision_max) = (header.number, *end, *floor, *revision_max);
        Self { number, end, floor, revision_max, facts }
    }

    /// When time alone may first have something to do with one of its records.
    fn due_from(&self) -> u64 {
        self.facts.iter().map(|fact| fact.due).min().unwrap_or(u64::MAX)
    }

    fn due_until(&self) -> u64 {
        self.facts.iter().map(|fact| fact.due).max().unwrap_or(0)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.facts.len() * FACT + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        // A segment has fewer entries than bytes, and its length fits in 32 bits.
        bytes.extend_from_slice(&(self.facts.len() as u32).to_le_bytes());
        let floor = self.floor.time().as_millis();
        let (from, until) = (self.due_from(), self.due_until());
        for number in [self.number, self.end, floor, self.revision_max, from, until] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for fact in &self.facts {
            bytes.extend_from_slice(fact.id.as_bytes());
            bytes.extend_from_slice(&fact.revision.to_le_bytes());
            bytes.extend_from_slice(&fact.due.to_le_bytes());
            bytes.extend_from_slice(&fact.offset.to_le_bytes());
            bytes.extend_from_slice(&[fact.what as u8, 0, 0, 0]);
        }
        let check = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (bytes, check) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*check) || bytes.get(..8)? != MAGIC {
            return None;
        }
        let word = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
        };
        let half = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let count = half(12)? as usize;
        if half(8)? != FORMAT || bytes.len() != HEADER + count * FACT {
            return None;
        }
        let facts = bytes[HEADER..].chunks_exact(FACT).map(fact).collect::<Option<Vec<_>>>()?;
        let floor = Floor::at(Timestamp::from_millis(word(32)?));
        let (number, end, revision_max) = (word(16)?, word(24)?, word(40)?);
        Some(Self { number, end, floor, revision_max, facts })
    }
}

fn fact(bytes: &[u8]) -> Option<Fact> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let what = [
        What::InFlight,
        What::Unknown,
        What::Settled,
        What::Deleted,
        What::Released,
        What::Tombstone,
    ];
    let what = what.into_iter().find(|what| *what as u8 == bytes[36])?;
    let id = KeyId::from_bytes(bytes.get(..16)?.try_into().ok()?);
    let offset = u32::from_le_bytes(bytes.get(32..36)?.try_into().ok()?);
    Some(Fact { id, revision: word(16)?, due: word(24)?, offset, what })
}

/// The file's name.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.idx")
}

/// Writes a snapshot whole or not at all.
pub(crate) fn write(disk: &dyn Disk, snapshot: &Snapshot) -> Result<(), JournalError> {
    let name = name(snapshot.number);
    let written = disk::write_whole(disk, &name, &snapshot.bytes());
    written.map_err(|error| JournalError::io(disk.place(&name), &error))
}

/// Reads the snapshot of a segment that ends at `end`, if there is one that can be trusted.
pub(crate) fn read(disk: &dyn Disk, number: u64, end: u64) -> Option<Snapshot> {
    let bytes = disk.open(&name(number)).and_then(|medium| medium.read_all()).ok()?;
    Snapshot::parse(&bytes).filter(|it| it.number == number && it.end == end)
}

/// How many keys a sealed segment wrote, if its snapshot says so. A guess, not checked.
pub(crate) fn keys(disk: &dyn Disk, number: u64) -> Option<u32> {
    let mut head = [0; 16];
    disk.open(&name(number)).and_then(|medium| medium.read_at(&mut head, 0)).ok()?;
    Some(u32::from_le_bytes([head[12], head[13], head[14], head[15]]))
}
