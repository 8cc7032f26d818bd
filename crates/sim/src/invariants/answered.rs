//! Once somebody was given the answer, nobody is told that there is none.

use onlyonce_core::Outcome;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, outcome: &Outcome) -> Option<Violation> {
    let told = key.told.as_ref()?;
    match outcome {
        Outcome::Granted(_)
        | Outcome::InFlight { .. }
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Absent => broken("answered", format!("{outcome:?} after {told:?}")),
        Outcome::Replay { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::Gone { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply => None,
    }
}
