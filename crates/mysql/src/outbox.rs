//! A table of messages that callers write in transactions of their own, and a sender takes out.
//!
//! It is no store: it may lie in any database, with the records elsewhere. Callers write by a
//! procedure, so that they need no right on the table; a sender needs the right to read it, and to
//! write what became of a row, but no message.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Row};
use onlyonce_core::Timestamp;
use onlyonce_store::OpenErrorKind::{Missing, Refused, Unavailable};
use onlyonce_store::outbox::{self, Counted, MISSING, Posted, Told};
use onlyonce_store::{BoxFuture, OpenError, StoreError, row};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::address::Address;
use crate::error::{DENIED, code, not_applied, text, unknown};
use crate::procedures::is_mariadb;
use crate::schema::{TX_LOSES, hex};
use crate::session::{Way, value};

const TABLE: &str = include_str!("outbox/table.sql");
const SEND: &str = include_str!("outbox/send.sql");
/// What makes the table and its procedure, for a client such as `mariadb`. It can be carried out
/// again, and changes no row.
pub const OUTBOX: &str = concat!(
    include_str!("outbox/table.sql"),
    "\nDELIMITER //\n",
    include_str!("outbox/send.sql"),
    "//\nDELIMITER ;\n"
);

/// How long a call may take.
const CALL_MAX: Duration = Duration::from_secs(20);
/// `SKIP LOCKED`: MariaDB has it since 10.6.
const LEAST: (u32, u32) = (10, 6);
const COLUMNS: &str = "number, `key`, sender, recipient, message, posted, taken, state";
/// What must be allowed, as statements that do nothing.
const RIGHTS: [&str; 2] = [
    "EXPLAIN SELECT * FROM onlyonce_mail_outbox WHERE number = 0 FOR UPDATE SKIP LOCKED",
    "EXPLAIN UPDATE onlyonce_mail_outbox SET state = 'sent', taken_by = '', taken = 0, said = '',
  ended = NULL WHERE number = 0",
];
/// There is no such table.
const NO_TABLE: u16 = 1146;
const GRANT: &str = "there is no outbox, or our user may not take messages: `onlyonce mail outbox` \
                     makes one, then GRANT SELECT, UPDATE (state, taken_by, taken, said, ended) ON \
                     DATABASE.onlyonce_mail_outbox TO the user of this address";
/// Whether a crash may take back that a row was taken.
const LOSES: &str = "SELECT @@global.innodb_flush_log_at_trx_commit NOT IN (1, 3)
  OR (@@global.log_bin AND @@global.sync_binlog <> 1)";

/// The table, as one sender sees it.
pub struct Outbox {
    way: Way,
    /// Whose the rows are that are taken here.
    who: String,
    kept: Mutex<Option<Conn>>,
}

impl Outbox {
    /// Makes the table in the database of this address, or its procedure anew.
    ///
    /// # Errors
    /// The server cannot be reached, is none that can have it, or refuses. Made anew, it is whole.
    pub async fn install(address: Address) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        if !is_mariadb(&mut conn, &way.place, LEAST).await? {
            let text = "an outbox is for MariaDB 10.6 or newer, and this server is none";
            return Err(OpenError::new(Refused, &*way.place, text));
        }
        let making = async {
            conn.query_drop(TABLE).await?;
            conn.query_drop(SEND).await?;
            conn.disconnect().await
        };
        let made = timeout(CALL_MAX, making).await;
        let made = made.map_err(|_| failed(&way, "it does not answer in time"))?;
        made.map_err(|error| failed(&way, &text(&error)))
    }

    /// Opens the table for a sender. `who` is the same each time, and nobody else's: rows that it
    /// has taken are given to nobody else.
    ///
    /// # Errors
    /// The server cannot be reached, there is no such table, or our user may not take from it; or
    /// the server loses what it has confirmed, and a row could be taken twice.
    pub async fn open(address: Address, who: String) -> Result<Self, OpenError> {
        let way = Way::to(address);
        let opened = timeout(CALL_MAX, connected(&way)).await;
        let conn = opened.map_err(|_| failed(&way, "it does not answer in time"))??;
        Ok(Self { way, who, kept: Mutex::new(Some(conn)) })
    }

    /// Who we are, as a literal.
    fn who(&self) -> String {
        format!("_ascii {}", hex(self.who.as_bytes()))
    }

    /// Statements of one transaction, and their rows; the second is made of the rows of the first.
    async fn call(
        &self,
        first: String,
        then: impl FnOnce(&[Row]) -> Option<String>,
    ) -> Result<Vec<Row>, StoreError> {
        let place = &*self.way.place;
        let mut kept = self.kept.lock().await;
        let calling = async {
            let mut conn = match kept.take() {
                Some(conn) => conn,
                None => {
                    let connected = connected(&self.way).await;
                    connected.map_err(|error| not_applied(place, &error.to_string()))?
                }
            };
            let calling = async {
                conn.query_drop("START TRANSACTION READ WRITE").await?;
                let rows: Vec<Row> = conn.query(first).await?;
                if let Some(then) = then(&rows) {
                    conn.query_drop(then).await?;
                }
                conn.query_drop("COMMIT").await?;
                Ok((conn, rows))
            };
            calling.await.map_err(|error: mysql_async::Error| unknown(place, &text(&error)))
        };
        let called = timeout(CALL_MAX, calling).await;
        let (conn, rows) = called.map_err(|_| unknown(place, "it does not answer in time"))??;
        // One on which something went wrong is not used again.
        *kept = Some(conn);
        Ok(rows)
    }
}

