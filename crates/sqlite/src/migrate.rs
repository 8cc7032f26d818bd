//! Bringing the tables of an older store to what this program would make.

use std::path::Path;

use onlyonce_store::OpenErrorKind::{Refused, Unavailable};
use onlyonce_store::{Checks, Formats, OpenError};
use rusqlite::{Connection, TransactionBehavior};

use crate::door::{self, pragma};
use crate::error::{at, of_open};
use crate::schema;
use crate::sqlite::Sqlite;

impl Sqlite {
    /// The format of the store's tables, and the one that this program knows.
    ///
    /// # Errors
    /// As [`Sqlite::open`], but for the format.
    pub fn formats(path: &Path) -> Result<Formats, OpenError> {
        let (_, found) = look(path)?;
        Ok(Formats { found: found.into(), known: schema::VERSION.into() })
    }

    /// Brings the tables to the format that this program knows, in one transaction, while no other
    /// process uses the store. Returns what was found: nothing was done if that is the newest.
    ///
    /// # Errors
    /// As [`Sqlite::open`], or the tables are newer ones. Nothing is changed, or, after a failed
    /// commit, all of it may be: say it again.
    pub fn migrate(path: &Path) -> Result<Formats, OpenError> {
        migrate(path, &schema::STEPS)
    }
}

fn look(path: &Path) -> Result<(Connection, i32), OpenError> {
    let mut checks = Checks::at(path.display().to_string());
    let looked = door::stored(path, &mut checks);
    checks.verdict()?;
    looked
}

/// Takes those of the steps that were not taken yet.
fn migrate(path: &Path, steps: &[&str]) -> Result<Formats, OpenError> {
    let sqlite = |error: rusqlite::Error| of_open(path, &error);
    let (mut connection, _) = look(path)?;
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(sqlite)? {
        let text = "it cannot be written to: let our user write to the file and to its folder";
        return Err(at(path, Refused, text));
    }
    pragma(&connection, "synchronous", "full").map_err(sqlite)?;
    // Two at once take turns: what the second one reads is what the first has left.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(sqlite)?;
    let found: i32 =
        tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let known = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    let formats = Formats { found: found.into(), known: known.into() };
    let missing = formats.missing(&path.display().to_string())?;
    if missing.is_empty() {
        return Ok(formats);
    }
    for step in &steps[missing] {
        tx.execute_batch(step).map_err(sqlite)?;
    }
    tx.pragma_update(None, "user_version", known).map_err(sqlite)?;
    tx.commit().map_err(|error| {
        let text = format!("{error}: nobody knows whether it was done: say it again");
        at(path, Unavailable, text)
    })?;
    Ok(formats)
}

#[cfg(test)]
mod tests;
