//! What time alone does to a record, and what a claim leaves behind that has ended in doubt.

use crate::policy::Policy;
use crate::record::{Cause, Doubt, Flight, Phase, Record, State};
use crate::revision::Fence;
use crate::time::Timestamp;

/// What `record` has become by `now` with nobody acting on it. It is never absent (rule 9).
///
/// Settling twice is the same as settling once, and the revision stays: only a write changes it.
pub fn settle(now: Timestamp, policy: &Policy, record: &Record) -> Record {
    let state = match &record.state {
        State::InFlight(flight) if flight.lease_until.plus(policy.skew_max) <= now => {
            ended(flight, record.fence, flight.lease_until, Cause::Lapsed)
        }
        State::Completed { reply, answered_at, retain_until, sealed } if *retain_until <= now => {
            State::Tombstone {
                answered_at: *answered_at,
                status: reply.status(),
                forget_at: answered_at.plus(policy.remember).max(*retain_until),
                sealed: *sealed,
                digest: reply.digest(),
            }
        }
        State::InFlight(_)
        | State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => return record.clone(),
    };
    // Receivers forget keys some time after the first commit; whose answer is known, nobody asks.
    let is_over = matches!(state, State::Tombstone { .. });
    let first_commit_at = record.first_commit_at.filter(|_| !is_over);
    Record { state, first_commit_at, ..record.clone() }
}

/// What a claim leaves behind whose holder is gone, or who cannot tell (rules 2 and 7).
pub(super) fn ended(flight: &Flight, fence: Fence, since: Timestamp, cause: Cause) -> State {
    match (flight.phase, flight.inherited) {
        (Phase::Prepared, None) => State::Released { since },
        (Phase::Prepared, Some(doubt)) => State::Unknown(doubt),
        (Phase::Committing, None) => State::Unknown(Doubt { since, cause, only: Some(fence) }),
        (Phase::Committing, Some(doubt)) => State::Unknown(Doubt { only: None, ..doubt }),
    }
}
