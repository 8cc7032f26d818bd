//! The promises, one file each. They know what happened outside, what the store was told and what
//! people were told, never how it was decided.

pub mod alarm;
pub mod answered;
pub mod erased;
pub mod fences;
pub mod floor;
pub mod kept;
pub mod liveness;
pub mod marked;
pub mod mismatch;
pub mod not_executed;
pub mod once;
pub mod replay;
pub mod revisions;
pub mod sealed;
pub mod truth;
pub mod waiters;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The file here that found it.
    pub invariant: &'static str,
    /// Of which key, if it is one key's.
    pub key: Option<usize>,
    /// What was seen.
    pub what: String,
}

fn broken(invariant: &'static str, what: impl Into<String>) -> Option<Violation> {
    Some(Violation { invariant, key: None, what: what.into() })
}
