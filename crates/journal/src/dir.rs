//! The journal's folder: making one, its secret and its lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use onlyonce_core::{Floor, Secret};
use onlyonce_failpoint::failpoint;

use crate::disk::{self, Disk, Folder};
use crate::error::{JournalError, JournalErrorKind};
use crate::keeper;
use crate::label::{self, hex};
use crate::segment::{self, Header};

const SECRET_FILE: &str = "secret";
pub(crate) const LOCK_FILE: &str = "lock";
/// Names of the keys that answers are encrypted with. It belongs to who encrypts them; a copy
/// without it would not say what it needs.
const NAMES_FILE: &str = "keys";

/// How a new journal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever run here: no key is too old.
    First,
    /// There may have been a store before that is lost: keys with a time below the floor are
    /// refused. The floor is the present time and how far ahead a key's time may be.
    Strict {
        /// From when on keys are accepted as new.
        floor: Floor,
    },
}

impl Start {
    fn floor(self) -> Floor {
        match self {
            Self::First => Floor::NONE,
            Self::Strict { floor } => floor,
        }
    }
}

/// Makes a new journal with this secret.
pub(crate) fn init(
    dir: &Path,
    start: Start,
    segment_bytes: u64,
    secret: &Secret,
) -> Result<(), JournalError> {
    let io = |error: io::Error| JournalError::io(dir, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    let _lock = lock(dir)?;
    if exists(dir) {
        let text = "there is a journal already; it is left as it is";
        return Err(JournalError::new(JournalErrorKind::Exists, dir, text));
    }
    let disk = Folder::at(dir);
    if is_half_made(&disk)? {
        disk.remove(&segment::name(1)).map_err(io)?;
    }
    if let Some(number) = segment::numbers(&disk)?.first() {
        let text = format!("there is no journal here, but {} is", segment::name(*number));
        return Err(JournalError::new(JournalErrorKind::Exists, dir, text));
    }
    let header = Header { number: 1, floor: start.floor(), revision_max: 0, ..Header::default() };
    begin(&disk, &header, secret, segment_bytes)
        .and_then(|()| label::write(&disk, secret, None, false))
        .map_err(io)
}

/// Whether making a journal here has ended before its label was written: there is nothing but a
/// first segment, and nothing in it.
fn is_half_made(disk: &Folder) -> Result<bool, JournalError> {
    if segment::numbers(disk)? != [1] {
        return Ok(false);
    }
    let scan = segment::scan(disk, 1)?;
    Ok(scan.end == segment::HEADER as u64 && scan.broken.is_none())
}

/// Makes the secret and the first segment. It is no journal before it has its label.
pub(crate) fn begin(
    disk: &dyn Disk,
    header: &Header,
    secret: &Secret,
    segment_bytes: u64,
) -> io::Result<()> {
    write_secret(disk, secret)?;
    let name = segment::name(header.number);
    let new = format!("{name}.new");
    failpoint!("begin.zeros.before", name);
    let medium = keeper::zeros(disk, &new, segment_bytes)?;
    failpoint!("begin.write.before", name);
    medium.write_at(&header.bytes(), 0)?;
    medium.sync()?;
    failpoint!("begin.rename.before", name);
    disk.rename(&new, &name)?;
    failpoint!("begin.rename.after", name);
    disk.sync_names()
}

/// Whether there is a journal.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(label::FORMAT_FILE).exists()
}

/// Takes what is there for reading: a journal for this process alone. Nobody writes to a backup,
/// and it may lie where nobody can.
pub(crate) fn hold(dir: &Path) -> Result<Option<File>, JournalError> {
    let is_backup = label::read(dir).is_ok_and(|label| label.extent.is_some());
    (!is_backup).then(|| lock(dir)).transpose()
}

/// Takes the journal for this process alone, until the file is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|error| JournalError::io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let text = format!(
                "process {} has this journal, and only one can; `onlyonce keys` talks to it",
                holder.trim()
            );
            return Err(JournalError::new(JournalErrorKind::Locked, dir, text));
        }
        Err(TryLockError::Error(error)) => return Err(JournalError::io(&path, &error)),
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    noted.map_err(|error| JournalError::io(&path, &error))?;
    Ok(file)
}

/// The journal's secret, if it is this journal's.
pub(crate) fn secret(dir: &Path) -> Result<Secret, JournalError> {
    let label = label::read(dir)?;
    let check = label.check.as_deref();
    let path = dir.join(SECRET_FILE);
    let secret = fs::read_to_string(&path).map_err(|error| {
        let text = format!("{error}; without its secret no record of the journal can be found");
        JournalError::new(JournalErrorKind::Secret, &path, text)
    })?;
    let secret = unhex(secret.trim()).map(Secret::from_bytes).ok_or_else(|| {
        let text = "the secret must be 64 hexadecimal digits; bring it back from the backup";
        JournalError::new(JournalErrorKind::Secret, &path, text)
    })?;
    if check != Some(hex(&secret.check_value()).as_str()) {
        let text = "this is the secret of another journal; bring the right one back";
        return Err(JournalError::new(JournalErrorKind::Secret, &path, text));
    }
    Ok(secret)
}

pub(crate) fn write_secret(disk: &dyn Disk, secret: &Secret) -> io::Result<()> {
    disk::write_whole(disk, SECRET_FILE, format!("{}\n", hex(secret.as_bytes())).as_bytes())
}

/// The file with the names of keys, if there is one, as it is written to a copy.
pub(crate) struct Names(Option<Vec<u8>>);

impl Names {
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, JournalError> {
        disk::read_whole(disk, NAMES_FILE)
            .map(Self)
            .map_err(|error| JournalError::io(disk.place(NAMES_FILE), &error))
    }

    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |names| disk::write_whole(disk, NAMES_FILE, names))
    }
}

/// 32 random bytes.
pub(crate) fn new_secret(dir: &Path) -> Result<Secret, JournalError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        JournalError::new(JournalErrorKind::Io, dir, format!("no random numbers: {error}"))
    })?;
    Ok(Secret::from_bytes(bytes))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
