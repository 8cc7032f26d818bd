//! How much memory the bodies of requests may take together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted at once, in bytes.
const UNIT: usize = 1 << 10;
/// For bodies of requests that run or wait, unless said otherwise, in bytes.
const DEFAULT: usize = 512 << 20;

/// Memory for the bodies of keyed requests. They are read whole before they run and are held until
/// they have ended, so together they need a bound. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for so many bytes. Default 512 MiB.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// A share that grows with what is read.
    pub(crate) const fn share(&self) -> Share<'_> {
        Share { room: self, bytes: 0, held: None }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(DEFAULT)
    }
}

/// What one body takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    room: &'a Room,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Share<'_> {
    /// Takes more. `false` if there is no room for it.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        self.bytes += more;
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = self.bytes.div_ceil(UNIT) - held;
        let Ok(missing) = u32::try_from(missing) else { return false };
        if missing == 0 {
            return true;
        }
        let Ok(taken) = Arc::clone(&self.room.0).try_acquire_many_owned(missing) else {
            return false;
        };
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
        true
    }

    /// What is to be kept as long as the body.
    pub(crate) fn kept(self) -> Held {
        Held(self.held.map(Arc::new))
    }
}

/// Holds the room of a body until its last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Held(
    #[allow(dead_code, reason = "held, never read")] Option<Arc<OwnedSemaphorePermit>>,
);
