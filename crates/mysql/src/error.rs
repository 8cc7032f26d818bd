//! What an error of the server or of the way to it means.

use mysql_async::{Error, ServerError};
use onlyonce_store::{StoreError, StoreErrorKind};

/// Two transactions waited for each other; this one was rolled back.
pub(crate) const DEADLOCK: u16 = 1213;
/// A statement was asked for one value and found several. Nothing but the bound on the time of a
/// transaction is written so.
pub(crate) const LATE: u16 = 1242;
/// Nobody is let in so: what MySQL says of a connection that is not encrypted, and what MariaDB
/// says, which is all that it says of a wrong password too.
pub(crate) const NOT_LET_IN: [u16; 2] = [3159, 1045];
/// The user may not do that.
pub(crate) const DENIED: [u16; 2] = [1142, 1143];
/// The user may not ask that.
pub(crate) const NOT_TOLD: u16 = 1227;
/// There is a row with this key.
pub(crate) const DUPLICATE: u16 = 1062;

/// A disk without room; a full table; more than the server takes at once; more than fits its log.
const FULL: [u16; 4] = [1021, 1114, 1153, 1118];

/// What the server says about it, else what the connection does.
pub(crate) fn text(error: &Error) -> String {
    match error {
        Error::Server(said) => format!("{} ({})", said.message, said.code),
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => error.to_string(),
    }
}

/// The number of an error that the server has told.
pub(crate) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(said) => Some(said.code),
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => None,
    }
}

/// What it means that the server has refused a statement before the commit: nothing after it in
/// the same text is carried out, so the commit is not.
pub(crate) fn refused(place: &str, said: &ServerError) -> StoreError {
    let kind =
        if FULL.contains(&said.code) { StoreErrorKind::Full } else { StoreErrorKind::NotApplied };
    let text = if said.code == LATE {
        "the server came to it too late, and left it".to_owned()
    } else {
        format!("{} ({})", said.message, said.code)
    };
    StoreError::new(kind, format!("{place}: {text}"))
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
