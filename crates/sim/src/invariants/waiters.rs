//! Whoever waits for another's attempt never runs: its end is theirs too.

use onlyonce_core::Outcome;

use super::{Violation, broken};

pub(crate) fn check(waited: bool, outcome: &Outcome) -> Option<Violation> {
    if waited && matches!(outcome, Outcome::Granted(_)) {
        broken("waiters", "granted to one who has waited")
    } else {
        None
    }
}
