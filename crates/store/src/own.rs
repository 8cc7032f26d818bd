//! Records of a store's own, under ids that no key has.

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Fence, History, Record, Reply, Revision, State, Timestamp};

/// The record of a text of our own, under no key's id: it was answered and is kept for ever, so
/// nothing makes anything else of it and nobody claims it.
pub fn record(revision: Revision, text: String, now: Timestamp) -> Record {
    let fence = Fence::of(revision);
    Record {
        revision,
        fingerprint: None,
        credential: None,
        first_fence: fence,
        fence,
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        evidence: None,
        history: History::default(),
        state: State::Completed {
            reply: Reply::kept(0, text),
            answered_at: now,
            retain_until: Timestamp::default().plus(FOREVER),
            sealed: true,
        },
    }
}
