//! A table of messages that callers write in transactions of their own, and a sender takes out.
//!
//! It is no store: it may lie in any database, with the records elsewhere. All that is done to it
//! is done by functions, so that a role needs no right on the table: a caller may write messages, a
//! sender take them and say what became of them.

use std::time::Duration;

use onlyonce_core::Timestamp;
use onlyonce_store::outbox::{self, Counted, MISSING, Posted, Told};
use onlyonce_store::{BoxFuture, OpenError, OpenErrorKind, StoreError, row};
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::address::Address;
use crate::error::{not_applied, text, unknown};
use crate::schema::TX_DURABLE;
use crate::session::{COMMIT, Way};

/// What makes the table and its functions. It can be carried out again, and changes no row.
pub const OUTBOX: &str = include_str!("outbox/outbox.sql");

/// How long a call may take.
const CALL_MAX: Duration = Duration::from_secs(20);
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = '8s'";
/// Whether a role may do what a sender does.
const MAY_TAKE: &str = "
SELECT coalesce(has_schema_privilege('onlyonce_mail', 'USAGE')
  AND has_function_privilege('onlyonce_mail.take(text, bigint, integer)', 'EXECUTE')
  AND has_function_privilege('onlyonce_mail.ours(text, bigint, integer)', 'EXECUTE')
  AND has_function_privilege('onlyonce_mail.tell(text, bigint, text, text)', 'EXECUTE'), false)";
const TAKE: &str = "SELECT number, key, sender, recipient, message, posted, taken, state \
                    FROM onlyonce_mail.take($1, $2, $3)";
const OURS: &str = "SELECT number, key, sender, recipient, message, posted, taken, state \
                    FROM onlyonce_mail.ours($1, $2, $3)";
const TELL: &str = "SELECT onlyonce_mail.tell($1, $2, $3, $4)";
const COUNTS: &str = "SELECT state, ours, rows, oldest FROM onlyonce_mail.counts($1)";

/// What brings its functions up to date.
const MADE_ANEW: &str = "`onlyonce mail outbox` makes them anew";

type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// Whether our functions know all that a row is told: no row has this number.
const KNOWS: &str = "SELECT onlyonce_mail.tell('', 0, 'taken', '') IS NOT NULL";

/// The table, as one sender sees it.
pub struct Outbox {
    way: Way,
    /// Whose the rows are that are taken here.
    who: String,
    client: Mutex<Option<Client>>,
}

impl Outbox {
    /// Makes the table in a schema `onlyonce_mail`, or its functions anew.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, in which case nothing is changed.
    pub async fn install(address: Address) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut client = way.connect().await?;
        let make = async {
            let making = client.transaction().await?;
            making.batch_execute(OUTBOX).await?;
            making.commit().await
        };
        make.await.map_err(|error| failed(&way, OpenErrorKind::Unavailable, &text(&error)))
    }

    /// Opens the table for a sender. `who` is the same each time, and nobody else's: rows that it
    /// has taken are given to nobody else.
    ///
    /// # Errors
    /// The server cannot be reached, there is no such table, or our role may not take from it.
    pub async fn open(address: Address, who: String) -> Result<Self, OpenError> {
        let way = Way::to(address);
        let client = way.connect().await?;
        let there = "SELECT to_regnamespace('onlyonce_mail') IS NOT NULL";
        for (question, why) in [
            (there, MISSING),
            (
                MAY_TAKE,
                "our role may not take messages: GRANT USAGE ON SCHEMA onlyonce_mail and GRANT \
                 EXECUTE ON FUNCTION onlyonce_mail.take, onlyonce_mail.ours, onlyonce_mail.tell",
            ),
        ] {
            let asked = client.query_typed(question, &[]).await;
            let asked =
                asked.map_err(|error| failed(&way, OpenErrorKind::Unavailable, &text(&error)))?;
            if !asked.first().is_some_and(|row| row.get(0)) {
                return Err(failed(&way, OpenErrorKind::Missing, why));
            }
        }
        if let Err(error) = client.query_typed(KNOWS, &[]).await {
            let text = text(&error);
            let why = format!("{text}; if its functions are an older onlyonce's: {MADE_ANEW}");
            return Err(failed(&way, OpenErrorKind::Unavailable, &why));
        }
        Ok(Self { way, who, client: Mutex::new(Some(client)) })
    }

    /// One statement, committed so that a crash or a failover does not lose it.
    async fn call(&self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, StoreError> {
        let place = &*self.way.place;
        let mut kept = self.client.lock().await;
        let client = match kept.take() {
            Some(client) if !client.is_closed() => client,
            Some(_) | None => {
                let connected = self.way.connect().await;
                connected.map_err(|error| not_applied(place, &error.to_string()))?
            }
        };
        let calling = async {
            client.batch_execute(BEGIN).await?;
            client.query_typed(TX_DURABLE, &[]).await?;
            let rows = client.query_typed(sql, values).await?;
            client.batch_execute(COMMIT).await?;
            Ok(rows)
        };
        let called = tokio::time::timeout(CALL_MAX, calling).await;
        let called = called.map_err(|_| unknown(place, "it does not answer in time"))?;
        let rows = called.map_err(|error: tokio_postgres::Error| unknown(place, &text(&error)))?;
        // One on which something went wrong is not used again.
        *kept = Some(client);
        Ok(rows)
    }
}

impl outbox::Outbox for Outbox {
    fn take(&self, now: Timestamp, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        Box::pin(async move {
            let now = row::millis(now);
            let most = i32::try_from(most).unwrap_or(i32::MAX);
            let values: [(&(dyn ToSql + Sync), Type); 3] =
                [(&self.who, Type::TEXT), (&now, Type::INT8), (&most, Type::INT4)];
            Ok(self.call(TAKE, &values).await?.iter().map(posted).collect())
        })
    }

    fn ours(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        Box::pin(async move {
            let most = i32::try_from(most).unwrap_or(i32::MAX);
            let values: [(&(dyn ToSql + Sync), Type); 3] =
                [(&self.who, Type::TEXT), (&after, Type::INT8), (&most, Type::INT4)];
            Ok(self.call(OURS, &values).await?.iter().map(posted).collect())
        })
    }

    fn tell<'a>(
        &'a self,
        number: i64,
        told: Told,
        said: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let state = told.name();
            let values: [(&(dyn ToSql + Sync), Type); 4] = [
                (&self.who, Type::TEXT),
                (&number, Type::INT8),
                (&state, Type::TEXT),
                (&said, Type::TEXT),
            ];
            self.call(TELL, &values).await.map(drop)
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<Vec<Counted>, StoreError>> {
        Box::pin(async move {
            let counts = self.call(COUNTS, &[(&self.who, Type::TEXT)]).await?;
            Ok(counts.iter().map(counted).collect())
        })
    }
}

fn posted(row: &Row) -> Posted {
    Posted {
        number: row.get(0),
        key: row.get(1),
        sender: row.get(2),
        recipient: row.get(3),
        message: row.get::<_, String>(4).into_bytes(),
        posted: row::timestamp(row.get(5)),
        taken: row::timestamp(row.get(6)),
        is_unknown: row.get::<_, &str>(7) == Told::Unknown.name(),
    }
}

fn counted(row: &Row) -> Counted {
    let (rows, oldest) = (row.get::<_, i64>(2).unsigned_abs(), row::timestamp(row.get(3)));
    Counted { state: row.get(0), is_ours: row.get(1), rows, oldest }
}

fn failed(way: &Way, kind: OpenErrorKind, why: &str) -> OpenError {
    OpenError::new(kind, &*way.place, why)
}
