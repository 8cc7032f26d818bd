//! A way to a server that is cut after so many bytes.

use onlyonce_conformance::transactions::Line;
use onlyonce_testbed::{Relay, Way};

/// A relay, and which direction is counted.
pub(crate) struct Cable(pub(crate) Relay, pub(crate) Way);

impl Line for Cable {
    fn passed(&self) -> usize {
        self.0.passed(self.1)
    }

    fn cut_after(&self, bytes: usize) {
        self.0.cut_after(self.1, bytes);
    }

    fn mend(&self) {
        self.0.mend();
    }
}
