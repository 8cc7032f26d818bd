//! What was erased is told to nobody any more, and nobody runs it for that.

use onlyonce_core::Outcome;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, outcome: &Outcome) -> Option<Violation> {
    match outcome {
        Outcome::Replay { .. } | Outcome::Granted(_) | Outcome::Absent if key.erased => {
            broken("erased", format!("{outcome:?} although it was erased"))
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
