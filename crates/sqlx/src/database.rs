//! What a database of sqlx must be able to do, so that there can be a claim in its transactions.

use core::future::Future;
use std::time::Duration;

use onlyonce_core::{Key, Policy, Reply, Scope};
use onlyonce_store::transaction::TxError;
use sqlx::{Error, Transaction};

use crate::Request;
use crate::answer::Answer;
use crate::error::refused;

/// A database of sqlx in whose transactions there can be a claim: `Postgres`, and `MySql` if the
/// server is MariaDB.
pub trait Database: Claims {}

impl<D: Claims> Database for D {}

/// How it is done; nobody else's to implement.
pub trait Claims: sqlx::Database {
    /// Asks to be the only one; `on_unknown` of the policy is one that a transaction can have.
    fn claim(
        tx: &mut Transaction<'_, Self>,
        request: Request<'_>,
        policy: &Policy,
    ) -> impl Future<Output = Result<Answer, TxError>> + Send;

    /// Says that it happened, under the latest claim.
    fn complete(
        tx: &mut Transaction<'_, Self>,
        key: (&Scope, &Key),
        fence: i64,
        reply: &Reply,
        policy: &Policy,
    ) -> impl Future<Output = Result<(), TxError>> + Send;

    /// Whether a commit would be one.
    fn look(tx: &mut Transaction<'_, Self>) -> impl Future<Output = Result<(), TxError>> + Send;

    /// What an error of a commit means.
    fn of_commit(error: &Error) -> TxError;
}

/// The functions take scopes that are text.
pub(crate) fn text(scope: &Scope) -> Result<&str, TxError> {
    let text = std::str::from_utf8(scope.as_bytes());
    text.map_err(|_| refused("the scope is not text, and the functions take no other"))
}

/// A span as the functions take it.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
