//! What an error of SQLite means: whether the transaction that met it took place, and whether the
//! file can still be trusted.

use std::path::Path;

use onlyonce_store::{OpenError, OpenErrorKind, StoreError, StoreErrorKind};
use rusqlite::ErrorCode;

/// Where in a transaction an error was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Before its commit: nothing of it can be seen, now or later.
    Work,
    /// At its commit.
    Commit,
}

/// What the error means for the swaps of the transaction.
pub(crate) fn kind(error: &rusqlite::Error, at: At) -> StoreErrorKind {
    match (code(error), at) {
        // After a failed write or sync nobody knows what is on the disk, and a later sync that
        // succeeds says nothing about it.
        (Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt), _)
        | (Some(ErrorCode::NotADatabase), _) => StoreErrorKind::Poisoned,
        // The frame that commits is the last one written, so a disk that is full has not got it.
        (Some(ErrorCode::DiskFull | ErrorCode::TooBig), _) => StoreErrorKind::Full,
        (_, At::Work) => StoreErrorKind::NotApplied,
        // The lock is held from the beginning on; the commit did not begin.
        (Some(ErrorCode::DatabaseBusy), At::Commit) => StoreErrorKind::NotApplied,
        (_, At::Commit) => StoreErrorKind::Unknown,
    }
}

/// Whether somebody else has what is needed now.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        code(error),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

pub(crate) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// An error of a read: nothing was changed.
pub(crate) fn of_read(path: &Path, error: &rusqlite::Error) -> StoreError {
    let kind = match kind(error, At::Work) {
        StoreErrorKind::Poisoned => StoreErrorKind::Damaged,
        other @ (StoreErrorKind::NotApplied
        | StoreErrorKind::Unknown
        | StoreErrorKind::Full
        | StoreErrorKind::Damaged) => other,
    };
    StoreError::new(kind, format!("{}: {error}", path.display()))
}

/// An error while the file is opened.
pub(crate) fn of_open(path: &Path, error: &rusqlite::Error) -> OpenError {
    if code(error) == Some(ErrorCode::NotADatabase) {
        return at(path, OpenErrorKind::Foreign, "it is no SQLite file");
    }
    at(path, OpenErrorKind::Unavailable, error.to_string())
}

pub(crate) fn at(path: &Path, kind: OpenErrorKind, text: impl Into<String>) -> OpenError {
    OpenError::new(kind, path.display().to_string(), text)
}
