//! A record is deleted only if nothing is in doubt; and if its key carries a time, only once no
//! node can use a floor any more that has not passed it.

use onlyonce::FLOOR_AGE_MAX;
use onlyonce_core::{Phase, State};

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, timed: bool, now: u64) -> Option<Violation> {
    let record = key.record.as_ref()?;
    let open = match &record.state {
        State::InFlight(flight) => flight.phase == Phase::Committing || flight.inherited.is_some(),
        State::Unknown(_) => true,
        State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => false,
    };
    if open {
        return broken("kept", format!("{:?} was deleted", record.state));
    }
    let age_max = FLOOR_AGE_MAX.as_millis() as u64;
    if timed && key.passed_at.is_none_or(|passed_at| now <= passed_at + age_max) {
        return broken("kept", format!("deleted at {now}, passed at {:?}", key.passed_at));
    }
    None
}
