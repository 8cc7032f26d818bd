//! What an error of sqlx means for the operation.

use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::Error;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What an error of a statement in a transaction means: of this crate's, and of the caller's own.
/// Before the commit nothing of it has happened; it is told by its code, whose words depend on the
/// server's language.
pub fn failed(error: &Error) -> TxError {
    let is_lost = matches!(
        error,
        Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
    );
    let kind = match error.as_database_error() {
        Some(said) => of_code(said),
        None if is_lost => TxErrorKind::Again,
        // The call is wrong, or what it was answered.
        None => TxErrorKind::NotExecuted,
    };
    TxError::new(kind, text(error))
}

/// What an error of a commit means. A refusal is one; whoever is cut off has heard nothing.
pub(crate) fn of_commit(error: &Error) -> TxError {
    match error.as_database_error() {
        Some(said) if !is_final(said) => failed(error),
        Some(_) | None => TxError::new(TxErrorKind::Unknown, text(error)),
    }
}

pub(crate) fn refused(text: &str) -> TxError {
    TxError::new(TxErrorKind::NotExecuted, text)
}

fn of_code(said: &dyn DatabaseError) -> TxErrorKind {
    match said.code().as_deref() {
        // Another transaction stood in the way; another one with this key took longer than the
        // caller's settings allow; or an earlier error, perhaps one of these, was dropped.
        Some("40001" | "40P01" | "55P03" | "57014" | "25P02") => TxErrorKind::Again,
        Some("OO001") => TxErrorKind::Fenced,
        Some("XX001") => TxErrorKind::Damaged,
        _ if is_final(said) => TxErrorKind::Again,
        _ => TxErrorKind::NotExecuted,
    }
}

/// Whether the server has ended the connection with it.
fn is_final(said: &dyn DatabaseError) -> bool {
    let said = said.try_downcast_ref::<PgDatabaseError>();
    said.is_some_and(|it| matches!(it.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

fn text(error: &Error) -> String {
    let code = error.as_database_error().and_then(|said| said.code());
    match code {
        Some(code) if code == "42883" || code == "3F000" => format!(
            "PostgreSQL: {error} ({code}): if it is one of onlyonce, `onlyonce store init` makes \
             the store, and `onlyonce store functions` what an older one lacks"
        ),
        Some(code) => format!("PostgreSQL: {error} ({code})"),
        None => format!("PostgreSQL: {error}"),
    }
}
