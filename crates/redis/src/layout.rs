//! Where what is kept, and the bytes of a value. `docs/stores.md` describes it for operators.
//!
//! Keys are spread over buckets. All keys of a bucket have one hash tag, so that a cluster keeps
//! them on one server and a script can change them together; a bucket is the smallest part of a
//! store that a cluster can move.

use bytes::Bytes;
use onlyonce_core::{KeyId, Record, StateKind, Timestamp};
use onlyonce_store::{Row, StoreError, StoreErrorKind};

/// How many buckets there are. More would only help a cluster of more masters than this.
pub(crate) const BUCKETS: u8 = 64;
/// Bytes in front of a row: its revision, big-endian, and its state.
const HEADER: usize = 9;
/// What the server can count exactly in a score. Later than that is never.
const SCORE_MAX: u64 = 1 << 53;

/// The names of a store's keys.
#[derive(Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Format, secret and floor.
    pub(crate) fn store(&self) -> String {
        format!("{{{}}}:store", self.prefix)
    }

    /// A bucket's largest revision, and which server had it last.
    pub(crate) fn facts(&self, bucket: u8) -> String {
        self.in_bucket(bucket, "facts")
    }

    /// A record.
    pub(crate) fn record(&self, id: KeyId) -> String {
        self.in_bucket(bucket(id), &id.to_string())
    }

    /// The channel on which is told that nobody is at work on a key any more.
    pub(crate) fn ended(&self, id: KeyId) -> String {
        self.ended_in(bucket(id), id)
    }

    /// The same in another bucket, for trying it out.
    pub(crate) fn ended_in(&self, bucket: u8, id: KeyId) -> String {
        self.in_bucket(bucket, &format!("ended:{id}"))
    }

    /// The key ids of a bucket in one state, by when time may end them.
    pub(crate) fn index(&self, bucket: u8, state: StateKind) -> String {
        self.in_bucket(bucket, state.name())
    }

    fn in_bucket(&self, bucket: u8, name: &str) -> String {
        format!("{{{}:{bucket:02x}}}:{name}", self.prefix)
    }
}

/// Key ids are digests, so any byte of them spreads evenly.
pub(crate) fn bucket(id: KeyId) -> u8 {
    id.as_bytes()[0] % BUCKETS
}

/// A score of the index: exact up to the year 287396, after which nothing ends.
pub(crate) fn score(time: Timestamp) -> u64 {
    time.as_millis().min(SCORE_MAX)
}

/// A value, and its score in the index.
pub(crate) fn value(id: KeyId, record: &Record) -> Result<(Vec<u8>, u64), StoreError> {
    let row = Row::of(id, record)?;
    let mut value = Vec::with_capacity(HEADER + row.bytes.len());
    value.extend_from_slice(&record.revision.get().to_be_bytes());
    value.push(record.state.kind() as u8);
    value.extend_from_slice(&row.bytes);
    let due_at = u64::try_from(row.due_at).unwrap_or_default();
    Ok((value, due_at.min(SCORE_MAX)))
}

/// The record in a value.
///
/// # Errors
/// [`StoreErrorKind::Damaged`]: it is not what was written.
pub(crate) fn record(place: &str, id: KeyId, value: Vec<u8>) -> Result<Record, StoreError> {
    let damaged = |text: &str| {
        let text = format!("{place}, key {id}: {text}");
        Err(StoreError::new(StoreErrorKind::Damaged, text))
    };
    let bytes = Bytes::from(value);
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return damaged("the record is cut");
    };
    let (revision, state) = header.split_at(8);
    let revision = revision.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    let state = state[0];
    let Ok(revision) = i64::try_from(revision) else {
        return damaged("its revision is none");
    };
    let record = Row::read(place, id, revision, bytes.slice(HEADER..))?;
    if record.state.kind() as u8 != state {
        return damaged("the record has another state than its value says");
    }
    Ok(record)
}
