//! A replay is what really happened, and the same for everyone.

use onlyonce_core::Reply;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &mut KeyWorld, reply: &Reply) -> Option<Violation> {
    let Some(at) = key.effects.iter().position(|effect| effect.reply == *reply) else {
        return broken("replay", format!("{reply:?} never happened"));
    };
    if at < key.forgotten {
        // Read before the key was forgotten, and told after it.
        return None;
    }
    let first = key.told.get_or_insert_with(|| reply.clone());
    if first == reply { None } else { broken("replay", format!("{reply:?} after {first:?}")) }
}
