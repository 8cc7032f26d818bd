//! A segment: a file of entries, filled with zeros before it is used. And reading one whole.

use std::io;
use std::path::Path;

use bytes::Bytes;
use onlyonce_core::{Floor, KeyId, Record, State, StateKind, Timestamp};
use onlyonce_store::CodecError;

use crate::disk::Disk;
use crate::entry::{self, Entry, FRAME, Framed, MARK_PAYLOAD, Position};
use crate::error::{JournalError, JournalErrorKind};
use crate::shared::{self, ENTRIES_AT_ONCE};

/// Bytes of a segment's header; the first entry begins after it.
pub(crate) const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"onlyonce";
/// The format of segments that this program writes and reads.
const FORMAT: u32 = 1;

/// So much is read at once by who reads slowly, in bytes.
const PIECE: usize = 1 << 20;

const PERHAPS: &str = "a newer onlyonce may have written it";

/// What a segment says about what came before it, so that older ones may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// Where the segment before this one ended, all of it synced; its number is 0 for none.
    pub(crate) previous: Position,
    pub(crate) floor: Floor,
    pub(crate) revision_max: u64,
}

impl Header {
    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.segment.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.floor.time().as_millis().to_le_bytes());
        bytes[48..56].copy_from_slice(&self.revision_max.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a header; `Err` says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; HEADER] = bytes
            .get(..HEADER)
            .and_then(|it| it.try_into().ok())
            .ok_or("the file is shorter than a segment's header")?;
        if &bytes[..8] != MAGIC {
            return Err("this is no segment of a journal");
        }
        let check = u32::from_le_bytes([bytes[60], bytes[61], bytes[62], bytes[63]]);
        if crc32c::crc32c(&bytes[..60]) != check {
            return Err("the header's checksum is wrong");
        }
        let number = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(value)
        };
        if u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) != FORMAT {
            return Err("it was written by a newer onlyonce: use that one");
        }
        Ok(Self {
            number: number(16),
            previous: Position { segment: number(24), offset: number(32) },
            floor: Floor::at(Timestamp::from_millis(number(40))),
            revision_max: number(48),
        })
    }
}

/// The file's name.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The number in a segment's file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 10)?.parse().ok()
}

/// The numbers of the segments there are, in order.
pub(crate) fn numbers(disk: &dyn Disk) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().map_err(|error| JournalError::io(disk.place(""), &error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the index needs to know of an entry about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) id: KeyId,
    pub(crate) revision: u64,
    pub(crate) offset: u32,
    pub(crate) what: What,
    /// When time alone may have something to do with it, in milliseconds; `u64::MAX` for never.
    /// Of a record that was released, when it was.
    pub(crate) due: u64,
}

/// When time alone may first have something to do with a record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DueFrom {
    /// With one that was not released.
    pub(crate) over: u64,
    /// When the first was released.
    pub(crate) released: u64,
    /// No tombstone that is not on a shelf has a revision below this one.
    pub(crate) tombstone: u64,
}

impl DueFrom {
    pub(crate) const NEVER: Self = Self { over: u64::MAX, released: u64::MAX, tombstone: u64::MAX };

    pub(crate) fn of(facts: &[Fact]) -> Self {
        facts.iter().fold(Self::NEVER, |from, fact| from.and(fact))
    }

    pub(crate) fn and(self, fact: &Fact) -> Self {
        match fact.what {
            What::Released => Self { released: self.released.min(fact.due), ..self },
            What::Tombstone => Self {
                over: self.over.min(fact.due),
                tombstone: self.tombstone.min(fact.revision),
                ..self
            },
            What::InFlight | What::Unknown | What::Settled | What::Deleted => {
                Self { over: self.over.min(fact.due), ..self }
            }
        }
    }

    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            over: self.over.min(other.over),
            released: self.released.min(other.released),
            tombstone: self.tombstone.min(other.tombstone),
        }
    }
}

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    InFlight,
    Unknown,
    /// Answered, and the reply is kept.
    Settled,
    Deleted,
    Released,
    Tombstone,
}

impl What {
    pub(crate) fn of(record: &Record) -> Self {
        match record.state.kind() {
            StateKind::InFlight => Self::InFlight,
            StateKind::Unknown => Self::Unknown,
            StateKind::Completed => Self::Settled,
            StateKind::Tombstone => Self::Tombstone,
            StateKind::Released => Self::Released,
        }
    }
}

/// When time alone may have something to do with a record.
pub(crate) fn due(record: &Record) -> u64 {
    match &record.state {
        State::Completed { retain_until, .. } => retain_until.as_millis(),
        State::Tombstone { forget_at, .. } => forget_at.as_millis(),
        State::Released { since } => since.as_millis(),
        State::InFlight(flight) => flight.lease_until.as_millis(),
        State::Unknown(_) => u64::MAX,
    }
}

/// A segment that was read from its first entry to its last.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) header: Header,
    /// Where its entries end.
    pub(crate) end: u64,
    /// Why they end there, if it is not because nothing more was written.
    pub(crate) broken: Option<&'static str>,
    /// The furthest position that a mark in it proves to be synced.
    pub(crate) synced: Position,
    /// One for each entry about a key, in their order.
    pub(crate) facts: Vec<Fact>,
    pub(crate) floor: Floor,
    pub(crate) revision_max: u64,
    pub(crate) all: Bytes,
}

