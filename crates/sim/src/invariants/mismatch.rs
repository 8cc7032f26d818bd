//! Nobody is shown the answer to another request, nor, unverified, another credential's.

use onlyonce_core::Reply;

use super::{Violation, broken};
use crate::world::{Asker, KeyWorld};

pub(crate) fn check(key: &KeyWorld, asker: Asker, reply: &Reply) -> Option<Violation> {
    let effect = key.effects.iter().find(|effect| effect.reply == *reply)?;
    let theirs = effect.asker;
    let stranger = asker.credential.is_some() && asker.credential != theirs.credential;
    if stranger || asker.fingerprint != theirs.fingerprint {
        broken("mismatch", format!("{asker:?} was shown the answer to {theirs:?}"))
    } else {
        None
    }
}
