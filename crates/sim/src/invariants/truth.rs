//! What is told as certain is true; doubt is never told as certainty.

use onlyonce_core::{Outcome, Record};

use super::{Violation, broken};
use crate::world::KeyWorld;

/// `timed` keys are never forgotten, so that "absent" speaks of all time.
pub(crate) fn check(
    key: &KeyWorld,
    outcome: &Outcome,
    record: Option<&Record>,
    timed: bool,
) -> Option<Violation> {
    let vouched = match record {
        Some(record) => !record.may_have_run(),
        None => timed,
    };
    let (happened, may) = (key.effects_now().len(), key.under_way);
    match outcome {
        Outcome::Absent if vouched && 0 < happened + may => {
            broken("truth", format!("absent, but {happened} happened and {may} still may"))
        }
        Outcome::Gone { sealed: false, .. } if happened == 0 => {
            broken("truth", "gone, but it never was")
        }
        Outcome::Granted(_)
        | Outcome::Replay { .. }
        | Outcome::InFlight { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Gone { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => None,
    }
}
