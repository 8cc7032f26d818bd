//! Claims and completions in the caller's own transaction of sqlx: the operation, its answer and
//! its record are committed together, or none of them is. In PostgreSQL and in MariaDB, by the
//! functions and procedures in SQL that the store has (`docs/transaction.md`).
//!
//! It cannot decide anything, nor open a store: it says what is asked to the functions, and what
//! they answer in types.

mod answer;
mod database;
mod error;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;

use onlyonce_core::{Key, OnUnknown, Policy, Reply, Scope, Timestamp};
pub use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::Transaction;

pub use crate::database::Database;
pub use crate::error::failed;
use crate::error::refused;

/// A request to run an operation once. The same three find the same record at every door.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose key it is.
    pub scope: &'a Scope,
    /// The key.
    pub key: &'a Key,
    /// What must be the same whenever the key comes again, in a spelling that does not change.
    pub content: &'a [u8],
}

/// What a claim was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The operation is ours to run, in this transaction.
    Granted(Granted),
    /// It was answered before, or sealed: this is what to say. The transaction goes on.
    Replay(Reply),
    /// Neither; this is why. The transaction goes on, and nothing may be run in it.
    Refused(Refused),
}

/// Why nothing may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A holder may be running it.
    InFlight {
        /// When its claim lapses unless renewed.
        until: Timestamp,
    },
    /// The key was used for another request.
    Mismatch,
    /// Nobody knows whether it happened.
    OutcomeUnknown {
        /// Since when.
        since: Timestamp,
        /// How knowledge was lost, in a word.
        cause: String,
    },
    /// It was answered or sealed; the reply is no longer kept.
    Gone {
        /// When.
        answered_at: Timestamp,
        /// With what status.
        status: u16,
    },
    /// The key is too old to know whether it ran, so it never will.
    Expired,
}

/// A claim that was granted in a transaction: run the operation in it, then
/// [`complete`](Self::complete), then [`commit`].
///
/// To drop it and roll back is to take the claim back. A transaction that is committed without the
/// completion leaves the claim as it is: when its lease is over, its outcome is unknown.
#[must_use = "a claim that is committed without its completion becomes an unknown outcome"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    scope: Scope,
    key: Key,
    fence: i64,
    policy: Policy,
}

/// Asks, within `tx`, to be the only one who runs the operation. If another transaction has claimed
/// the key, it waits for the end of that one, for as long as the settings of `tx` allow
/// (`lock_timeout` and `statement_timeout`; `innodb_lock_wait_timeout`).
///
/// Two round trips in PostgreSQL, since sqlx has the statement read before it sends the values, and
/// six in MariaDB. After every answer that is no error the transaction goes on; in MariaDB it is to
/// be committed also after a replay. Of `policy` count `lease`, `remember`, `skew_max`, and
/// `on_unknown`: it must be `Hold`, or `Retry` if every change under the key is in a transaction
/// that completes it.
///
/// Await it to its end, or roll back: dropped in between, it may have claimed.
///
/// # Errors
/// It did not happen; the transaction is of no use any more: roll back.
pub async fn claim<D: Database>(
    tx: &mut Transaction<'_, D>,
    request: Request<'_>,
    policy: &Policy,
) -> Result<Claimed, TxError> {
    if matches!(policy.on_unknown, OnUnknown::Auto | OnUnknown::Probe) {
        return Err(refused("in a transaction on_unknown is hold or retry"));
    }
    let answer = D::claim(tx, request, policy).await?;
    answer.told(|fence| {
        let (scope, key) = (request.scope.clone(), request.key.clone());
        Granted { scope, key, fence, policy: *policy }
    })
}

/// Says, within `tx`, that the operation happened in it under a claim that was granted outside: by
/// an engine, by the record service, or in an earlier transaction. It counts for the latest claim
/// alone, and once; so the operation happens exactly once, whoever is late. Of `policy` `retention`
/// and `skew_max` count. A reply above 1 MiB is recorded as answered and not kept.
///
/// # Errors
/// [`TxErrorKind::Fenced`] if it does not count: `tx` must be rolled back. The others as for
/// [`claim`].
pub async fn complete<D: Database>(
    tx: &mut Transaction<'_, D>,
    scope: &Scope,
    key: &Key,
    fence: i64,
    reply: &Reply,
    policy: &Policy,
) -> Result<(), TxError> {
    D::complete(tx, (scope, key), fence, reply, policy).await
}

/// Commits, and says of an error whether the operation may have happened. It also finds out that
/// the transaction cannot be committed any more: in PostgreSQL a statement has failed in `tx` whose
/// error was dropped, and the server would roll back and answer a commit as if nothing were wrong;
/// in MariaDB it has ended before.
///
/// # Errors
/// See [`TxErrorKind`].
pub async fn commit<D: Database>(mut tx: Transaction<'_, D>) -> Result<(), TxError> {
    D::look(&mut tx).await?;
    tx.commit().await.map_err(|error| D::of_commit(&error))
}

impl Granted {
    /// The fence of this claim.
    pub const fn fence(&self) -> i64 {
        self.fence
    }

    /// Says that the operation happened in `tx`, which must be the transaction of the claim, with
    /// this reply: true from the commit on.
    ///
    /// # Errors
    /// It did not happen; roll back.
    pub async fn complete<D: Database>(
        self,
        tx: &mut Transaction<'_, D>,
        reply: &Reply,
    ) -> Result<(), TxError> {
        complete(tx, &self.scope, &self.key, self.fence, reply, &self.policy).await
    }
}
