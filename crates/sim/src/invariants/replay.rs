//! A reply that is told is what really happened, and the same for everyone.

use onlyonce_core::Reply;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &mut KeyWorld, reply: &Reply) -> Option<Violation> {
    if key.effects_now().iter().all(|effect| effect.reply != *reply) {
        return broken("replay", format!("{reply:?} never happened"));
    }
    let first = key.told.get_or_insert_with(|| reply.clone());
    if first == reply { None } else { broken("replay", format!("{reply:?} after {first:?}")) }
}
