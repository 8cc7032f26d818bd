//! What an error of sqlx means for the operation.

use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::Error;
use sqlx::error::DatabaseError;

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
        Some(said) => of_code(said).0,
        None if is_lost => TxErrorKind::Again,
        // The call is wrong, or what it was answered.
        None => TxErrorKind::NotExecuted,
    };
    TxError::new(kind, words(error))
}

pub(crate) fn refused(text: &str) -> TxError {
    TxError::new(TxErrorKind::NotExecuted, text)
}

/// What it means, who says it, and what may be lacking.
fn of_code(said: &dyn DatabaseError) -> (TxErrorKind, &'static str, &'static str) {
    #[cfg(feature = "postgres")]
    if let Some(said) = said.try_downcast_ref() {
        return (crate::postgres::kind(said), "PostgreSQL", crate::postgres::hint(said));
    }
    #[cfg(feature = "mysql")]
    if let Some(said) = said.try_downcast_ref() {
        return (crate::mysql::kind(said), "MariaDB", crate::mysql::hint(said));
    }
    let _ = said;
    (TxErrorKind::NotExecuted, "the database", "")
}

/// The words of the database or of sqlx, with the code, and what to do.
pub(crate) fn words(error: &Error) -> String {
    let Some(said) = error.as_database_error() else { return format!("the database: {error}") };
    let (code, (_, who, hint)) = (said.code().unwrap_or_default(), of_code(said));
    format!("{who}: {error} ({code}){hint}")
}
