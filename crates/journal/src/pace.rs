//! Pauses of what is written in the background: as long as the disk was busy with it, so that
//! callers' syncs find the disk free for half of the time, be it fast or slow.

use std::thread;
use std::time::{Duration, Instant};

/// However long the disk took.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// When something was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace(Instant);

/// How long it is to be followed by nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause(Duration);

impl Pace {
    #[allow(clippy::disallowed_methods, reason = "how long a pause is decides nothing")]
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn end(self) -> Pause {
        Pause(self.0.elapsed().min(PAUSE_MAX))
    }
}

impl Pause {
    /// Lets the others have the disk.
    pub(crate) fn pause(self) {
        thread::sleep(self.0);
    }
}
