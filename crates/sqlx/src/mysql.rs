//! MariaDB, by the procedures `onlyonce_claim` and `onlyonce_complete`. MySQL has none.

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Key, OnUnknown, Policy, Reply, Scope};
use onlyonce_store::transaction::{TxError, TxErrorKind};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{Error, MySql, Row as _, Transaction};

use crate::Request;
use crate::answer::Answer;
use crate::database::{Claims, millis, text};
use crate::error::{failed, words};

const CLAIM: &str = "CALL onlyonce_claim(?, ?, ?, ?, @onlyonce_outcome, @onlyonce_fence, \
                     @onlyonce_status, @onlyonce_content, @onlyonce_since, @onlyonce_cause)";
/// What it has answered, which stands in the session.
const ANSWER: &str = "
SELECT CAST(@onlyonce_outcome AS CHAR), CAST(@onlyonce_fence AS SIGNED),
  CAST(@onlyonce_status AS SIGNED), CAST(@onlyonce_content AS BINARY),
  CAST(@onlyonce_since AS SIGNED), CAST(@onlyonce_cause AS CHAR)";
const COMPLETE: &str = "CALL onlyonce_complete(?, ?, ?, ?, ?, ?)";
/// A deadlock ends a transaction, and so does a statement that commits by itself.
const INSIDE: &str = "SELECT CAST(@@session.in_transaction AS SIGNED)";
const ENDED: &str = "the transaction has ended before, by a deadlock whose error was not heeded, \
                     or by a statement that commits, such as CREATE TABLE";
/// Two transactions waited for each other; this one was rolled back.
const DEADLOCK: u16 = 1213;

impl Claims for MySql {
    async fn claim(
        tx: &mut Transaction<'_, Self>,
        request: Request<'_>,
        policy: &Policy,
    ) -> Result<Answer, TxError> {
        let remember = match policy.remember {
            FOREVER => "null".to_owned(),
            span => millis(span).to_string(),
        };
        let on_unknown = if policy.on_unknown == OnUnknown::Retry { "retry" } else { "hold" };
        let (lease, skew_max) = (millis(policy.lease), millis(policy.skew_max));
        let options = format!(
            r#"{{"lease": {lease}, "remember": {remember}, "skew_max": {skew_max},
                "on_unknown": "{on_unknown}"}}"#
        );
        let asking = sqlx::query(CLAIM)
            .bind(text(request.scope)?)
            .bind(request.key.as_str())
            .bind(request.content)
            .bind(options);
        // A statement that is kept stands in the session, which a pooler gives to others.
        let asked = asking.persistent(false).execute(&mut **tx).await;
        asked.map_err(|error| failed(&error))?;
        let row = sqlx::query(ANSWER).persistent(false).fetch_one(&mut **tx).await;
        let row = row.map_err(|error| failed(&error))?;
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
        let (retention, skew_max) = (millis(policy.retention), millis(policy.skew_max));
        let saying = sqlx::query(COMPLETE)
            .bind(text(scope)?)
            .bind(key.as_str())
            .bind(fence)
            .bind(i32::from(reply.status()))
            .bind(reply.content().map(|content| &content[..]))
            .bind(format!(r#"{{"retention": {retention}, "skew_max": {skew_max}}}"#));
        let said = saying.persistent(false).execute(&mut **tx).await;
        said.map(drop).map_err(|error| failed(&error))
    }

    async fn look(tx: &mut Transaction<'_, Self>) -> Result<(), TxError> {
        let asking = sqlx::query_scalar::<_, i64>(INSIDE).persistent(false);
        match asking.fetch_one(&mut **tx).await {
            Ok(1) => Ok(()),
            Ok(_) => Err(TxError::new(TxErrorKind::Unknown, format!("MariaDB: {ENDED}"))),
            Err(error) => Err(failed(&error)),
        }
    }

    /// But for a deadlock, after which it is rolled back, nobody knows.
    fn of_commit(error: &Error) -> TxError {
        let said = error.as_database_error().and_then(|it| it.try_downcast_ref());
        match said {
            Some(said) if MySqlDatabaseError::number(said) == DEADLOCK => failed(error),
            Some(_) | None => TxError::new(TxErrorKind::Unknown, words(error)),
        }
    }
}

/// What an error of a statement means.
pub(crate) fn kind(said: &MySqlDatabaseError) -> TxErrorKind {
    /// Another one with this key took longer than the caller's settings allow; a row that is newer
    /// than the snapshot; a server that ends the statement, or the connection.
    const AGAIN: [u16; 8] = [1205, DEADLOCK, 1020, 1317, 1969, 1927, 1053, 1028];
    match said.code() {
        Some("OO001") => TxErrorKind::Fenced,
        Some("OO003") => TxErrorKind::Damaged,
        Some("40001") => TxErrorKind::Again,
        _ if AGAIN.contains(&said.number()) => TxErrorKind::Again,
        _ => TxErrorKind::NotExecuted,
    }
}

/// What it may lack.
pub(crate) fn hint(said: &MySqlDatabaseError) -> &'static str {
    match said.number() {
        1305 => {
            ": if it is one of onlyonce, `onlyonce store init` makes the store, and `onlyonce \
             store functions` what an older one lacks"
        }
        _ => "",
    }
}
