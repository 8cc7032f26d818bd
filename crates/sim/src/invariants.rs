//! The promises, one file each. They know what happened outside and what was told.

pub mod fences;
pub mod liveness;
pub mod mismatch;
pub mod once;
pub mod replay;
pub mod revisions;
pub mod truth;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The file here that found it.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

fn broken(invariant: &'static str, what: impl Into<String>) -> Option<Violation> {
    Some(Violation { invariant, what: what.into() })
}
