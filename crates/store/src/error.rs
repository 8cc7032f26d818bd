//! What can go wrong in a store, told so that the caller knows whether anything happened.

use core::fmt;

/// A store could not do what was asked. [`StoreErrorKind`] says whether it may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    of_key: bool,
}

/// What an error of a store means for the swap that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// It certainly did not take place: the store was not reached or refused at once.
    NotApplied,
    /// It may or may not have taken place: the answer was lost.
    Unknown,
    /// It did not take place: there is no room left for a record of this size.
    Full,
    /// The record that is stored cannot be read. Nothing was changed.
    Damaged,
    /// The store has lost trust in its own medium and takes no more writes in this process.
    /// Swaps in progress may or may not have taken place.
    Poisoned,
}

impl StoreError {
    /// An error of this kind; `message` names the place: file and offset, server, statement.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), of_key: false }
    }

    /// The same, about nothing but the key that was asked for: others may go well, however many
    /// meet one like it.
    pub fn of_key(self) -> Self {
        Self { of_key: true, ..self }
    }

    /// Whether it says nothing of other keys.
    pub const fn is_of_key(&self) -> bool {
        self.of_key
    }

    /// What it means for the swap.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the swap that met this error may have taken place.
    pub const fn may_have_happened(&self) -> bool {
        match self.kind {
            StoreErrorKind::Unknown | StoreErrorKind::Poisoned => true,
            StoreErrorKind::NotApplied | StoreErrorKind::Full | StoreErrorKind::Damaged => false,
        }
    }

    /// Whether asking again may help.
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            StoreErrorKind::NotApplied | StoreErrorKind::Unknown => true,
            StoreErrorKind::Full | StoreErrorKind::Damaged | StoreErrorKind::Poisoned => false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.kind {
            StoreErrorKind::NotApplied => "the store did not take it",
            StoreErrorKind::Unknown => "the store may or may not have taken it",
            StoreErrorKind::Full => "the store has no room for it",
            StoreErrorKind::Damaged => "the stored record cannot be read",
            StoreErrorKind::Poisoned => "the store has stopped after a failed write",
        };
        write!(f, "{meaning}: {}", self.message)
    }
}

impl std::error::Error for StoreError {}
