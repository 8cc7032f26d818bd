//! Why the engine could not carry out a command, and what that says about the operation.

use std::fmt;
use std::time::Duration;

use onlyonce_store::{StoreError, StoreErrorKind};

/// The engine could not carry out a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// The store failed and did not recover within the time there was.
    Store(StoreError),
    /// The store did not answer within the time there was.
    StoreTimeout,
    /// Too many writers changed the record at once; nothing was changed by this one.
    Contended,
    /// The claim is no longer ours: it lapsed, was resolved, or a newer one was granted.
    ClaimLost,
    /// Too little of the lease is left to begin the dangerous phase; nothing was sent.
    LeaseShort,
    /// The clock is more than [`CLOCK_GAP_MAX`] ahead of the last write in the store, so it may be
    /// wrong; the engine has not started. Under a wrong clock replies end and the store's floor
    /// rises, and neither can be taken back.
    ClockDoubtful {
        /// By how much it is ahead.
        gap: Duration,
    },
    /// The store's clock cannot be read well enough: its answers take too long. Nothing was begun.
    ClockUncertain {
        /// By how much it may be wrong.
        uncertainty: Duration,
    },
}

/// How long a store may have been unused before the clock is doubted.
pub const CLOCK_GAP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl EngineError {
    /// Whether what is stored is not what was written.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error.kind(), StoreErrorKind::Damaged),
            Self::StoreTimeout
            | Self::Contended
            | Self::ClaimLost
            | Self::LeaseShort
            | Self::ClockDoubtful { .. }
            | Self::ClockUncertain { .. } => false,
        }
    }

    /// Whether asking again later may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::StoreTimeout
            | Self::Contended
            | Self::LeaseShort
            | Self::ClockUncertain { .. } => true,
            Self::ClaimLost | Self::ClockDoubtful { .. } => false,
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "{error}"),
            Self::StoreTimeout => f.write_str("the store did not answer in time"),
            Self::Contended => f.write_str("too many writers changed the record at once"),
            Self::ClaimLost => f.write_str("the claim was lost before the operation began"),
            Self::LeaseShort => f.write_str("too little of the lease is left to begin"),
            Self::ClockDoubtful { gap } => {
                let days = gap.as_secs() / (24 * 3600);
                write!(f, "by the clock the store was last written {days} days ago: is it right?")
            }
            Self::ClockUncertain { uncertainty } => {
                let millis = uncertainty.as_millis();
                write!(
                    f,
                    "the store's clock is known to {millis} ms only: its answers take too long"
                )
            }
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::StoreTimeout
            | Self::Contended
            | Self::ClaimLost
            | Self::LeaseShort
            | Self::ClockDoubtful { .. }
            | Self::ClockUncertain { .. } => None,
        }
    }
}
