//! No key is granted whose time the floor passed longer ago than a node may use an older one.

use onlyonce::FLOOR_AGE_MAX;
use onlyonce_core::{Record, State};

use super::{Violation, broken};
use crate::world::KeyWorld;

/// How far a grant's number may be ahead of the true time: a clock's lead, and writes in one
/// millisecond.
const AHEAD_MAX: u64 = 2_000;

pub(crate) fn check(key: &KeyWorld, next: &Record) -> Option<Violation> {
    let passed_at = key.passed_at?;
    let new = key.record.as_ref().is_none_or(|before| before.fence < next.fence);
    // A grant is decided at the time that its number tells, whenever it takes place.
    let last = passed_at + FLOOR_AGE_MAX.as_millis() as u64 + AHEAD_MAX;
    let late = last < next.fence.get();
    if new && late && matches!(next.state, State::InFlight(_)) {
        broken("floor", format!("granted {} ms too late", next.fence.get() - last))
    } else {
        None
    }
}
