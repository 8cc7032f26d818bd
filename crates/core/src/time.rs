//! Instants in milliseconds since the Unix epoch, and the floor below which no key is new.

use core::time::Duration;

/// An instant in milliseconds since the Unix epoch, UTC. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last instant that can be named.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This instant and `millis` more.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This instant and `duration` more, in whole milliseconds.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This instant less `duration`, in whole milliseconds.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long it is from `earlier` to this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A key that carries a time below the floor may have been used and forgotten: it is never run.
///
/// A store keeps its floor durably and only ever raises it. Invariant: every accepted key whose
/// time is at or above the floor still has its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor(Timestamp);

impl Floor {
    /// Nothing has ever been forgotten, so no key is too old.
    pub const NONE: Self = Self(Timestamp::from_millis(0));

    /// Keys from before `time` are refused.
    pub const fn at(time: Timestamp) -> Self {
        Self(time)
    }

    /// The earliest key time that is still accepted as new.
    pub const fn time(self) -> Timestamp {
        self.0
    }

    /// Whether a key that carries `key_time` is too old to be known. Keys without time never are.
    pub fn is_above(self, key_time: Option<Timestamp>) -> bool {
        key_time.is_some_and(|key_time| key_time < self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::default().minus(Duration::MAX), Timestamp::default());
        let (earlier, later) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        assert_eq!(later.since(earlier), Duration::from_millis(4));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }

    #[test]
    fn only_a_key_with_time_can_be_below_the_floor() {
        let floor = Floor::at(Timestamp::from_millis(100));
        assert!(floor.is_above(Some(Timestamp::from_millis(99))));
        assert!(!floor.is_above(Some(Timestamp::from_millis(100))));
        assert!(!floor.is_above(None));
    }
}
