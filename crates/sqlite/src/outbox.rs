//! A table of messages that callers write in transactions of their own, and a sender takes out.
//!
//! It is no store: it lies in the file of the caller's own tables, with the records elsewhere. The
//! caller writes into a view, whose trigger refuses what is no message, and another message under
//! a key that was used.

use std::fs;
use std::path::{Path, PathBuf};

use onlyonce_core::Timestamp;
use onlyonce_store::OpenErrorKind::{Missing, Unavailable};
use onlyonce_store::outbox::{Counted, MISSING, Posted, Told};
use onlyonce_store::{Checks, OpenError, StoreError, StoreErrorKind, row};
use rusqlite::{Connection, Row, TransactionBehavior};

use crate::door::{Inode, connect, look_at_file_system, pragma};
use crate::error::{At, at, kind, of_open, of_read};

/// What makes the table and what is written into. It can be carried out again, and changes no row.
pub const OUTBOX: &str = include_str!("outbox/outbox.sql");

const THERE: &str = "SELECT count(*) FROM sqlite_schema WHERE name IN \
                     ('onlyonce_mail_outbox', 'onlyonce_mail_send')";
const WAITS: &str = "SELECT EXISTS (SELECT 1 FROM onlyonce_mail_outbox WHERE state = 'waiting')";
const TAKE: &str = "UPDATE onlyonce_mail_outbox SET state = 'taken', taken_by = ?1, taken = ?2 \
                    WHERE number IN (SELECT number FROM onlyonce_mail_outbox \
                    WHERE state = 'waiting' ORDER BY number LIMIT ?3) \
                    RETURNING number, key, sender, recipient, message, posted, taken, state";
const OURS: &str = "SELECT number, key, sender, recipient, message, posted, taken, state \
                    FROM onlyonce_mail_outbox WHERE state IN ('taken', 'unknown') \
                    AND taken_by = ?1 AND ?2 < number ORDER BY number LIMIT ?3";
const TELL: &str = "UPDATE onlyonce_mail_outbox SET state = ?3, said = ?4, \
                    ended = CASE WHEN ?3 IN ('sent', 'refused') THEN datetime('now') END \
                    WHERE number = ?2 AND taken_by = ?1 AND state IN ('taken', 'unknown')";
const COUNTS: &str = "SELECT state, coalesce(taken_by = ?1, 0), count(*), min(posted) \
                      FROM onlyonce_mail_outbox GROUP BY 1, 2 ORDER BY 1, 2";

/// The table, as one sender sees it. Its calls wait for the disk, and for others who write to the
/// file: at most about five seconds.
pub struct Outbox {
    path: PathBuf,
    /// Whose the rows are that are taken here.
    who: String,
    /// With the file that it was opened on: another one may have taken its place.
    kept: Option<(Inode, Connection)>,
}

