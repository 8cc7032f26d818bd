//! What an error of the server or of the way to it means.

use std::error::Error as _;

use onlyonce_store::{StoreError, StoreErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What the server says about it, else what the connection does.
pub(crate) fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.source().map_or_else(|| error.to_string(), |it| format!("{error}: {it}")),
    }
}

/// What an error of a statement means that is followed by a commit: the server has refused it, so
/// that commit cannot take place; or it was lost, and then nobody knows.
pub(crate) fn of_statement(place: &str, error: &Error) -> StoreError {
    let kind = match error.code() {
        None => StoreErrorKind::Unknown,
        Some(code) if *code == SqlState::DISK_FULL => StoreErrorKind::Full,
        Some(_) => StoreErrorKind::NotApplied,
    };
    StoreError::new(kind, format!("{place}: {}", text(error)))
}

/// Nothing is changed by a read, whatever becomes of it.
pub(crate) fn of_read(place: &str, error: &Error) -> StoreError {
    not_applied(place, &text(error))
}

pub(crate) fn not_applied(place: &str, text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotApplied, format!("{place}: {text}"))
}

pub(crate) fn unknown(place: &str, text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unknown, format!("{place}: {text}"))
}
