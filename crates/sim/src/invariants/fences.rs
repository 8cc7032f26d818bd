//! A grant has a fence of its own, above all earlier ones; only the same claim gets it again.

use onlyonce_core::Fence;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &mut KeyWorld, fence: Fence, claim: u64) -> Option<Violation> {
    let before = key.granted;
    let fine = match before {
        Some((largest, same)) if same == claim => largest == fence,
        Some((largest, _)) => largest < fence,
        None => true,
    };
    key.granted = Some((fence, claim));
    if fine { None } else { broken("fences", format!("{fence:?} for {claim} after {before:?}")) }
}
