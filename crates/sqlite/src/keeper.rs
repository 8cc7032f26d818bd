//! The thread behind the writer: copies what is in the write-ahead log to the database, so that no
//! caller waits for it and the log does not grow without end.

use std::sync::mpsc::Receiver;

use rusqlite::Connection;

/// Pages in the log above which writers wait until it begins anew: while others go on writing, one
/// that hinders nobody may never get to its end. 64 MiB.
const LOG_PAGES_MAX: i64 = 16_384;

/// Until the writer is gone.
pub(crate) fn run(connection: &Connection, wake: &Receiver<()>) {
    while wake.recv().is_ok() {
        // One that fails is done by the next: what is confirmed stands in the log.
        if checkpoint(connection, "PASSIVE").is_ok_and(|pages| LOG_PAGES_MAX < pages) {
            let _ = checkpoint(connection, "RESTART");
        }
    }
}

/// How many pages were in the log.
pub(crate) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| row.get(1))
}
