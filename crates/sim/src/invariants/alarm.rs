//! A second, different success is in the record when it is told.

use onlyonce_core::{Outcome, Record};

use super::{Violation, broken};

pub(crate) fn check(outcome: &Outcome, record: Option<&Record>) -> Option<Violation> {
    let is_noted = record.is_none_or(Record::has_alarm);
    if *outcome == Outcome::SecondReply && !is_noted {
        return broken("alarm", "another answer was told as one, and the record does not say so");
    }
    None
}