/// Reads a segment. Stops at the first place that holds no whole entry.
///
/// # Errors
/// It cannot be read, its header is wrong, or an entry with a right checksum is not understood.
pub(crate) fn scan(disk: &dyn Disk, number: u64) -> Result<Scan, JournalError> {
    let file = name(number);
    let place = disk.place(&file);
    let read = disk.open(&file).and_then(|medium| medium.read_all());
    let all = Bytes::from(read.map_err(|error| JournalError::io(&place, &error))?);
    scan_bytes(&place, number, all)
}

/// The same in the background: others have the core now and then.
///
/// # Errors
/// As [`scan`].
pub(crate) fn scan_slowly(disk: &dyn Disk, number: u64) -> Result<Scan, JournalError> {
    let file = name(number);
    let place = disk.place(&file);
    let read = || -> io::Result<Vec<u8>> {
        let medium = disk.open(&file)?;
        let mut all = vec![0; usize::try_from(medium.len()?).map_err(io::Error::other)?];
        for (at, piece) in all.chunks_mut(PIECE).enumerate() {
            medium.read_at(piece, (at * PIECE) as u64)?;
            shared::give_way(at, 1);
        }
        Ok(all)
    };
    let all = Bytes::from(read().map_err(|error| JournalError::io(&place, &error))?);
    scan_each(&place, number, all, |done| shared::give_way(done, ENTRIES_AT_ONCE))
}

/// The same with bytes that were read already, from this place.
pub(crate) fn scan_bytes(place: &Path, number: u64, all: Bytes) -> Result<Scan, JournalError> {
    scan_each(place, number, all, |_| {})
}

/// Calls `each` before each entry, with how many there were.
fn scan_each(
    place: &Path,
    number: u64,
    all: Bytes,
    each: impl Fn(usize),
) -> Result<Scan, JournalError> {
    let header = Header::parse(&all).map_err(|text| JournalError::damaged(place, 0, text))?;
    if header.number != number {
        return Err(JournalError::damaged(place, 16, "the file has another segment's number"));
    }
    let mut scan = Scan {
        header,
        end: HEADER as u64,
        broken: None,
        synced: header.previous,
        facts: Vec::new(),
        floor: header.floor,
        revision_max: header.revision_max,
        all: all.clone(),
    };
    let mut done = 0;
    loop {
        done += 1;
        each(done);
        let offset = scan.end;
        let payload = match entry::framed(&all.slice(offset as usize..), number, offset) {
            Framed::Whole(payload) => payload,
            Framed::Empty => return Ok(scan),
            Framed::Broken(why) => {
                scan.broken = Some(why);
                return Ok(scan);
            }
        };
        scan.end += (FRAME + payload.len()) as u64;
        let entry = entry::parse(payload).map_err(|error| {
            let is_named = matches!(error, CodecError::Version(_));
            let text = if is_named { error.to_string() } else { format!("{error}; {PERHAPS}") };
            JournalError::new(JournalErrorKind::Format, place, text).at(offset)
        })?;
        scan.take(entry, offset);
    }
}

impl Scan {
    fn take(&mut self, entry: Entry, offset: u64) {
        let offset = offset as u32;
        match entry {
            Entry::Record(id, record) => {
                let (revision, what) = (record.revision.get(), What::of(&record));
                self.revision_max = self.revision_max.max(revision);
                self.facts.push(Fact { id, revision, offset, what, due: due(&record) });
            }
            Entry::Deleted(id, revision) => {
                let (revision, what) = (revision.get(), What::Deleted);
                self.revision_max = self.revision_max.max(revision);
                self.facts.push(Fact { id, revision, offset, what, due: u64::MAX });
            }
            Entry::Floor(floor) => self.floor = self.floor.max(floor),
            Entry::Mark(synced) => self.synced = self.synced.max(synced),
        }
    }

    /// Whether a mark beyond the end proves that what is broken there had been synced: then it is
    /// damage, and not the torn tail of a write that was never confirmed.
    pub(crate) fn proven_beyond_end(&self) -> bool {
        let number = self.header.number;
        let here = Position { segment: number, offset: self.end };
        let mut from = self.end as usize + 1;
        while let Some(at) = mark_from(&self.all, from) {
            if let Framed::Whole(payload) = entry::framed(&self.all.slice(at..), number, at as u64)
                && let Ok(Entry::Mark(synced)) = entry::parse(payload)
                && here < synced
            {
                return true;
            }
            from = at + 1;
        }
        false
    }
}

/// Most of a segment may be zeros; so many bytes of it are passed by at once.
pub(crate) const STEP: usize = 4096;

/// Whether at most [`STEP`] bytes are all zero. Comparing is much faster than looking at each.
pub(crate) fn is_zeros(bytes: &[u8]) -> bool {
    bytes == &[0; STEP][..bytes.len()]
}

/// The next place that could be the frame of a mark.
pub(crate) fn mark_from(all: &[u8], mut from: usize) -> Option<usize> {
    while from < all.len() {
        let step = &all[from..all.len().min(from + STEP)];
        if !is_zeros(step)
            && let Some(found) = step.iter().position(|it| *it == MARK_PAYLOAD as u8)
        {
            return Some(from + found);
        }
        from += step.len();
    }
    None
}
