//! PostgreSQL, by the functions `onlyonce.claim` and `onlyonce.complete`.

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Key, OnUnknown, Policy, Reply, Scope};
use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{Error, Postgres, Row as _, Transaction};

use crate::Request;
use crate::answer::Answer;
use crate::database::{Claims, millis, text};
use crate::error::{failed, words};

/// A claim; the spans are in milliseconds, and to remember nothing is for ever.
const CLAIM: &str = "
SELECT outcome, fence, status::int8, content, (extract(epoch FROM since) * 1000)::int8, cause
FROM onlyonce.claim($1, $2, $3, lease => $4::int8 * interval '1 millisecond',
  remember => $5::int8 * interval '1 millisecond', on_unknown => $6,
  skew_max => $7::int8 * interval '1 millisecond')";
const COMPLETE: &str = "
SELECT onlyonce.complete($1, $2, $3, $4, $5, retention => $6::int8 * interval '1 millisecond',
  skew_max => $7::int8 * interval '1 millisecond')";

impl Claims for Postgres {
    async fn claim(
        tx: &mut Transaction<'_, Self>,
        request: Request<'_>,
        policy: &Policy,
    ) -> Result<Answer, TxError> {
        let retries = policy.on_unknown == OnUnknown::Retry;
        let asking = sqlx::query(CLAIM)
            .bind(text(request.scope)?)
            .bind(request.key.as_str())
            .bind(request.content)
            .bind(millis(policy.lease))
            .bind((policy.remember != FOREVER).then(|| millis(policy.remember)))
            .bind(if retries { "retry" } else { "hold" })
            .bind(millis(policy.skew_max));
        // A statement with a name stands in the session, which a pooler gives to others.
        let row = asking.persistent(false).fetch_one(&mut **tx).await.map_err(|it| failed(&it))?;
        let read = || {
            Ok(Answer {
                outcome: row.try_get(0)?,
                fence: row.try_get(1)?,
                status: row.try_get(2)?,
                content: row.try_get(3)?,
                since: row.try_get(4)?,
                cause: row.try_get(5)?,
            })
        };
        read().map_err(|error| failed(&error))
    }

    async fn complete(
        tx: &mut Transaction<'_, Self>,
        (scope, key): (&Scope, &Key),
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

    async fn look(tx: &mut Transaction<'_, Self>) -> Result<(), TxError> {
        let alive = sqlx::query("SELECT 1").persistent(false).execute(&mut **tx).await;
        alive.map(drop).map_err(|error| failed(&error))
    }

    /// A refusal is one; whoever is cut off has heard nothing.
    fn of_commit(error: &Error) -> TxError {
        let said = error.as_database_error().and_then(|it| it.try_downcast_ref());
        match said {
            Some(said) if !is_final(said) => failed(error),
            Some(_) | None => TxError::new(TxErrorKind::Unknown, words(error)),
        }
    }
}

/// What an error of a statement means.
pub(crate) fn kind(said: &PgDatabaseError) -> TxErrorKind {
    match said.code() {
        // Another transaction stood in the way; another one with this key took longer than the
        // caller's settings allow; or an earlier error, perhaps one of these, was dropped.
        "40001" | "40P01" | "55P03" | "57014" | "25P02" => TxErrorKind::Again,
        "OO001" => TxErrorKind::Fenced,
        "OO003" => TxErrorKind::Damaged,
        _ if is_final(said) => TxErrorKind::Again,
        _ => TxErrorKind::NotExecuted,
    }
}

/// What it may lack.
pub(crate) fn hint(said: &PgDatabaseError) -> &'static str {
    match said.code() {
        "42883" | "3F000" => {
            ": if it is one of onlyonce, `onlyonce store init` makes the store, and `onlyonce \
             store functions` what an older one lacks"
        }
        _ => "",
    }
}

/// Whether the server has ended the connection with it.
fn is_final(said: &PgDatabaseError) -> bool {
    matches!(said.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}
