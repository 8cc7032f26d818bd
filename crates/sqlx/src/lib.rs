//! Claims and completions in the caller's own transaction of sqlx: the operation, its answer and
//! its record are committed together, or none of them is. In PostgreSQL, by the functions in SQL
//! that the store has (`docs/transaction.md`).
//!
//! It cannot decide anything, nor open a store: it says what is asked to the functions, and what
//! they answer in types.

mod error;

use std::time::Duration;

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Key, OnUnknown, Policy, Reply, Scope, Timestamp};
pub use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::postgres::PgRow;
use sqlx::{Postgres, Row as _, Transaction};

pub use crate::error::failed;
use crate::error::{of_commit, refused};

/// A claim; the spans are in milliseconds, and to remember nothing is for ever.
const CLAIM: &str = "
SELECT outcome, fence, status, content, (extract(epoch FROM since) * 1000)::int8, cause
FROM onlyonce.claim($1, $2, $3, lease => $4::int8 * interval '1 millisecond',
  remember => $5::int8 * interval '1 millisecond', on_unknown => $6,
  skew_max => $7::int8 * interval '1 millisecond')";
const COMPLETE: &str = "
SELECT onlyonce.complete($1, $2, $3, $4, $5, retention => $6::int8 * interval '1 millisecond',
  skew_max => $7::int8 * interval '1 millisecond')";

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
/// (`lock_timeout`, `statement_timeout`).
///
/// Two round trips: sqlx has the statement read before it sends the values. After every answer that
/// is no error the transaction goes on. Of `policy` count `lease`, `remember`, `skew_max`, and
/// `on_unknown`: it must be `Hold`, or `Retry` if every change under the key is in a transaction
/// that completes it.
///
/// Await it to its end, or roll back: dropped in between, it may have claimed.
///
/// # Errors
/// It did not happen; the transaction is of no use any more.
pub async fn claim(
    tx: &mut Transaction<'_, Postgres>,
    request: Request<'_>,
    policy: &Policy,
) -> Result<Claimed, TxError> {
    let on_unknown = match policy.on_unknown {
        OnUnknown::Hold => "hold",
        OnUnknown::Retry => "retry",
        OnUnknown::Auto | OnUnknown::Probe => {
            return Err(refused("in a transaction on_unknown is hold or retry"));
        }
    };
    let asking = sqlx::query(CLAIM)
        .bind(text(request.scope)?)
        .bind(request.key.as_str())
        .bind(request.content)
        .bind(millis(policy.lease))
        .bind((policy.remember != FOREVER).then(|| millis(policy.remember)))
        .bind(on_unknown)
        .bind(millis(policy.skew_max));
    // A statement with a name stands in the session, which a pooler gives to others.
    let row = asking.persistent(false).fetch_one(&mut **tx).await.map_err(|it| failed(&it))?;
    let granted = |fence| {
        let (scope, key) = (request.scope.clone(), request.key.clone());
        Granted { scope, key, fence, policy: *policy }
    };
    told(&row, granted).map_err(|error| failed(&error))
}

/// What a row of the function says.
fn told(row: &PgRow, granted: impl FnOnce(i64) -> Granted) -> Result<Claimed, sqlx::Error> {
    let since = || -> Result<Timestamp, sqlx::Error> {
        let millis: i64 = row.try_get(4)?;
        Ok(Timestamp::from_millis(u64::try_from(millis).unwrap_or_default()))
    };
    let status = || -> Result<u16, sqlx::Error> {
        let status: i32 = row.try_get(2)?;
        u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let outcome: String = row.try_get(0)?;
    Ok(match outcome.as_str() {
        "granted" => Claimed::Granted(granted(row.try_get(1)?)),
        "replay" => Claimed::Replay(Reply::kept(status()?, row.try_get::<Vec<u8>, _>(3)?)),
        "in-flight" => Claimed::Refused(Refused::InFlight { until: since()? }),
        "mismatch" => Claimed::Refused(Refused::Mismatch),
        "outcome-unknown" => {
            Claimed::Refused(Refused::OutcomeUnknown { since: since()?, cause: row.try_get(5)? })
        }
        "gone" => {
            // A tombstone has the time and the status of what it was answered.
            Claimed::Refused(Refused::Gone { answered_at: since()?, status: status()? })
        }
        "expired" => Claimed::Refused(Refused::Expired),
        other => {
            let text = format!("the function says {other}, which is not known here");
            return Err(sqlx::Error::Decode(text.into()));
        }
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
pub async fn complete(
    tx: &mut Transaction<'_, Postgres>,
    scope: &Scope,
    key: &Key,
    fence: i64,
    reply: &Reply,
    policy: &Policy,
) -> Result<(), TxError> {
    let saying = sqlx::query(COMPLETE)
        .bind(text(scope)?)
        .bind(key.as_str())
        .bind(fence)
        .bind(i32::from(reply.status()))
        .bind(reply.content().map(|content| &content[..]))
        .bind(millis(policy.retention))
        .bind(millis(policy.skew_max));
    let said = saying.persistent(false).execute(&mut **tx).await;
    said.map(drop).map_err(|error| failed(&error))
}

/// Commits, and says of an error whether the operation may have happened. It also finds out that a
/// statement has failed in `tx` whose error was dropped: the server would roll back, and answer a
/// commit as if nothing were wrong.
///
/// # Errors
/// See [`TxErrorKind`].
pub async fn commit(mut tx: Transaction<'_, Postgres>) -> Result<(), TxError> {
    let alive = sqlx::query("SELECT 1").persistent(false).execute(&mut *tx).await;
    alive.map_err(|error| failed(&error))?;
    tx.commit().await.map_err(|error| of_commit(&error))
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
    pub async fn complete(
        self,
        tx: &mut Transaction<'_, Postgres>,
        reply: &Reply,
    ) -> Result<(), TxError> {
        complete(tx, &self.scope, &self.key, self.fence, reply, &self.policy).await
    }
}

/// The functions take scopes that are text.
fn text(scope: &Scope) -> Result<&str, TxError> {
    let text = std::str::from_utf8(scope.as_bytes());
    text.map_err(|_| refused("the scope is not text, and the functions take no other"))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
