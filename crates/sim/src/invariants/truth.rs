//! What is told as certain is true.

use onlyonce_core::{Outcome, Record};

use super::{Violation, broken};
use crate::world::KeyWorld;

/// `timed` keys are never forgotten, so "absent" speaks of all time.
pub(crate) fn check(
    key: &KeyWorld,
    outcome: &Outcome,
    record: Option<&Record>,
    timed: bool,
) -> Option<Violation> {
    let happened = key.forgotten < key.effects.len();
    let ever = !key.effects.is_empty();
    let vouched = match record {
        Some(record) => !record.may_have_run(),
        None => timed,
    };
    match outcome {
        Outcome::Absent if happened && vouched => broken("truth", "absent, but it happened"),
        Outcome::Gone { sealed: false, .. } if !ever => broken("truth", "gone, but it never was"),
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
