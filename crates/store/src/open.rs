//! What can go wrong when a database is made a store, or opened as one.

use core::fmt;

/// A database cannot be used as a store. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    kind: OpenErrorKind,
    place: String,
    text: String,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenErrorKind {
    /// There is no store at this place.
    Missing,
    /// There is one already where one should be made.
    Exists,
    /// What is there is not ours.
    Foreign,
    /// A newer program has made it.
    Newer,
    /// An older program has made it, and its tables are to be brought up to date first.
    Older,
    /// A setting would break what a store promises; the text names it and what it must be.
    Refused,
    /// The system or the server does not let us in.
    Unavailable,
}

impl OpenError {
    /// An error of this kind; `place` names the file or server, without a password.
    pub fn new(kind: OpenErrorKind, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, place: place.into(), text: text.into() }
    }

    /// Why not.
    pub const fn kind(&self) -> OpenErrorKind {
        self.kind
    }

    /// The file or server.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong there, without the place.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

impl std::error::Error for OpenError {}
