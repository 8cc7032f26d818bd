//! Along a record revisions rise, and no number is ever used twice for a key, deleted or not.

use onlyonce_core::Record;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, next: &Record) -> Option<Violation> {
    let number = next.revision.get();
    let before = key.record.as_ref().map_or(0, |record| record.revision.get());
    if number <= before {
        return broken("revisions", format!("{number} after {before}"));
    }
    let rises = key.revisions.last().is_none_or(|last| *last < number);
    if rises || !key.revisions.contains(&number) {
        None
    } else {
        broken("revisions", format!("{number} a second time"))
    }
}
