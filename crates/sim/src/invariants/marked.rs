//! Nothing is sent under a claim before it is durable that it may have been: a holder that lost
//! its claim while preparing never sends.

use onlyonce_core::Fence;

use super::{Violation, broken};
use crate::world::KeyWorld;

pub(crate) fn check(key: &KeyWorld, fence: Fence) -> Option<Violation> {
    if key.marked.iter().any(|(marked, _)| *marked == fence) {
        None
    } else {
        broken("marked", format!("sent under {}, which was never marked", fence.get()))
    }
}
