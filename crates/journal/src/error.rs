//! What can go wrong with a journal as a whole: each error names the place and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A journal could not be made, opened, checked, copied or restored.
#[derive(Debug)]
pub struct JournalError {
    kind: JournalErrorKind,
    place: PathBuf,
    offset: Option<u64>,
    text: String,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalErrorKind {
    /// There is no journal at this place.
    Missing,
    /// There is something already where a journal or a copy of one should be made.
    Exists,
    /// Another process has it.
    Locked,
    /// What is stored is not what was written.
    Damaged,
    /// It was written by a newer program, or is no journal at all.
    Format,
    /// The secret is missing or is that of another journal.
    Secret,
    /// It is a backup: what ran after it was taken is not in it, so it must be restored first.
    Backup,
    /// The system refused.
    Io,
}

impl JournalError {
    pub(crate) fn new(
        kind: JournalErrorKind,
        place: impl Into<PathBuf>,
        text: impl Into<String>,
    ) -> Self {
        Self { kind, place: place.into(), offset: None, text: text.into() }
    }

    pub(crate) fn at(self, offset: u64) -> Self {
        Self { offset: Some(offset), ..self }
    }

    pub(crate) fn io(place: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::new(JournalErrorKind::Io, place, error.to_string())
    }

    pub(crate) fn damaged(place: impl Into<PathBuf>, offset: u64, text: impl Into<String>) -> Self {
        Self::new(JournalErrorKind::Damaged, place, text).at(offset)
    }

    /// What is wrong.
    pub const fn kind(&self) -> JournalErrorKind {
        self.kind
    }

    /// The file or folder.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What is wrong there, without the place.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Where in the file, in bytes from its start.
    pub const fn offset(&self) -> Option<u64> {
        self.offset
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for JournalError {}
