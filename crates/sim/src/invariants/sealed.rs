//! A key that was sealed is never granted again.

use onlyonce_core::{Record, State};

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, next: &Record) -> Option<Violation> {
    // What was long on its way to a key that was deleted meanwhile is told to nobody.
    if key.sealed && !key.reborn && matches!(next.state, State::InFlight(_)) {
        broken("sealed", format!("{} was granted", next.fence.get()))
    } else {
        None
    }
}
