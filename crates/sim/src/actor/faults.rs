//! What is done wrongly on purpose, so that the oracle can be seen to find it.

use onlyonce_core::{Cause, History, Record, Reply, State, Timestamp};

use super::{Then, lease_until};
use crate::bug::Bug;
use crate::world::World;

/// A record as a node with a fault reads it.
pub(super) fn read(found: Option<Record>, then: &Then, world: &World) -> Option<Record> {
    let mut record = found?;
    let now = world.now(0);
    let asker = match then {
        Then::Claimed { asker, .. } | Then::Looked { asker, .. } => Some(*asker),
        Then::Committed(_) | Then::Renewed(..) | Then::Released | Then::Swept(_) | Then::Ended => {
            None
        }
    };
    let sealed = matches!(record.state, State::Completed { sealed: true, .. });
    match (world.bug, asker) {
        (Bug::LapseIsRelease, _) => {
            let since = match &record.state {
                State::Unknown(doubt) if doubt.cause == Cause::Lapsed => Some(doubt.since),
                State::InFlight(_) if lease_until(&record).plus(world.policy.skew_max) <= now => {
                    Some(now)
                }
                State::InFlight(_)
                | State::Unknown(_)
                | State::Released { .. }
                | State::Completed { .. }
                | State::Tombstone { .. } => None,
            };
            if let Some(since) = since {
                record.state = State::Released { since };
            }
        }
        (Bug::FingerprintIgnored, Some(asker)) => record.fingerprint = Some(asker.fingerprint),
        (Bug::CredentialIgnored, Some(asker)) => record.credential = asker.credential,
        (Bug::ErasedRunsAgain, Some(_)) if record.is_erased() => {
            record.state = State::Released { since: now };
        }
        (Bug::SealIgnored, Some(_)) if sealed => record.state = State::Released { since: now },
        (Bug::SweepsDoubt, None) if matches!(then, Then::Swept(_)) => {
            if matches!(record.state, State::Unknown(_)) {
                record.state = State::Released { since: Timestamp::from_millis(0) };
            }
        }
        _ => {}
    }
    Some(record)
}

/// A record as a holder with a fault releases it.
pub(super) fn released(mut record: Record, world: &World) -> Record {
    if let State::InFlight(flight) = &mut record.state
        && world.bug == Bug::ReleaseForgetsDoubt
    {
        flight.inherited = None;
    }
    record
}

/// A reply as a holder with a fault records it.
pub(super) fn kept(reply: Reply, world: &World) -> Reply {
    if world.bug == Bug::OtherReplyKept { Reply::kept(599, bytes::Bytes::new()) } else { reply }
}

/// A record as a node with a fault leaves it when it raises an alarm.
pub(super) fn noted(mut record: Option<Record>, world: &World) -> Option<Record> {
    if let (Bug::AlarmNotKept, Some(record)) = (world.bug, &mut record) {
        record.history = History::default();
    }
    record
}
