//! The forward: what stands at a key's old home from the moment at which it has moved.
//!
//! It is a record, so that every store keeps it, and one swap puts it there. To whoever does not
//! know it, it says that the key was sealed and never runs; no sweeper forgets it.

use onlyonce_core::{Evidence, Fence, History, Record, ReplyDigest, Revision, State, Timestamp};

const WORD: &str = "forward ";
/// 410, as for any sealed key.
const STATUS: u16 = 410;

/// The forward of a key that moves under the map of this version, in the place of a record of this
/// revision.
pub(crate) fn forward(version: u64, before: Option<Revision>) -> Option<Record> {
    // No clock is needed: whoever still means the record before expects its revision.
    let revision = Revision::new(before.map_or(1, |before| before.get().saturating_add(1)))?;
    let fence = Fence::of(revision);
    Some(Record {
        revision,
        fingerprint: None,
        credential: None,
        first_fence: fence,
        fence,
        // With this no record of a key has evidence.
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        evidence: Evidence::new(format!("{WORD}{version}")),
        history: History::default(),
        state: State::Tombstone {
            answered_at: Timestamp::from_millis(revision.get()),
            status: STATUS,
            forget_at: Timestamp::MAX,
            sealed: true,
            digest: ReplyDigest::from_bytes([0; 8]),
        },
    })
}

/// The version of the map that a forward was made under; `None` if it is no forward.
pub(crate) fn version_of(record: &Record) -> Option<u64> {
    let State::Tombstone { forget_at: Timestamp::MAX, sealed: true, .. } = &record.state else {
        return None;
    };
    let evidence = record.evidence.as_ref().filter(|_| record.attempt == 0)?;
    std::str::from_utf8(evidence.as_bytes()).ok()?.strip_prefix(WORD)?.parse().ok()
}
