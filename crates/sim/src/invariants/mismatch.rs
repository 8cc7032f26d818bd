//! Nobody is shown the answer to another request.

use onlyonce_core::{Fingerprint, Reply};

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, asked: Fingerprint, reply: &Reply) -> Option<Violation> {
    let answers = key.effects.iter().filter(|effect| effect.reply == *reply);
    let fine = answers.clone().count() == 0 || answers.clone().any(|it| it.fingerprint == asked);
    if fine { None } else { broken("mismatch", format!("{asked:?} was shown {reply:?}")) }
}
