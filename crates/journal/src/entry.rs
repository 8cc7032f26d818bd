//! One entry of a segment: a frame of length and checksum around what is kept.

use bytes::Bytes;
use onlyonce_core::{Floor, KeyId, Record, Revision, Timestamp};
use onlyonce_store::{CodecError, codec};

/// Bytes before an entry's payload: its length and its checksum.
pub(crate) const FRAME: usize = 8;
/// A payload longer than this was never written: the largest reply and room for the rest.
pub(crate) const PAYLOAD_MAX: usize = onlyonce_core::limits::REPLY_BYTES_MAX + (64 << 10);
/// The length of a mark's payload.
pub(crate) const MARK_PAYLOAD: usize = 17;

// Records begin with their format version in the upper half of the byte, which is never zero.
const DELETED: u8 = 1;
const FLOOR: u8 = 2;
const MARK: u8 = 3;

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made one at a time, boxing would cost more")]
pub(crate) enum Entry {
    /// The record stands as this.
    Record(KeyId, Record),
    /// The record, last of this revision, was deleted.
    Deleted(KeyId, Revision),
    /// The floor was raised.
    Floor(Floor),
    /// A batch begins; everything before this position was synced when it was written.
    Mark(Position),
}

/// A place in the journal: everything before `offset` in `segment`, and all earlier segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// The payload that deletes a record.
pub(crate) fn deleted(id: KeyId, revision: Revision) -> Vec<u8> {
    let mut payload = vec![DELETED];
    payload.extend_from_slice(id.as_bytes());
    payload.extend_from_slice(&revision.get().to_le_bytes());
    payload
}

/// The payload that raises the floor.
pub(crate) fn floor(floor: Floor) -> Vec<u8> {
    let mut payload = vec![FLOOR];
    payload.extend_from_slice(&floor.time().as_millis().to_le_bytes());
    payload
}

/// The payload that begins a batch.
pub(crate) fn mark(synced: Position) -> [u8; MARK_PAYLOAD] {
    let mut payload = [0; MARK_PAYLOAD];
    payload[0] = MARK;
    payload[1..9].copy_from_slice(&synced.segment.to_le_bytes());
    payload[9..].copy_from_slice(&synced.offset.to_le_bytes());
    payload
}

/// Appends a framed entry to `batch`, which will stand at `base` in `segment`.
pub(crate) fn append(batch: &mut Vec<u8>, segment: u64, base: u64, payload: &[u8]) {
    let offset = base + batch.len() as u64;
    // Bounded by PAYLOAD_MAX.
    let length = payload.len() as u32;
    batch.extend_from_slice(&length.to_le_bytes());
    batch.extend_from_slice(&checksum(segment, offset, length, payload).to_le_bytes());
    batch.extend_from_slice(payload);
}

/// Covers where the entry stands, so that bytes that were moved or left behind are not entries.
fn checksum(segment: u64, offset: u64, length: u32, payload: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    place[16..].copy_from_slice(&length.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), payload)
}

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    /// A whole entry with this payload.
    Whole(Bytes),
    /// Nothing was written here.
    Empty,
    /// Something that is no whole entry, and why.
    Broken(&'static str),
}

/// Reads the frame at `offset` of `segment`; `rest` are the bytes from there on.
pub(crate) fn framed(rest: &Bytes, segment: u64, offset: u64) -> Framed {
    let Some(head) = rest.get(..FRAME) else {
        let empty = rest.iter().all(|byte| *byte == 0);
        return if empty { Framed::Empty } else { Framed::Broken("the file ends inside a frame") };
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let check = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length == 0 {
        return if check == 0 { Framed::Empty } else { Framed::Broken("an entry has no length") };
    }
    let end = FRAME + length as usize;
    if PAYLOAD_MAX < length as usize || rest.len() < end {
        return Framed::Broken("an entry's length cannot be");
    }
    let payload = rest.slice(FRAME..end);
    if checksum(segment, offset, length, &payload) != check {
        return Framed::Broken("an entry's checksum is wrong");
    }
    Framed::Whole(payload)
}

/// The length of the whole entry whose frame this is, in bytes.
pub(crate) fn length(frame: [u8; FRAME]) -> usize {
    FRAME + u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize
}

/// Reads a payload whose checksum was right.
pub(crate) fn parse(payload: Bytes) -> Result<Entry, CodecError> {
    let number = |at: usize| -> Option<u64> {
        payload.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
    };
    match payload.first() {
        Some(&DELETED) if payload.len() == 25 => {
            let id = payload[1..17].try_into().ok().map(KeyId::from_bytes);
            let revision = number(17).and_then(Revision::new);
            id.zip(revision)
                .map(|(id, revision)| Entry::Deleted(id, revision))
                .ok_or(CodecError::Invalid("revision"))
        }
        Some(&FLOOR) if payload.len() == 9 => {
            let at = number(1).unwrap_or_default();
            Ok(Entry::Floor(Floor::at(Timestamp::from_millis(at))))
        }
        Some(&MARK) if payload.len() == MARK_PAYLOAD => {
            let (segment, offset) = number(1).zip(number(9)).unwrap_or_default();
            Ok(Entry::Mark(Position { segment, offset }))
        }
        _ => codec::decode(payload).map(|(id, record)| Entry::Record(id, record)),
    }
}
