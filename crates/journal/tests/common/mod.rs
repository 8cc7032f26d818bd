//! What the tests of a journal in a folder share: records as the core makes them, and writes.

use bytes::Bytes;
use futures_executor::block_on;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Timestamp, decide,
};
use onlyonce_journal::{Journal, Settings};
use onlyonce_store::{Store, Swap};

/// Small segments, so that a few records fill several.
pub(crate) const SMALL: Settings = Settings { segment_bytes: 128 << 10, ..Settings::DEFAULT };
/// When everything happens, in milliseconds.
pub(crate) const NOW: u64 = 1_764_000_000_000;

pub(crate) fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

/// What a command writes.
pub(crate) fn written(record: Option<&Record>, command: &Command) -> Record {
    let now = Timestamp::from_millis(NOW);
    match decide(now, Floor::NONE, &Policy::default(), record, command).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
    }
}

pub(crate) fn claim() -> Record {
    let claim = Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([1; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Committing,
    };
    written(None, &Command::Claim(claim))
}

/// A claim answered with so many bytes.
pub(crate) fn complete(record: &Record, reply: usize) -> Record {
    let reply = Reply::kept(201, Bytes::from(vec![7; reply]));
    written(Some(record), &Command::Complete { fence: record.fence, reply })
}

pub(crate) fn put(journal: &Journal, number: u8, before: Option<&Record>, next: &Record) {
    let expected = before.map(|record| record.revision);
    let swapped = block_on(journal.swap(id(number), expected, Some(next.clone())));
    assert_eq!(swapped.unwrap(), Swap::Done);
}

/// Claims a key and answers it with so many bytes.
pub(crate) fn pair(journal: &Journal, number: u8, reply: usize) {
    let claimed = claim();
    put(journal, number, None, &claimed);
    put(journal, number, Some(&claimed), &complete(&claimed, reply));
}