impl outbox::Outbox for Outbox {
    fn take(&self, now: Timestamp, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        Box::pin(async move {
            // What a caller has written and not committed is nobody's yet, and not waited for.
            let waiting = format!(
                "SELECT {COLUMNS} FROM onlyonce_mail_outbox WHERE state = 'waiting' \
                 ORDER BY number LIMIT {most} FOR UPDATE SKIP LOCKED"
            );
            let who = self.who();
            let take = |rows: &[Row]| {
                let numbers: Vec<String> =
                    rows.iter().map(|it| number(it, 0).to_string()).collect();
                let (numbers, taken) = (numbers.join(","), row::millis(now));
                (!rows.is_empty()).then(|| {
                    format!(
                        "UPDATE onlyonce_mail_outbox SET state = 'taken', taken_by = {who}, \
                         taken = {taken} WHERE number IN ({numbers}) AND state = 'waiting'"
                    )
                })
            };
            let rows = self.call(waiting, take).await?;
            Ok(rows.iter().map(|row| Posted { taken: now, ..posted(row) }).collect())
        })
    }

    fn ours(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>> {
        Box::pin(async move {
            // A call of ours whose answer was lost may still be committed: it is waited for.
            let ours = format!(
                "SELECT {COLUMNS} FROM onlyonce_mail_outbox WHERE state IN ('taken', 'unknown') \
                 AND taken_by = {} AND {after} < number ORDER BY number LIMIT {most} \
                 LOCK IN SHARE MODE",
                self.who()
            );
            Ok(self.call(ours, |_| None).await?.iter().map(posted).collect())
        })
    }

    fn tell<'a>(
        &'a self,
        number: i64,
        told: Told,
        said: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (who, state, said) = (self.who(), told.name(), hex(said.as_bytes()));
            let ended = if told.is_last() { "UTC_TIMESTAMP(3)" } else { "NULL" };
            let tell = format!(
                "UPDATE onlyonce_mail_outbox SET state = '{state}', said = _utf8mb4 {said}, \
                 ended = {ended} WHERE number = {number} AND taken_by = {who} \
                 AND state IN ('taken', 'unknown')"
            );
            self.call(tell, |_| None).await.map(drop)
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<Vec<Counted>, StoreError>> {
        Box::pin(async move {
            let counts = format!(
                "SELECT state, COALESCE(taken_by = {}, 0), COUNT(*), MIN(posted) \
                 FROM onlyonce_mail_outbox GROUP BY 1, 2 ORDER BY 1, 2",
                self.who()
            );
            let counted = |row: &Row| Counted {
                state: words(row, 0),
                is_ours: number(row, 1) != 0,
                rows: number(row, 2).unsigned_abs(),
                oldest: row::timestamp(number(row, 3)),
            };
            Ok(self.call(counts, |_| None).await?.iter().map(counted).collect())
        })
    }
}

/// A connection on which rows may be taken.
async fn connected(way: &Way) -> Result<Conn, OpenError> {
    let mut conn = way.connect().await?;
    for right in RIGHTS {
        let Err(error) = conn.query_drop(right).await else { continue };
        let why = match code(&error) {
            Some(NO_TABLE) => MISSING,
            Some(code) if DENIED.contains(&code) => GRANT,
            Some(_) | None => return Err(failed(way, &text(&error))),
        };
        return Err(OpenError::new(Missing, &*way.place, why));
    }
    let told = conn.query_first::<bool, _>(LOSES).await;
    if told.map_err(|error| failed(way, &text(&error)))? != Some(false) {
        let why = format!("a row that was taken could be taken again after a crash: {TX_LOSES}");
        return Err(OpenError::new(Refused, &*way.place, why));
    }
    Ok(conn)
}

fn posted(row: &Row) -> Posted {
    Posted {
        number: number(row, 0),
        key: words(row, 1),
        sender: words(row, 2),
        recipient: words(row, 3),
        message: value(row, 4).unwrap_or_default(),
        posted: row::timestamp(number(row, 5)),
        taken: row::timestamp(number(row, 6)),
        is_unknown: words(row, 7) == Told::Unknown.name(),
    }
}

fn number(row: &Row, at: usize) -> i64 {
    value(row, at).unwrap_or_default()
}

fn words(row: &Row, at: usize) -> String {
    String::from_utf8_lossy(&value::<Vec<u8>>(row, at).unwrap_or_default()).into_owned()
}

fn failed(way: &Way, why: &str) -> OpenError {
    OpenError::new(Unavailable, &*way.place, why)
}
