//! The numbers and choices for a route or effect, checked against each other once.

use core::fmt;
use core::time::Duration;

use crate::limits::{LEASE_MAX, LEASE_MIN, RETENTION_MAX, SKEW_MAX};

/// What a new request may do about an unknown outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Nothing: a person or the application resolves it.
    #[default]
    Hold,
    /// Run again. Only for receivers that dedupe or fence; it is counted as authorised.
    Retry,
    /// Ask the receiver, then act on what it says.
    Probe,
}

/// How long things last, and what an unknown outcome allows. [`Policy::check`] states the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a claim is exclusive without renewal. Default 30 s.
    pub lease: Duration,
    /// How long a reply is kept, from completion. Default 24 h.
    pub retention: Duration,
    /// How long it is remembered that the key was answered, from completion. Default 30 d.
    pub remember: Duration,
    /// How far two clocks of ours may differ; added before a lease counts as lapsed. Default 1 s.
    pub skew_max: Duration,
    /// What a request does that meets an unknown outcome. Default [`OnUnknown::Hold`].
    pub on_unknown: OnUnknown,
}

/// Two numbers of a [`Policy`] that contradict each other or a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The lease is outside [`LEASE_MIN`] to [`LEASE_MAX`].
    Lease(Duration),
    /// The retention is longer than [`RETENTION_MAX`].
    Retention(Duration),
    /// A reply would outlive the memory that its key was used.
    RememberBelowRetention {
        /// The configured memory.
        remember: Duration,
        /// The configured retention.
        retention: Duration,
    },
    /// The skew is longer than [`SKEW_MAX`].
    Skew(Duration),
}

impl Policy {
    /// Checks the bounds and the relations between the numbers.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(self) -> Result<Self, PolicyError> {
        if self.lease < LEASE_MIN || LEASE_MAX < self.lease {
            return Err(PolicyError::Lease(self.lease));
        }
        if RETENTION_MAX < self.retention {
            return Err(PolicyError::Retention(self.retention));
        }
        if self.remember < self.retention {
            let Self { remember, retention, .. } = self;
            return Err(PolicyError::RememberBelowRetention { remember, retention });
        }
        if SKEW_MAX < self.skew_max {
            return Err(PolicyError::Skew(self.skew_max));
        }
        Ok(self)
    }
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(24 * HOUR),
            remember: Duration::from_secs(30 * 24 * HOUR),
            skew_max: Duration::from_secs(1),
            on_unknown: OnUnknown::Hold,
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(lease) => {
                write!(f, "lease {lease:?} is outside {LEASE_MIN:?} to {LEASE_MAX:?}")
            }
            Self::Retention(retention) => {
                write!(f, "retention {retention:?} is longer than a hundred years")
            }
            Self::RememberBelowRetention { remember, retention } => write!(
                f,
                "remember {remember:?} is shorter than retention {retention:?}: \
                 a key would be forgotten while its reply is still kept"
            ),
            Self::Skew(skew) => write!(f, "skew_max {skew:?} is longer than {SKEW_MAX:?}"),
        }
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_contradictions_are_refused() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(policy));
        let short = Policy { remember: Duration::from_secs(1), ..policy };
        assert!(matches!(short.check(), Err(PolicyError::RememberBelowRetention { .. })));
        let hasty = Policy { lease: Duration::ZERO, ..policy };
        assert_eq!(hasty.check(), Err(PolicyError::Lease(Duration::ZERO)));
        let long = Policy { skew_max: Duration::MAX, ..policy };
        assert_eq!(long.check(), Err(PolicyError::Skew(Duration::MAX)));
    }
}
