//! What can be said of a journal from outside, also while a process has it: what opening it looks
//! at, and what lies about it that an operator should know.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onlyonce_store::{Check, Checks, Need, OpenError, OpenErrorKind};

use crate::dir;
use crate::error::{JournalError, JournalErrorKind};
use crate::label;

const FOLDER: Need = Need::new("folder", "there, and a journal");
const FORMAT: Need = Need::new("format", "one that this program knows");
const SECRET: Need = Need::new("secret", "this journal's");
const LOCK: Need = Need::new("lock", "free, or of one process");
const RIGHTS: Need = Need::new("rights", "our user's alone");
const FILE_SYSTEM: Need = Need::new("file system", "one of this machine alone");
const ROOM: Need = Need::new("free space", "256 MiB or more");
const NEEDS: [Need; 7] = [FOLDER, FORMAT, SECRET, LOCK, RIGHTS, FILE_SYSTEM, ROOM];

/// Below that, claims are soon refused: four segments of the usual size, in bytes.
const ROOM_MIN: u64 = 256 << 20;

/// File systems that other machines can write to (statfs(2)): a lock on them may hold on this
/// machine only.
const SHARED: [(u64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
];

/// File systems that are gone when the machine is started again.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58F6, "ramfs")];

/// What is looked at when the journal in `dir` is opened, and around it, each with what was found.
/// Nothing is changed, and its records are not read: [`check`](crate::check()) does that.
pub fn doctor(dir: &Path) -> Vec<Check> {
    let mut checks = Checks::at(dir.display().to_string());
    if let Err(error) = look(dir, &mut checks) {
        let place = dir.display().to_string();
        let error = OpenError::new(OpenErrorKind::Unavailable, place, error.to_string());
        checks.failed(FOLDER, &error);
    }
    checks.finish(&NEEDS)
}

fn look(dir: &Path, checks: &mut Checks) -> io::Result<()> {
    match label::read(dir).and_then(|label| label.refuse_backup(dir)) {
        Ok(()) => {
            checks.good(FOLDER, "there");
            checks.good(FORMAT, "known");
        }
        Err(error) => {
            let need = if error.kind() == JournalErrorKind::Format { FORMAT } else { FOLDER };
            refuse(checks, need, &error);
            return Ok(());
        }
    }
    match dir::secret(dir) {
        Ok(_) => checks.good(SECRET, "there"),
        Err(error) => refuse(checks, SECRET, &error),
    }
    match holder(dir)? {
        None => checks.good(LOCK, "free"),
        Some(process) => checks.good(LOCK, format!("process {process} has it")),
    }
    let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
    let says = format!("{mode:o}");
    if mode & 0o077 == 0 {
        checks.good(RIGHTS, says);
    } else {
        let why = "others may look into the folder, where the secret and kept answers are";
        checks.accept(RIGHTS, says, why, &format!("`chmod 700 {}`", dir.display()));
    }
    file_system(dir, checks)?;
    let room = rustix::fs::statvfs(dir)?;
    let room = room.f_bavail.saturating_mul(room.f_frsize);
    let says = format!("{} MiB", room >> 20);
    if ROOM_MIN <= room {
        checks.good(ROOM, says);
    } else {
        let why = "new operations are refused once the disk is full";
        checks.accept(ROOM, says, why, "make room, or move the journal to a larger disk");
    }
    Ok(())
}

fn file_system(dir: &Path, checks: &mut Checks) -> io::Result<()> {
    let fix = "put it on a disk of this machine";
    if rustix::fs::statvfs(dir)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let why = "nothing can be written to it";
        let _ = checks.refuse(OpenErrorKind::Unavailable, FILE_SYSTEM, "read-only", why, fix);
        return Ok(());
    }
    // The type of the number differs between machines; the numbers fit 32 bits.
    let kind = rustix::fs::statfs(dir)?.f_type as u64 & 0xFFFF_FFFF;
    if let Some(kind) = named(&SHARED, kind) {
        let why = "its lock may not keep a process on another machine out";
        checks.accept(FILE_SYSTEM, kind, why, fix);
    } else if let Some(kind) = named(&IN_MEMORY, kind) {
        let why = "all records are gone when the machine is started again: keys without a time run \
                   again then";
        checks.accept(FILE_SYSTEM, kind, why, fix);
    } else {
        checks.good(FILE_SYSTEM, "of this machine");
    }
    Ok(())
}

fn refuse(checks: &mut Checks, need: Need, error: &JournalError) {
    let (kind, fix) = match error.kind() {
        JournalErrorKind::Missing => (OpenErrorKind::Missing, "`onlyonce store init` makes one"),
        JournalErrorKind::Format => (OpenErrorKind::Newer, "use the onlyonce that wrote it"),
        JournalErrorKind::Secret => (OpenErrorKind::Foreign, "bring its own file `secret` back"),
        JournalErrorKind::Backup => (OpenErrorKind::Refused, "`onlyonce journal restore` first"),
        JournalErrorKind::Exists
        | JournalErrorKind::Locked
        | JournalErrorKind::Damaged
        | JournalErrorKind::Io => (OpenErrorKind::Unavailable, ""),
    };
    let _ = checks.refuse(kind, need, "no", error.text(), fix);
}

/// The process that has the journal, if one has.
fn holder(dir: &Path) -> io::Result<Option<String>> {
    let path = dir.join(dir::LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Shared, so that several doctors do not take each other for a holder.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(fs::read_to_string(&path)?.trim().to_owned())),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn named(kinds: &[(u64, &'static str)], kind: u64) -> Option<&'static str> {
    kinds.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Journal, Settings, Start};

    fn told(dir: &Path, name: &str) -> (String, &'static str, String) {
        let found = doctor(dir).into_iter().find(|check| check.need.name == name).unwrap();
        (found.says, found.found.name(), found.fix)
    }

    #[test]
    fn a_doctor_tells_who_has_a_journal_and_what_is_wrong_with_it_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        assert_eq!(told(&dir, "folder").1, "refused");
        assert_eq!(told(&dir, "secret").1, "cannot be asked");
        assert!(!dir.exists());

        Journal::init(&dir, Settings::default(), Start::First).unwrap();
        assert!(doctor(&dir).iter().all(|check| check.error().is_none()));
        assert_eq!(told(&dir, "lock").0, "free");
        let journal = Journal::open(&dir, Settings::default()).unwrap();
        assert_eq!(told(&dir, "lock").0, format!("process {} has it", std::process::id()));
        journal.close();
        drop(journal);

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let (says, found, fix) = told(&dir, "rights");
        assert_eq!((says.as_str(), found), ("755", "risk accepted"));
        assert!(fix.contains("chmod 700"), "{fix}");
        fs::write(dir.join("secret"), "00".repeat(32)).unwrap();
        assert_eq!(told(&dir, "secret").1, "refused");
        fs::write(dir.join("format"), "onlyonce journal, format 9\n").unwrap();
        assert_eq!(told(&dir, "format").1, "refused");
    }
    #[test]
    fn a_journal_in_memory_is_told_and_one_that_machines_share_is_known() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = folder.path().join("data");
        Journal::init(&dir, Settings::default(), Start::First).unwrap();
        let (says, found, _) = told(&dir, "file system");
        assert_eq!((says.as_str(), found), ("tmpfs", "risk accepted"));
        assert_eq!(named(&SHARED, 0x6969), Some("NFS"));
    }
}
