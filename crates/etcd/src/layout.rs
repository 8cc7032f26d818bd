//! Where what is kept, and the bytes of a value. `docs/stores.md` describes it for operators.

use bytes::Bytes;
use onlyonce_core::{KeyId, Record, Secret, StateKind, Timestamp};
use onlyonce_store::{Row, StoreError, StoreErrorKind};

/// The format of what is kept. A program refuses another.
pub(crate) const FORMAT: u8 = 1;
/// Bytes in front of a row: the record's revision, big-endian.
const HEADER: usize = 8;

/// The names of a store's keys.
#[derive(Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn key(&self, kind: &str, rest: &[&[u8]]) -> Vec<u8> {
        let mut key = format!("{}/{kind}", self.prefix).into_bytes();
        rest.iter().for_each(|part| key.extend_from_slice(part));
        key
    }

    /// Format, cluster and secret.
    pub(crate) fn store(&self) -> Vec<u8> {
        self.key("store", &[])
    }

    pub(crate) fn floor(&self) -> Vec<u8> {
        self.key("floor", &[])
    }

    /// The largest revision.
    pub(crate) fn revision(&self) -> Vec<u8> {
        self.key("revision", &[])
    }

    /// What a process's transactions compare, so that those it has given up do not take place.
    pub(crate) fn fence(&self, process: &[u8]) -> Vec<u8> {
        self.key("process/", &[process])
    }

    pub(crate) fn record(&self, id: KeyId) -> Vec<u8> {
        self.key("record/", &[id.as_bytes()])
    }

    /// What all records begin with.
    pub(crate) fn records(&self) -> Vec<u8> {
        self.key("record/", &[])
    }

    /// An entry of the index: the key ids of each state in the order of when time may end them.
    pub(crate) fn entry(&self, entry: Entry) -> Vec<u8> {
        let due_at = entry.due_at.to_be_bytes();
        self.key("index/", &[&[entry.state as u8], &due_at, entry.id.as_bytes()])
    }

    /// All entries of a state until a moment, that moment included.
    pub(crate) fn entries(&self, state: StateKind, until: u64) -> (Vec<u8>, Vec<u8>) {
        let from = self.key("index/", &[&[state as u8]]);
        let end = match until.checked_add(1) {
            Some(past) => self.key("index/", &[&[state as u8], &past.to_be_bytes()]),
            None => self.key("index/", &[&[state as u8 + 1]]),
        };
        (from, end)
    }

    /// What an entry's key says.
    pub(crate) fn read_entry(&self, key: &[u8]) -> Option<Entry> {
        let rest = key.strip_prefix(self.key("index/", &[]).as_slice())?;
        let (state, rest) = rest.split_first()?;
        let (due_at, id) = rest.split_first_chunk::<8>()?;
        Some(Entry {
            state: StateKind::from_number(*state)?,
            due_at: u64::from_be_bytes(*due_at),
            id: KeyId::from_bytes(id.try_into().ok()?),
        })
    }
}

/// An entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) state: StateKind,
    pub(crate) due_at: u64,
    pub(crate) id: KeyId,
}

/// A moment as the index counts it.
pub(crate) fn due_at(time: Timestamp) -> u64 {
    time.as_millis().min(i64::MAX as u64)
}

/// A value, and its entry in the index.
pub(crate) fn value(id: KeyId, record: &Record) -> Result<(Vec<u8>, Entry), StoreError> {
    let row = Row::of(id, record)?;
    let mut value = Vec::with_capacity(HEADER + row.bytes.len());
    value.extend_from_slice(&record.revision.get().to_be_bytes());
    value.extend_from_slice(&row.bytes);
    let due_at = u64::try_from(row.due_at).unwrap_or_default();
    Ok((value, Entry { state: record.state.kind(), due_at, id }))
}

/// The record in a value, and its entry in the index.
///
/// # Errors
/// [`StoreErrorKind::Damaged`]: it is not what was written.
pub(crate) fn record(
    place: &str,
    id: KeyId,
    value: Vec<u8>,
) -> Result<(Record, Entry), StoreError> {
    let bytes = Bytes::from(value);
    let revision = bytes.first_chunk::<HEADER>().map(|header| i64::from_be_bytes(*header));
    let Some(revision) = revision else {
        let text = format!("{place}, key {id}: the record is cut");
        return Err(StoreError::new(StoreErrorKind::Damaged, text));
    };
    let record = Row::read(place, id, revision, bytes.slice(HEADER..))?;
    let (_, entry) = self::value(id, &record)?;
    Ok((record, entry))
}

/// The facts of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: u8,
    /// Which cluster it was made in; one that was made from a snapshot has another.
    pub(crate) cluster: u64,
    pub(crate) secret: Secret,
}

impl Facts {
    pub(crate) fn write(&self) -> Vec<u8> {
        let cluster = self.cluster.to_be_bytes();
        [&[self.format][..], &cluster, self.secret.as_bytes()].concat()
    }

    /// A newer format is read as far as its number.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        if *format != FORMAT {
            let secret = Secret::from_bytes([0; 32]);
            return Some(Self { format: *format, cluster: 0, secret });
        }
        let (cluster, secret) = rest.split_first_chunk::<8>()?;
        Some(Self {
            format: *format,
            cluster: u64::from_be_bytes(*cluster),
            secret: Secret::from_bytes(secret.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_the_order_of_time_and_read_back() {
        let layout = Layout::new("a/b");
        let id = KeyId::from_bytes([0xFF; 16]);
        let entry = |state, due_at| Entry { state, due_at, id };
        let one = layout.entry(entry(StateKind::Completed, 255));
        let two = layout.entry(entry(StateKind::Completed, 256));
        assert!(one < two);
        assert_eq!(layout.read_entry(&one), Some(entry(StateKind::Completed, 255)));
        let (from, end) = layout.entries(StateKind::Completed, 255);
        assert!(from < one && one < end && end < two);
        let (_, end) = layout.entries(StateKind::Completed, u64::MAX);
        assert!(two < end && end < layout.entry(entry(StateKind::Unknown, 0)));
        assert_eq!(layout.read_entry(b"a/b/record/x"), None);
    }

    #[test]
    fn the_facts_of_a_store_read_back() {
        let facts = Facts { format: 1, cluster: 7, secret: Secret::from_bytes([3; 32]) };
        assert_eq!(Facts::read(&facts.write()), Some(facts.clone()));
        let mut newer = facts.write();
        newer[0] = 2;
        assert_eq!(Facts::read(&newer).map(|facts| facts.format), Some(2));
        assert_eq!(Facts::read(&facts.write()[..20]), None);
    }
}
