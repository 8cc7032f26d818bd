//! Why the engine could not carry out a command, and what that says about the operation.

use std::fmt;

use onlyonce_store::StoreError;

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
}

impl EngineError {
    /// Whether asking again later may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::StoreTimeout | Self::Contended | Self::LeaseShort => true,
            Self::ClaimLost => false,
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
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::StoreTimeout | Self::Contended | Self::ClaimLost | Self::LeaseShort => None,
        }
    }
}
