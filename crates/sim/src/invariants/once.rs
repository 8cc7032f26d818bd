//! No operation happens a second time, unless a person has allowed it: what the policy
//! has run again, the receiver must have made harmless.

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld) -> Option<Violation> {
    let (effects, allowed) = (key.effects_now(), 1 + key.allowed);
    let [earlier @ .., last] = effects else { return None };
    if allowed < effects.len() {
        return broken("once", format!("{} effects, {allowed} allowed", effects.len()));
    }
    if earlier.iter().any(|effect| effect.fence == last.fence) {
        return broken("once", format!("two effects under {}", last.fence.get()));
    }
    None
}
