//! A connection that has been looked through.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::{FromValue, Queryable as _};
use mysql_async::{Conn, Row};
use onlyonce_core::Secret;
use onlyonce_store::OpenErrorKind::{Foreign, Refused, Unavailable};
use onlyonce_store::{Checks, OpenError, StoreError, Warning};
use tokio::time::{Instant, timeout};

use crate::address::{Address, CONNECT_MAX};
use crate::door::{self, Checked};
use crate::error::{NOT_LET_IN, code, not_applied, of_read, text};
use crate::rows;
use crate::schema;

/// Whatever the server's settings are. A connection that is idle is kept for hours, and no wait
/// for a lock is longer than what a call may take. In this isolation a statement sees what was
/// committed before it, and locks no gaps between rows.
const SETUP: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',
  autocommit = 1, time_zone = '+00:00', innodb_lock_wait_timeout = 5, lock_wait_timeout = 5,
  wait_timeout = 28800, completion_type = 0, unique_checks = 1, foreign_key_checks = 1,
  sql_select_limit = 18446744073709551615, sql_safe_updates = 0;
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE";
/// The least that can be said in seconds, and not nothing.
const IMPATIENT: &str = "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1";
/// A statement waits until what other nodes have confirmed is here: reads, changes and inserts.
const GALERA: &str = "SET SESSION wsrep_sync_wait = 7";
/// What to do about a server that may let nobody in without.
const WANTS_TLS: &str = ": if it wants TLS, say `ssl-mode=verify_identity` in the address";
/// A connection that was idle for longer is asked first whether the server is still there, which
/// may have closed it meanwhile: what is sent then would be lost, and nobody would know.
const IDLE: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const PING_MAX: Duration = Duration::from_secs(2);

/// What all connections of a store have in common.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) address: Arc<Address>,
    /// As it is told to people.
    pub(crate) place: Arc<str>,
}

/// What a store is known by, and what its first connection was told.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) secret: Secret,
    /// What the server takes at once, in bytes.
    pub(crate) packet: u64,
}

/// A connection that may be used. It is dropped after an error that leaves its state unknown.
pub(crate) struct Session {
    pub(crate) conn: Conn,
    pub(crate) place: Arc<str>,
    pub(crate) known: Known,
    /// Whether what is seen may not be synced yet, so that a reader has to see to it.
    pub(crate) syncs: bool,
    /// The risks with which it was opened.
    pub(crate) warnings: Vec<Warning>,
    /// When the server was asked for its time, in milliseconds, and that.
    clock: (Instant, u64),
    used: Instant,
}

impl Way {
    pub(crate) fn to(address: Address) -> Self {
        Self { place: address.to_string().into(), address: Arc::new(address) }
    }

    fn failed(&self, text: impl Into<String>) -> OpenError {
        OpenError::new(Unavailable, &*self.place, text)
    }

    /// A new connection, not looked through.
    pub(crate) async fn connect(&self) -> Result<Conn, OpenError> {
        let opts = self.address.opts().map_err(|text| self.failed(text))?;
        let connecting = async {
            let mut conn = Conn::new(opts).await?;
            conn.query_drop(SETUP).await?;
            if self.address.accepts().galera {
                conn.query_drop(GALERA).await?;
            }
            Ok(conn)
        };
        let connected = timeout(CONNECT_MAX, connecting).await;
        let connected = connected.map_err(|_| self.failed("it does not answer"))?;
        connected.map_err(|error| {
            let refused = code(&error).is_some_and(|code| NOT_LET_IN.contains(&code));
            let hint = if refused && !self.address.is_encrypted() { WANTS_TLS } else { "" };
            self.failed(format!("{}{hint}", text(&error)))
        })
    }

    /// A new connection to the store.
    #[allow(clippy::disallowed_methods, reason = "how long a call may take, for no record")]
    pub(crate) async fn open(&self) -> Result<Session, OpenError> {
        let looking = async {
            let mut conn = self.connect().await?;
            let checked = door::check(&mut conn, &self.place, self.address.accepts()).await?;
            let asked = Instant::now();
            let told = conn.query_first::<Row, _>(schema::CLOCK).await;
            let told = told.map_err(|error| self.failed(text(&error)))?;
            let Some(now) = told.as_ref().and_then(|row| value::<u64>(row, 0)) else {
                return Err(self.failed("it does not tell its time"));
            };
            let Checked { secret, packet, syncs, warnings } = checked;
            let (place, known) = (Arc::clone(&self.place), Known { secret, packet });
            let (clock, used) = ((asked, now), asked);
            Ok(Session { conn, place, known, syncs, warnings, clock, used })
        };
        let late = |_| self.failed("it does not answer in time");
        timeout(2 * CONNECT_MAX, looking).await.map_err(late)?
    }

    /// A new connection to the store that is known.
    pub(crate) async fn reopen(&self, known: &Known) -> Result<Session, StoreError> {
        let refused = |kind, text: String| Err(OpenError::new(kind, &*self.place, text));
        let opened = self.open().await.and_then(|session| {
            if session.known.secret != known.secret {
                return refused(Foreign, "another store is there by now".to_owned());
            }
            let packet = session.known.packet;
            if packet < known.packet {
                let text = format!(
                    "max_allowed_packet is {packet} by now, and what it was, {}, is counted on",
                    known.packet
                );
                return refused(Refused, text);
            }
            Ok(session)
        });
        opened.map_err(|error| not_applied("the store", &error.to_string()))
    }
}

#[allow(clippy::disallowed_methods, reason = "how long a call may take, for no record")]
impl Session {
    /// Whether it can still be used.
    pub(crate) async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < IDLE {
            return true;
        }
        let pinged = timeout(PING_MAX, self.conn.ping()).await;
        self.used = Instant::now();
        pinged.is_ok_and(|pinged| pinged.is_ok())
    }

    /// For batches, which let nobody wait long for a transaction that has one of their keys; it
    /// notes its revisions in the row of this slot.
    pub(crate) async fn for_writing(mut self, slot: u8) -> Result<Self, OpenError> {
        let (conn, place) = (&mut self.conn, &*self.place);
        let said = conn.query_drop(IMPATIENT).await;
        said.map_err(|error| OpenError::new(Unavailable, place, text(&error)))?;
        rows::counted(conn, place, slot, &mut Checks::at(place)).await?;
        Ok(self)
    }

    /// The server's time after so long from now, in milliseconds, as far as its clock runs evenly.
    pub(crate) fn server_time_after(&self, time: Duration) -> u64 {
        let (asked, told) = self.clock;
        let passed = u64::try_from((asked.elapsed() + time).as_millis()).unwrap_or(u64::MAX);
        told.saturating_add(passed)
    }

    /// The rows of a statement.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, mysql_async::Error> {
        let asked = self.conn.query(sql).await;
        self.used = Instant::now();
        asked
    }

    /// The same, told as what it means for a read.
    pub(crate) async fn read(&mut self, sql: &str) -> Result<Vec<Row>, StoreError> {
        let asked = self.ask(sql).await;
        asked.map_err(|error| of_read(&self.place, &error))
    }

    pub(crate) fn touch(&mut self) {
        self.used = Instant::now();
    }
}

/// A column of a row; `None` also if it is null, or something else.
pub(crate) fn value<T: FromValue>(row: &Row, at: usize) -> Option<T> {
    row.get_opt::<Option<T>, usize>(at)?.ok().flatten()
}
