//! Once nothing fails any more, everyone comes to an end, and no key stays taken.

use onlyonce_core::{State, settle};

use super::{Violation, broken};
use crate::world::World;

pub(crate) fn check(world: &World, all_idle: bool) -> Option<Violation> {
    if !all_idle {
        return broken("liveness", "somebody never comes to an end");
    }
    let later = world.now(0).plus(world.policy.lease * 3);
    let stuck = world.keys.iter().any(|key| {
        let settled = key.record.as_ref().map(|record| settle(later, &world.policy, record));
        settled.is_some_and(|record| matches!(record.state, State::InFlight(_)))
    });
    if stuck { broken("liveness", "a key stays taken") } else { None }
}
