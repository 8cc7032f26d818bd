//! "It was not executed" is told only where no attempt has happened or still can.

use onlyonce_core::Record;

use super::{Violation, broken};
use crate::world::KeyWorld;

/// What whoever releases a claim tells its caller from the record it finds then.
pub(crate) fn check(key: &KeyWorld, record: Option<&Record>) -> Option<Violation> {
    let told = record.is_some_and(|record| !record.may_have_run());
    let (happened, may) = (key.effects_now().len(), key.under_way);
    if told && 0 < happened + may {
        broken("not_executed", format!("{happened} happened, {may} may still"))
    } else {
        None
    }
}
