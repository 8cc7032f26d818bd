//! What an error of the server or of the way to it means.

use mysql_async::{Error, ServerError};
use onlyonce_store::transaction::{TxError, TxErrorKind};
use onlyonce_store::{StoreError, StoreErrorKind};

/// Two transactions waited for each other; this one was rolled back.
pub(crate) const DEADLOCK: u16 = 1213;
/// A statement was asked for one value and found several. Nothing is written so but the bound on
/// the time of a transaction, and what its statements demand of each other.
pub(crate) const LATE: u16 = 1242;
/// Nobody is let in so: what MySQL says of a connection that is not encrypted, and what MariaDB
/// says, which is all that it says of a wrong password too.
pub(crate) const NOT_LET_IN: [u16; 2] = [3159, 1045];
/// The user may not do that.
pub(crate) const DENIED: [u16; 2] = [1142, 1143];
/// Somebody else's lock was waited for too long.
pub(crate) const LOCKED: u16 = 1205;
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
/// the same text is carried out, so the commit is not. `unmet` says that it was what the text
/// demands of its rows, and not the bound on its time, which looks the same.
pub(crate) fn refused(place: &str, said: &ServerError, unmet: bool) -> StoreError {
    let kind =
        if FULL.contains(&said.code) { StoreErrorKind::Full } else { StoreErrorKind::NotApplied };
    let text = if unmet {
        "a row was not as it was expected, and the server left it".to_owned()
    } else if said.code == LATE {
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

/// What an error of a statement in a caller's transaction means. Before the commit nothing of it
/// has happened.
pub(crate) fn of_transaction(place: &str, error: &Error) -> TxError {
    /// Another one with this key took longer than the caller's settings allow; a deadlock; a row
    /// that is newer than the snapshot; a server that ends the statement, or the connection.
    const AGAIN: [u16; 8] = [1205, DEADLOCK, 1020, 1317, 1969, 1927, 1053, 1028];
    let kind = match error {
        Error::Server(said) if said.state == "OO001" => TxErrorKind::Fenced,
        Error::Server(said) if said.state == "OO003" => TxErrorKind::Damaged,
        Error::Server(said) if said.state == "40001" => TxErrorKind::Again,
        Error::Server(said) if AGAIN.contains(&said.code) => TxErrorKind::Again,
        Error::Server(_) => TxErrorKind::NotExecuted,
        // The connection was lost.
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => TxErrorKind::Again,
    };
    let hint = match code(error) {
        Some(1146) => NO_STORE,
        Some(1305) => NO_PROCEDURE,
        Some(_) | None => "",
    };
    TxError::new(kind, format!("{place}: {}{hint}", text(error)))
}

/// What a missing table of ours may mean.
const NO_STORE: &str = ": if it is a table of onlyonce, `onlyonce store init` makes the store";
/// What a missing procedure of ours may mean.
const NO_PROCEDURE: &str = ": if it is one of onlyonce, `onlyonce store functions` makes it";

/// What an error of a commit means: but for a deadlock, after which it is rolled back, nobody
/// knows.
pub(crate) fn of_commit(place: &str, error: &Error) -> TxError {
    if code(error) == Some(DEADLOCK) {
        return of_transaction(place, error);
    }
    TxError::new(TxErrorKind::Unknown, format!("{place}: {}", text(error)))
}
