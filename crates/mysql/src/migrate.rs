//! Bringing an older store to what this program would make: its tables, and its procedures.
//!
//! The server commits each change of a table by itself. So the format is raised step by step, what
//! was cut off is gone on with, and each statement is one that can be repeated.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};
use onlyonce_store::OpenErrorKind::{Refused, Unavailable};
use onlyonce_store::{Checks, Formats, OpenError};

use crate::address::Address;
use crate::door::{self, ask};
use crate::error::{DENIED, LOCKED, code, text};
use crate::mysql::Mysql;
use crate::procedures;
use crate::schema;
use crate::session::{Way, value};

/// A lock of the server's on the database, which ends with the connection.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('onlyonce.', MD5(DATABASE())), 20)";
/// What a step may need.
const GRANT: &str = "GRANT CREATE, ALTER, INDEX, DROP, INSERT, UPDATE ON the database TO the user \
                     of this address, or name another user";
/// What to do where a lock was not to be had.
const WAITED: &str = "a transaction or another migration is open on it: end it, and say it again";

impl Mysql {
    /// The format of the store's tables, and the one that this program knows.
    ///
    /// # Errors
    /// As [`Mysql::open`], but for the format.
    pub async fn formats(address: Address) -> Result<Formats, OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let found = look(&mut conn, &way).await;
        // Without this word the server would log that a connection was lost.
        let _ = conn.disconnect().await;
        found
    }

    /// Brings the tables to the format that this program knows, step by step; the user may change
    /// them, and no other process uses the store. Returns what was found: nothing was done if that
    /// is the newest.
    ///
    /// # Errors
    /// As [`Mysql::open`], the tables are newer ones, or the user may not. Some steps may have been
    /// taken then: say it again.
    pub async fn migrate(address: Address) -> Result<Formats, OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let done = migrate(&mut conn, &way, &schema::STEPS).await;
        let _ = conn.disconnect().await;
        done
    }

    /// Makes those of the rows in which revisions are noted that are not there; how many.
    ///
    /// # Errors
    /// As [`Mysql::migrate`].
    pub async fn renew_rows(address: Address) -> Result<u64, OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let made = conn.query_drop(schema::make_slots()).await;
        let made = made.map_err(|error| refusal(&way.place, &error));
        let made = made.map(|()| conn.affected_rows());
        let _ = conn.disconnect().await;
        made
    }

    /// Makes the procedures anew, unless they are those of this program or the server can have
    /// none; whether it has.
    ///
    /// # Errors
    /// As [`Mysql::install_procedures`].
    pub async fn renew_procedures(address: Address) -> Result<bool, OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let done = procedures::renew(&mut conn, &way).await;
        let _ = conn.disconnect().await;
        done
    }
}

/// Looks at all but the format, and finds that.
async fn look(conn: &mut Conn, way: &Way) -> Result<Formats, OpenError> {
    let mut checks = Checks::at(&*way.place);
    let looked = door::stored(conn, &way.place, way.address.accepts(), &mut checks).await;
    checks.verdict()?;
    looked.map(|(_, store)| door::formats(&store))
}

/// Takes those of the steps that were not taken yet.
async fn migrate(conn: &mut Conn, way: &Way, steps: &[&[&str]]) -> Result<Formats, OpenError> {
    let place = &*way.place;
    look(conn, way).await?;
    let locked = ask(conn, place, LOCK).await?;
    if locked.first().and_then(|row| value::<u8>(row, 0)) != Some(1) {
        return Err(OpenError::new(Unavailable, place, WAITED));
    }
    let rows = ask(conn, place, schema::STORE).await?;
    let found = rows.first().and_then(|row| value(row, 0)).unwrap_or_default();
    let formats = Formats { found, known: i64::try_from(steps.len()).unwrap_or(i64::MAX) };
    for step in formats.missing(place)? {
        for statement in steps[step] {
            conn.query_drop(*statement).await.map_err(|error| refusal(place, &error))?;
        }
        let raise = format!("UPDATE onlyonce_store SET version = {}", step + 1);
        conn.query_drop(raise).await.map_err(|error| refusal(place, &error))?;
    }
    Ok(formats)
}

/// Why it went no further.
fn refusal(place: &str, error: &Error) -> OpenError {
    let (kind, hint) = match code(error) {
        Some(code) if DENIED.contains(&code) => (Refused, GRANT),
        Some(LOCKED) => (Unavailable, WAITED),
        Some(_) | None => (Unavailable, "what was done of it stays, and saying it again goes on"),
    };
    OpenError::new(kind, place, format!("{}: {hint}", text(error)))
}

#[cfg(test)]
mod tests;