impl Outbox {
    /// Makes the table in an SQLite file that is there, or what is written into anew.
    ///
    /// # Errors
    /// There is no such file, or it cannot be written to; nothing is changed then.
    pub fn install(path: &Path) -> Result<(), OpenError> {
        let mut connection = opened(path)?;
        let made = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |making| {
                making.execute_batch(OUTBOX)?;
                making.commit()
            },
        );
        made.map_err(|error| of_open(path, &error))
    }

    /// Opens the table for a sender. `who` is the same each time, and nobody else's: rows that it
    /// has taken are given to nobody else.
    ///
    /// # Errors
    /// There is no such file or no such table, or it cannot be written to.
    pub fn open(path: &Path, who: String) -> Result<Self, OpenError> {
        let mut table = Self { path: path.to_owned(), who, kept: None };
        table.kept = Some(table.connected()?);
        Ok(table)
    }

    /// What [`onlyonce_store::outbox::Outbox::take`] promises.
    ///
    /// # Errors
    /// As there.
    pub fn take(&mut self, now: Timestamp, most: usize) -> Result<Vec<Posted>, StoreError> {
        let (now, most) = (row::millis(now), i64::try_from(most).unwrap_or(i64::MAX));
        self.call(|connection, who, path| {
            let waits = connection.query_row(WAITS, (), |row| row.get(0));
            // To look is to be in nobody's way.
            if !waits.map_err(|error| of_read(path, &error))? {
                return Ok(Vec::new());
            }
            changed(connection, path, |tx| rows(tx, TAKE, (who, now, most)))
        })
    }

    /// What [`onlyonce_store::outbox::Outbox::ours`] promises.
    ///
    /// # Errors
    /// As there.
    pub fn ours(&mut self, after: i64, most: usize) -> Result<Vec<Posted>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.call(|connection, who, path| {
            rows(connection, OURS, (who, after, most)).map_err(|error| of_read(path, &error))
        })
    }

    /// What [`onlyonce_store::outbox::Outbox::tell`] promises.
    ///
    /// # Errors
    /// As there.
    pub fn tell(&mut self, number: i64, told: Told, said: &str) -> Result<(), StoreError> {
        let state = told.name();
        self.call(|connection, who, path| {
            changed(connection, path, |tx| tx.execute(TELL, (who, number, state, said)).map(drop))
        })
    }

    /// What [`onlyonce_store::outbox::Outbox::counts`] promises.
    ///
    /// # Errors
    /// As there.
    pub fn counts(&mut self) -> Result<Vec<Counted>, StoreError> {
        self.call(|connection, who, path| {
            let count = || {
                let mut asked = connection.prepare_cached(COUNTS)?;
                asked.query_map([who], counted)?.collect::<rusqlite::Result<Vec<_>>>()
            };
            count().map_err(|error| of_read(path, &error))
        })
    }

    fn connected(&self) -> Result<(Inode, Connection), OpenError> {
        let path = &*self.path;
        let inode = Inode::at(path);
        let inode = inode.map_err(|error| at(path, Unavailable, error.to_string()))?;
        let connection = opened(path)?;
        let there: i64 = connection
            .query_row(THERE, (), |row| row.get(0))
            .map_err(|error| of_open(path, &error))?;
        if there < 2 {
            return Err(at(path, Missing, MISSING));
        }
        Ok((inode, connection))
    }

    /// One call, on the file that is there now.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Connection, &str, &Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let is_there = |it: &(Inode, _)| Inode::at(&self.path).is_ok_and(|now| now == it.0);
        let (inode, mut connection) = match self.kept.take().filter(is_there) {
            Some(kept) => kept,
            None => self
                .connected()
                .map_err(|error| StoreError::new(StoreErrorKind::NotApplied, error.to_string()))?,
        };
        let called = call(&mut connection, &self.who, &self.path);
        // One on which something went wrong is not used again.
        self.kept = called.is_ok().then_some((inode, connection));
        called
    }
}

/// Opens a file of a caller's, for changes that survive a crash.
fn opened(path: &Path) -> Result<Connection, OpenError> {
    if let Err(error) = fs::metadata(path) {
        return Err(at(path, Missing, error.to_string()));
    }
    let mut checks = Checks::at(path.display().to_string());
    look_at_file_system(path, path, &mut checks)?;
    checks.verdict()?;
    let connection = connect(path)?;
    // More than full: where the log is a file that is deleted, its folder is synced too.
    pragma(&connection, "synchronous", "extra").map_err(|error| of_open(path, &error))?;
    match connection.is_readonly(rusqlite::MAIN_DB) {
        Ok(false) => Ok(connection),
        Ok(true) => Err(at(path, Unavailable, "it cannot be written to")),
        Err(error) => Err(of_open(path, &error)),
    }
}

/// A change, committed.
fn changed<T>(
    connection: &mut Connection,
    path: &Path,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let failed = |place| {
        move |error: rusqlite::Error| {
            StoreError::new(kind(&error, place), format!("{}: {error}", path.display()))
        }
    };
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(failed(At::Work))?;
    let done = change(&tx).map_err(failed(At::Work))?;
    tx.commit().map_err(failed(At::Commit))?;
    Ok(done)
}

fn rows(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Posted>> {
    let mut asked = connection.prepare_cached(sql)?;
    asked.query_map(values, posted)?.collect()
}

fn posted(row: &Row<'_>) -> rusqlite::Result<Posted> {
    Ok(Posted {
        number: row.get(0)?,
        key: text(row, 1)?,
        sender: text(row, 2)?,
        recipient: text(row, 3)?,
        message: bytes(row, 4)?.to_vec(),
        posted: row::timestamp(whole(row, 5)?),
        taken: row::timestamp(whole(row, 6)?),
        is_unknown: text(row, 7)? == Told::Unknown.name(),
    })
}

fn counted(row: &Row<'_>) -> rusqlite::Result<Counted> {
    let (rows, oldest) = (row.get::<_, i64>(2)?.unsigned_abs(), row::timestamp(whole(row, 3)?));
    Ok(Counted { state: row.get(0)?, is_ours: row.get(1)?, rows, oldest })
}

/// Whoever wrote into the table itself may have written anything: one such row holds up no other,
/// and its message is refused for what it is.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    bytes(row, column).map(|it| String::from_utf8_lossy(it).into_owned())
}

/// A number; of what is none, 0.
fn whole(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(row.get_ref(column)?.as_i64().unwrap_or_default())
}

fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    let value = row.get_ref(column)?;
    Ok(value.as_bytes().unwrap_or_default())
}
