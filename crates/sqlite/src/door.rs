//! Making a store, and what is looked at before one is used: whose file it is, where it lies, and
//! the settings without which SQLite does not keep what it has confirmed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use onlyonce_core::Floor;
use onlyonce_store::{OpenError, OpenErrorKind, row};
use rusqlite::{Connection, OpenFlags};

use crate::error::{at, of_open};
use crate::keeper;
use crate::schema;

/// How often the write lock is tried while another process has it, and for how long.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
const BUSY_TRIES: i32 = 5_000;

/// File systems that other machines can write to, or of which nobody can tell (statfs(2)).
const SHARED: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x7461_636F, "OCFS2"),
    (0x6573_5546, "FUSE"),
];

/// Which file it is, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode(u64, u64);

impl Inode {
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

/// Makes a new store. The file is readable by its owner alone, since the secret is in it.
pub(crate) fn init(path: &Path, secret: &[u8; 32], floor: Floor) -> Result<(), OpenError> {
    let io = |error: io::Error| at(path, OpenErrorKind::Unavailable, error.to_string());
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    refuse_shared(path, folder)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let sqlite = |error: rusqlite::Error| of_open(path, &error);
    let mut connection = connect(path)?;
    match owner(&connection).map_err(sqlite)? {
        Owner::Nobody => {}
        Owner::Us { .. } => {
            let text = "there is a store already; it is left as it is";
            return Err(at(path, OpenErrorKind::Exists, text));
        }
        Owner::Other => return Err(foreign(path)),
    }
    pragma(&connection, "journal_mode", "wal").map_err(sqlite)?;
    pragma(&connection, "synchronous", "full").map_err(sqlite)?;
    let exclusive = rusqlite::TransactionBehavior::Exclusive;
    let transaction = connection.transaction_with_behavior(exclusive).map_err(sqlite)?;
    // Two that make it at once: the second finds it made.
    if !matches!(owner(&transaction).map_err(sqlite)?, Owner::Nobody) {
        let text = "there is a store already; it is left as it is";
        return Err(at(path, OpenErrorKind::Exists, text));
    }
    let make = || {
        transaction.execute_batch(schema::TABLES)?;
        let floor = row::millis(floor.time());
        transaction.execute(schema::MAKE_STORE, (&secret[..], floor))?;
        transaction.pragma_update(None, "user_version", schema::VERSION)?;
        transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)
    };
    make().map_err(sqlite)?;
    transaction.commit().map_err(sqlite)?;
    drop(connection);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Opens a store's file for writing, once everything about it is as it must be.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    if let Err(error) = fs::metadata(path) {
        if error.kind() == io::ErrorKind::NotFound {
            return Err(missing(path, "there is no store here"));
        }
        return Err(at(path, OpenErrorKind::Unavailable, error.to_string()));
    }
    refuse_shared(path, path)?;
    let sqlite = |error: rusqlite::Error| of_open(path, &error);
    let connection = connect(path)?;
    match owner(&connection).map_err(sqlite)? {
        Owner::Us { version: schema::VERSION } => {}
        Owner::Us { version } => {
            let known = schema::VERSION;
            let text = format!("its format is {version}, and this program knows {known}");
            return Err(at(path, OpenErrorKind::Newer, text));
        }
        Owner::Nobody => return Err(missing(path, "there is no store in this file")),
        Owner::Other => return Err(foreign(path)),
    }
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(sqlite)? {
        let text = "it cannot be written to: the file or its file system is read-only";
        return Err(at(path, OpenErrorKind::Refused, text));
    }
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        let text = format!(
            "journal_mode is {mode}, and what is confirmed is kept with wal only: `PRAGMA \
             journal_mode = wal` while nobody uses the file"
        );
        return Err(at(path, OpenErrorKind::Refused, text));
    }
    pragma(&connection, "synchronous", "full").map_err(sqlite)?;
    let level: i64 =
        connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(sqlite)?;
    if level < 2 {
        let text = format!("synchronous stays at {level}; it must be 2 (full) or more");
        return Err(at(path, OpenErrorKind::Refused, text));
    }
    // The keeper does it, so that no caller waits for one.
    pragma(&connection, "wal_autocheckpoint", "0").map_err(sqlite)?;
    // The log of processes that were killed before their keeper came to it, or it would grow by
    // what each of them has written. One that is in the way of others does nothing, and costs
    // nothing but room.
    let _ = keeper::checkpoint(&connection, "PASSIVE");
    Ok(connection)
}

/// Opens a file that is known to be a store, for reading.
pub(crate) fn open_for_reads(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path)?;
    pragma(&connection, "query_only", "1").map_err(|error| of_open(path, &error))?;
    Ok(connection)
}

/// Opens a file that is known to be a store, for copying its log. Full syncs, as for writes: what
/// leaves the log must be in the database.
pub(crate) fn open_for_checkpoints(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path)?;
    pragma(&connection, "synchronous", "full").map_err(|error| of_open(path, &error))?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags);
    let mut connection = connection.map_err(|error| of_open(path, &error))?;
    connection.busy_handler(Some(busy)).map_err(|error| of_open(path, &error))?;
    Ok(connection)
}

/// SQLite's own pauses grow to a tenth of a second, which is long beside a sync.
fn busy(tries: i32) -> bool {
    std::thread::sleep(BUSY_PAUSE);
    tries < BUSY_TRIES
}

/// Sets one, whether it answers with a row or not.
fn pragma(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA {name} = {value}"))
}

enum Owner {
    /// There is nothing in it.
    Nobody,
    Us {
        version: i32,
    },
    Other,
}

fn owner(connection: &Connection) -> rusqlite::Result<Owner> {
    let header = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (header("application_id")?, header("user_version")?);
    if application == schema::APPLICATION_ID {
        return Ok(Owner::Us { version });
    }
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    let is_empty = (application, version, tables) == (0, 0, 0);
    Ok(if is_empty { Owner::Nobody } else { Owner::Other })
}

fn missing(path: &Path, text: &str) -> OpenError {
    at(path, OpenErrorKind::Missing, format!("{text}; `onlyonce store init` makes one"))
}

fn foreign(path: &Path) -> OpenError {
    at(path, OpenErrorKind::Foreign, "it is the database of another program")
}

fn refuse_shared(path: &Path, lies_at: &Path) -> Result<(), OpenError> {
    let system = rustix::fs::statfs(lies_at).map_err(|error| {
        at(path, OpenErrorKind::Unavailable, io::Error::from(error).to_string())
    })?;
    // The type of the number differs between machines; the numbers fit 32 bits.
    match shared(system.f_type as u64 & 0xFFFF_FFFF) {
        None => Ok(()),
        Some(name) => {
            let text = format!(
                "it lies on a file system of the kind {name}, where SQLite's locks and shared \
                 memory do not hold between machines: put it on a disk of this one"
            );
            Err(at(path, OpenErrorKind::Refused, text))
        }
    }
}

fn shared(kind: u64) -> Option<&'static str> {
    SHARED.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_machines_share_are_known_and_those_of_one_machine_are_let_in() {
        assert_eq!(shared(0x6969), Some("NFS"));
        assert_eq!(shared(0xFE53_4D42), Some("SMB2"));
        // ext4, xfs, btrfs, tmpfs, overlayfs
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
            assert_eq!(shared(local), None);
        }
    }
}
