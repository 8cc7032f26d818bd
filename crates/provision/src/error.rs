//! Why something could not be done about a plan.

use std::fmt;

use onlyonce::EngineError;
use onlyonce::store::StoreError;

/// What was asked could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The store could not say, or writes nothing any more. What was begun before is recorded.
    Store(EngineError),
    /// The plan has no resource with this key. Nothing was done.
    NoSuchKey(String),
    /// A name of the plan cannot be one of a key. The reading of plans refuses such names.
    Name(String),
    /// A resource waits for another whose id is not known yet. Nothing was done.
    Waits {
        /// The resource.
        key: String,
        /// What it waits for.
        on: String,
    },
}

impl From<EngineError> for ProvisionError {
    fn from(error: EngineError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for ProvisionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::NoSuchKey(key) => write!(f, "the plan has no resource with the key {key:?}"),
            Self::Name(text) => f.write_str(text),
            Self::Waits { key, on } => {
                write!(f, "{key} is made of the id of {on}, and that is not there yet")
            }
        }
    }
}

impl std::error::Error for ProvisionError {}
