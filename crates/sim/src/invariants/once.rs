//! No operation happens a second time, unless a person or the policy has allowed it.

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld) -> Option<Violation> {
    let (effects, allowed) = (key.effects.len() - key.forgotten, 1 + key.allowed);
    if effects <= allowed {
        None
    } else {
        broken("once", format!("{effects} effects, {allowed} allowed"))
    }
}
