//! Revisions of a key only rise, also over its deletion.

use onlyonce_core::Record;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, next: &Record) -> Option<Violation> {
    let (next, max) = (next.revision.get(), key.revision_max);
    if max < next { None } else { broken("revisions", format!("{next} after {max}")) }
}
