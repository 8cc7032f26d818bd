//! Making a store, and what is looked at before one is used: whose file it is, where it lies, and
//! the settings without which SQLite does not keep what it has confirmed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use onlyonce_core::Floor;
use onlyonce_store::OpenErrorKind::Missing;
use onlyonce_store::{Check, Checks, FORMAT, Formats, Need, OpenError, OpenErrorKind, row};
use rusqlite::{Connection, OpenFlags};

use crate::error::{at, code, of_open};
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

const FILE: Need = Need::new("file", "there, and readable for us");
const FILE_SYSTEM: Need = Need::new("file system", "one of this machine alone");
const STORE: Need = Need::new("store", "made by `onlyonce store init`");
const WRITABLE: Need = Need::new("writable", "yes");
const JOURNAL_MODE: Need = Need::new("journal_mode", "wal");
const SYNCHRONOUS: Need = Need::new("synchronous", "2 (full) or more, once we have asked for it");

/// All that is looked at.
const NEEDS: [Need; 7] = [FILE, FILE_SYSTEM, STORE, FORMAT, WRITABLE, JOURNAL_MODE, SYNCHRONOUS];
/// What makes a store where there is none.
const INIT: &str = "`onlyonce store init` makes one";

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
    let mut checks = Checks::at(path.display().to_string());
    look_at_file_system(path, folder, &mut checks)?;
    checks.verdict()?;
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
        schema::STEPS.iter().try_for_each(|step| transaction.execute_batch(step))?;
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
    let mut checks = Checks::at(path.display().to_string());
    let looked = look(path, &mut checks);
    checks.verdict()?;
    let connection = looked?;
    // The keeper does it, so that no caller waits for one.
    pragma(&connection, "wal_autocheckpoint", "0").map_err(|error| of_open(path, &error))?;
    // The log of processes that were killed before their keeper came to it, or it would grow by
    // what each of them has written. One that is in the way of others does nothing, and costs
    // nothing but room.
    let _ = keeper::checkpoint(&connection, "PASSIVE");
    Ok(connection)
}

/// Everything that is looked at when the store in `file` is opened, each with what was found. No
/// record is changed.
pub fn doctor(file: &Path) -> Vec<Check> {
    let mut checks = Checks::at(file.display().to_string());
    if let Err(error) = look(file, &mut checks) {
        checks.failed(FILE, &error);
    }
    checks.finish(&NEEDS)
}

/// Looks at a file, and says why nothing more can be asked of it.
fn look(path: &Path, checks: &mut Checks) -> Result<Connection, OpenError> {
    let (connection, found) = stored(path, checks)?;
    let known = schema::VERSION.into();
    Formats { found: found.into(), known }.look(checks)?;
    let sqlite = |error: rusqlite::Error| of_open(path, &error);
    let readonly = connection.is_readonly(rusqlite::MAIN_DB).map_err(sqlite)?;
    let why = "it cannot be written to: the file or its file system is read-only";
    let fix = "let our user write to the file and to its folder";
    checks.must(WRITABLE, if readonly { "no" } else { "yes" }, !readonly, why, fix);
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sqlite)?;
    let why = format!("journal_mode is {mode}, and what is confirmed is kept with wal only");
    let fix = "`PRAGMA journal_mode = wal` while nobody uses the file";
    checks.must(JOURNAL_MODE, &*mode, mode == "wal", &why, fix);
    pragma(&connection, "synchronous", "full").map_err(sqlite)?;
    let level: i64 =
        connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(sqlite)?;
    let why = format!("synchronous stays at {level}, and a crash would lose what was confirmed");
    let fix = "it must be 2 (full) or more";
    checks.must(SYNCHRONOUS, level.to_string(), 2 <= level, &why, fix);
    Ok(connection)
}

/// Looks at what is the same in each format, and finds that.
pub(crate) fn stored(path: &Path, checks: &mut Checks) -> Result<(Connection, i32), OpenError> {
    if let Err(error) = fs::metadata(path) {
        let text = error.to_string();
        if error.kind() == io::ErrorKind::NotFound {
            return Err(checks.refuse(Missing, FILE, &*text, "there is no store here", INIT));
        }
        return Err(checks.refuse(OpenErrorKind::Unavailable, FILE, "no", &text, ""));
    }
    checks.good(FILE, "there");
    look_at_file_system(path, path, checks)?;
    let sqlite = |error: rusqlite::Error| of_open(path, &error);
    let connection = connect(path)?;
    let owner = owner(&connection).inspect_err(|error| {
        // A file that is no database at all is somebody's.
        if sqlite_is_foreign(error) {
            checks.failed(STORE, &of_open(path, error));
        }
    });
    let version = match owner.map_err(sqlite)? {
        Owner::Us { version } => version,
        Owner::Nobody => {
            let why = "there is no store in this file";
            return Err(checks.refuse(Missing, STORE, "an empty file", why, INIT));
        }
        Owner::Other => {
            let why = "it is the database of another program";
            let fix = "name another file";
            return Err(checks.refuse(OpenErrorKind::Foreign, STORE, "another's", why, fix));
        }
    };
    checks.good(STORE, "there");
    Ok((connection, version))
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

pub(crate) fn connect(path: &Path) -> Result<Connection, OpenError> {
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
pub(crate) fn pragma(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
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

fn foreign(path: &Path) -> OpenError {
    at(path, OpenErrorKind::Foreign, "it is the database of another program")
}

fn sqlite_is_foreign(error: &rusqlite::Error) -> bool {
    code(error) == Some(rusqlite::ErrorCode::NotADatabase)
}

/// On which file system it is, or will be.
pub(crate) fn look_at_file_system(
    path: &Path,
    lies_at: &Path,
    checks: &mut Checks,
) -> Result<(), OpenError> {
    let system = rustix::fs::statfs(lies_at).map_err(|error| {
        at(path, OpenErrorKind::Unavailable, io::Error::from(error).to_string())
    })?;
    // The type of the number differs between machines; the numbers fit 32 bits.
    let kind = shared(system.f_type as u64 & 0xFFFF_FFFF);
    let why = format!(
        "it lies on a file system of the kind {}, where SQLite's locks and shared memory do not \
         hold between machines",
        kind.unwrap_or_default()
    );
    let says = kind.unwrap_or("of this machine");
    checks.must(FILE_SYSTEM, says, kind.is_none(), &why, "put it on a disk of this one");
    Ok(())
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
