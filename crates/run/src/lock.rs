//! A lock for each key, held by whoever runs its command, and by the command itself.
//!
//! A command inherits the descriptor, and so do its children. So the lock is free only once the
//! last of them has ended, also if the one that started them was killed: while any of them lives
//! nobody else on this machine runs anything under that key, nor calls it dead. A process that
//! closes all descriptors that it does not know, as `sudo` and most daemons do, gives it up.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use onlyonce_core::KeyId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};

/// How often a file that was removed meanwhile is opened anew.
const TRIES_MAX: u32 = 100;

/// The folder with the locks of one store: all processes on this machine that use the store with
/// commands must use the same.
#[derive(Clone, Debug)]
pub struct Locks {
    folder: PathBuf,
}

/// The lock of one key, until it is dropped and every process that inherited it has ended.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// That nobody else has the same, until it is dropped.
#[derive(Debug)]
pub struct Alone {
    _file: File,
}

impl Locks {
    /// The locks in this folder, which is made if there is none.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until nobody else has what is returned: for whoever makes the store that these locks
    /// belong to. It is gone with its process.
    ///
    /// # Errors
    /// Its file cannot be made or locked.
    pub fn alone(&self) -> io::Result<Alone> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.folder.join("alone"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Alone { _file: file })
    }

    /// Takes the lock of a key; `None` if a process has it.
    ///
    /// # Errors
    /// Its file cannot be made or locked.
    pub(crate) fn take(&self, id: KeyId) -> io::Result<Option<Lock>> {
        let path = self.folder.join(id.to_string());
        for _ in 0..TRIES_MAX {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Who had it before may have removed it: then others lock another file by this name.
            let ours = file.metadata()?.ino();
            match fs::metadata(&path) {
                Ok(there) if there.ino() == ours => return Ok(Some(Lock { file, path })),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Lock {
    /// Whether processes that are started from now on inherit it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn inherit(&self, inherit: bool) -> io::Result<()> {
        let flags = if inherit { FdFlags::empty() } else { FdFlags::CLOEXEC };
        Ok(fcntl_setfd(&self.file, flags)?)
    }

    /// Removes its file: nothing about this key has to be waited for any more.
    pub(crate) fn remove(self) {
        // A file that stays costs its few bytes and hinders nobody.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const KEY: KeyId = KeyId::from_bytes([7; 16]);

    #[test]
    fn one_has_it_until_it_is_dropped_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::in_folder(&folder.path().join("a/b")).unwrap();
        let lock = locks.take(KEY).unwrap().unwrap();
        assert!(locks.take(KEY).unwrap().is_none());
        assert!(locks.take(KeyId::from_bytes([8; 16])).unwrap().is_some());
        drop(lock);
        let lock = locks.take(KEY).unwrap().unwrap();
        lock.remove();
        assert!(locks.take(KEY).unwrap().is_some());
    }

    #[test]
    fn a_child_that_lives_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::in_folder(folder.path()).unwrap();
        let lock = locks.take(KEY).unwrap().unwrap();
        lock.inherit(true).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        lock.inherit(false).unwrap();
        drop(lock);
        assert!(locks.take(KEY).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(locks.take(KEY).unwrap().is_some());
    }
}
