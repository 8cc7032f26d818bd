//! What a record is worth that comes from an older copy of its store: rule 15.

use crate::record::{Cause, Doubt, Entry, Event, Record, State};
use crate::revision::{Fence, Revision};
use crate::time::Timestamp;

/// What becomes of a record that comes from an older copy, or `None` if it stands as it is.
///
/// What was answered or sealed stays so for ever. What was running or free may have run since, so
/// it is in doubt. What was in doubt may have been settled and have run again: it stays in doubt,
/// by a new write, from which the bounds of a receiver count.
///
/// Claims may have been granted since, which nobody knows here. So the latest one is taken to be of
/// now: that it happened is taken from any holder, that it did not from none, and whoever seals the
/// receiver seals it for all of them.
///
/// A doubt without any claim is about no operation: a program has put it there as a mark of its own
/// on the store, and it stays.
///
/// Records that were made so since `begun` are left alone, so that it may be done again after it
/// was cut off. `by` and `why` go into the record's history, cut to its bounds.
pub fn restored(
    now: Timestamp,
    begun: Timestamp,
    record: &Record,
    by: &str,
    why: &str,
) -> Option<Record> {
    let doubt = match &record.state {
        State::Completed { .. } | State::Tombstone { .. } => return None,
        State::InFlight(_) | State::Released { .. } => {
            Doubt { since: now, cause: Cause::Restored, only: None }
        }
        State::Unknown(_) if record.attempt == 0 || was_restored_since(begun, record) => {
            return None;
        }
        State::Unknown(doubt) => Doubt { only: None, ..*doubt },
    };
    let mut next = record.clone();
    next.revision = Revision::after(Some(record.revision), now);
    next.fence = Fence::of(next.revision);
    next.state = State::Unknown(doubt);
    next.history.push(Entry {
        at: now,
        event: Event::Restored,
        fence: record.fence,
        by: by.to_owned(),
        why: why.to_owned(),
    });
    Some(next)
}

fn was_restored_since(begun: Timestamp, record: &Record) -> bool {
    let last = record.history.entries().last();
    last.is_some_and(|last| last.event == Event::Restored && begun <= last.at)
}
