//! What an error of the server or of the way to it means.

use std::error::Error as _;

use onlyonce_store::transaction::{TxError, TxErrorKind};
use onlyonce_store::{StoreError, StoreErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::{Severity, SqlState};

/// What the server says about it, else what the connection does.
pub(crate) fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.source().map_or_else(|| error.to_string(), |it| format!("{error}: {it}")),
    }
}

/// What to do about a connection that the server refuses as it was `encrypted`, or as it was not.
pub(crate) fn refused_way(error: &Error, encrypted: bool) -> &'static str {
    match error.code() {
        // No rule of it lets us in; there may be one for what is encrypted.
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && !encrypted => {
            ": if it wants TLS, say `sslmode=require` in the address"
        }
        Some(_) => "",
        None if encrypted && text(error).contains("server does not support TLS") => {
            ": it has none to offer; `sslmode=disable` does without, and whoever is in between can \
             read it"
        }
        None => "",
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

/// What an error of a statement in a caller's transaction means. Before the commit nothing of it
/// has happened; it is told by its code, whose words depend on the server's language.
pub(crate) fn of_transaction(place: &str, error: &Error) -> TxError {
    const AGAIN: [SqlState; 5] = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        // Another one with this key took longer than the caller's settings allow.
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        // An earlier error ended it, perhaps one of these, and was dropped.
        SqlState::IN_FAILED_SQL_TRANSACTION,
    ];
    let kind = match error.code() {
        // The connection was lost, or the server ends it.
        None => TxErrorKind::Again,
        // The functions in SQL say these.
        Some(code) if code.code() == "OO001" => TxErrorKind::Fenced,
        Some(code) if code.code() == "OO003" => TxErrorKind::Damaged,
        Some(code) if AGAIN.contains(code) || is_final(error) => TxErrorKind::Again,
        Some(_) => TxErrorKind::NotExecuted,
    };
    let hint = match error.code() {
        Some(code) if *code == SqlState::UNDEFINED_TABLE => NO_STORE,
        Some(_) | None => "",
    };
    TxError::new(kind, format!("{place}: {}{hint}", text(error)))
}

/// What a missing table of ours may mean.
const NO_STORE: &str = ": if it is a table of onlyonce, `onlyonce store init` makes the store, and \
                        `onlyonce store functions` what an older one lacks";

/// What an error of a commit means. A refusal is one; whoever is cut off has heard nothing.
pub(crate) fn of_commit(place: &str, error: &Error) -> TxError {
    if error.code().is_some() && !is_final(error) {
        return of_transaction(place, error);
    }
    TxError::new(TxErrorKind::Unknown, format!("{place}: {}", text(error)))
}

/// Whether the server has ended the connection with it.
fn is_final(error: &Error) -> bool {
    let severity = error.as_db_error().and_then(|said| said.parsed_severity());
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}
