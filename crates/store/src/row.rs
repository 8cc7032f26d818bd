//! What a table of a database holds of a record: columns to search by, and the record's bytes
//! behind a checksum, since not every database has one of its own.

use bytes::Bytes;
use onlyonce_core::{KeyId, Record, State, Timestamp};

use crate::codec;
use crate::error::{StoreError, StoreErrorKind};

/// Bytes of the checksum, CRC-32C in little-endian order, in front of the record's.
const CHECKSUM: usize = 4;

/// A record as a table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub id: KeyId,
    /// The record's revision.
    pub revision: i64,
    /// The number of its [`StateKind`](onlyonce_core::StateKind).
    pub state: i16,
    /// When time alone may end it, in milliseconds since the Unix epoch; since when it stands so
    /// for released and unknown records. What [`crate::Due`] compares.
    pub due_at: i64,
    /// The checksum and what [`codec::encode`] writes.
    pub bytes: Vec<u8>,
}

impl Row {
    /// The row of a record.
    ///
    /// # Errors
    /// Its revision is above what a database counts to: the clock is wrong by millions of years.
    pub fn of(id: KeyId, record: &Record) -> Result<Self, StoreError> {
        let revision = i64::try_from(record.revision.get()).map_err(|_| {
            let text = format!("{id}: revision {} is too large", record.revision.get());
            StoreError::new(StoreErrorKind::NotApplied, text)
        })?;
        let mut bytes = vec![0; CHECKSUM];
        codec::encode(id, record, &mut bytes);
        let checksum = crc32c::crc32c(&bytes[CHECKSUM..]);
        bytes[..CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        let state = record.state.kind() as i16;
        Ok(Self { id, revision, state, due_at: millis(due_at(record)), bytes })
    }

    /// The record in a row of the table at `place`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] with place and key: the bytes are not what was written, or are
    /// those of another row.
    pub fn read(place: &str, id: KeyId, revision: i64, bytes: Bytes) -> Result<Record, StoreError> {
        let damaged = |text: String| {
            StoreError::new(StoreErrorKind::Damaged, format!("{place}, key {id}: {text}"))
        };
        let Some((checksum, _)) = bytes.split_first_chunk::<CHECKSUM>() else {
            return Err(damaged("the record is cut".to_owned()));
        };
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(&bytes[CHECKSUM..]) {
            return Err(damaged(
                "the record is not what was written: its checksum is wrong".into(),
            ));
        }
        let (found, record) =
            codec::decode(bytes.slice(CHECKSUM..)).map_err(|error| damaged(error.to_string()))?;
        if found != id || i64::try_from(record.revision.get()) != Ok(revision) {
            return Err(damaged("the record is that of another row".to_owned()));
        }
        Ok(record)
    }
}

/// The time that a record waits for, or in which it came to be what it is.
pub(crate) fn due_at(record: &Record) -> Timestamp {
    match &record.state {
        State::InFlight(flight) => flight.lease_until,
        State::Released { since } => *since,
        State::Completed { retain_until, .. } => *retain_until,
        State::Unknown(doubt) => doubt.since,
        State::Tombstone { forget_at, .. } => *forget_at,
    }
}

/// A time as a database counts it. Later than it can count is never.
pub fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A time that a database has counted. Before the epoch there was none.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_core::{Command, Floor, Next, Policy, Reply, decide};

    fn record() -> (KeyId, Record) {
        let seal = Command::Seal {
            reply: Reply::kept(410, Bytes::from_static(b"no")),
            key_time: None,
            by: "olga".into(),
            why: "cancelled".into(),
        };
        let now = Timestamp::from_millis(1_764_000_000_000);
        match decide(now, Floor::NONE, &Policy::default(), None, &seal).next {
            Next::Write(record) => (KeyId::from_bytes([7; 16]), record),
            other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_reads_back_and_every_changed_bit_is_found() {
        let (id, record) = record();
        let row = Row::of(id, &record).unwrap();
        let read = |id, revision, bytes: &[u8]| {
            Row::read("table", id, revision, Bytes::copy_from_slice(bytes))
        };
        assert_eq!(read(id, row.revision, &row.bytes).unwrap(), record);
        assert_eq!((row.revision, row.state), (1_764_000_000_000, 3));
        for bit in 0..row.bytes.len() * 8 {
            let mut bytes = row.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = read(id, row.revision, &bytes).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Damaged);
        }
        for length in 0..row.bytes.len() {
            read(id, row.revision, &row.bytes[..length]).unwrap_err();
        }
        let moved = read(KeyId::from_bytes([8; 16]), row.revision, &row.bytes).unwrap_err();
        assert!(moved.to_string().contains("another row"), "{moved}");
        read(id, row.revision + 1, &row.bytes).unwrap_err();
    }
}
