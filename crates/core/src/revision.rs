//! The number line of a record: revisions order its writes, fences name its claims.

use crate::time::Timestamp;

/// The number of one write of a record. Never zero, never reused for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number; `None` for zero, which no record ever has.
    pub const fn new(number: u64) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    /// The number itself, for stores and for display.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision of a write at `now` to a record whose revision was `previous`.
    ///
    /// It is never below the time in milliseconds, so that a record deleted and made again does
    /// not repeat a number: a stale writer's old revision matches nothing.
    pub fn after(previous: Option<Self>, now: Timestamp) -> Self {
        let least = previous.map_or(1, |previous| previous.0.saturating_add(1));
        Self(least.max(now.as_millis()))
    }
}

/// A fencing token: the revision that granted a claim. Receivers can compare fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(Revision);

impl Fence {
    /// The fence of the claim that was granted by the write `revision`.
    pub const fn of(revision: Revision) -> Self {
        Self(revision)
    }

    /// The fence with this number; `None` for zero.
    pub const fn new(number: u64) -> Option<Self> {
        match Revision::new(number) {
            Some(revision) => Some(Self(revision)),
            None => None,
        }
    }

    /// The number itself, as printed and as sent to the upstream.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_rises_even_when_the_clock_falls() {
        let first = Revision::after(None, Timestamp::from_millis(1000));
        assert_eq!(first.get(), 1000);
        let second = Revision::after(Some(first), Timestamp::from_millis(10));
        assert_eq!(second.get(), 1001);
        assert_eq!(Revision::after(Some(second), Timestamp::from_millis(5000)).get(), 5000);
        assert_eq!(Revision::after(None, Timestamp::from_millis(0)).get(), 1);
    }
}
