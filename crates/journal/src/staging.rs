//! Making a folder whole or not at all: under another name first.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use onlyonce_failpoint::failpoint;

use crate::error::{JournalError, JournalErrorKind};

/// Calls `make` with a new, empty folder beside `to`, and gives it the name `to` once that has
/// ended well. What `make` leaves in it must be durable.
///
/// # Errors
/// There is something at `to` or at the name that is used meanwhile, or `make` fails: then what it
/// has made is removed again.
pub(crate) fn make<T>(
    to: &Path,
    make: impl FnOnce(&Path) -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    let exists = |text: &str| JournalError::new(JournalErrorKind::Exists, to, text);
    // A link that leads nowhere is something too.
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists("this exists already; it is left as it is"));
    }
    let new = beside(to).ok_or_else(|| exists("this is no name for a new folder"))?;
    failpoint!("staging.create.before", new);
    DirBuilder::new().mode(0o700).create(&new).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let text = "somebody makes this now, or did not end it; if nobody does, remove it";
            return JournalError::new(JournalErrorKind::Exists, &new, text);
        }
        JournalError::io(&new, &error)
    })?;
    failpoint!("staging.create.after", new);
    let made = make(&new).and_then(|made| {
        failpoint!("staging.rename.before", new);
        let named = fs::rename(&new, to).and_then(|()| {
            failpoint!("staging.rename.after", new);
            sync_parent(to)
        });
        failpoint!("staging.names.after", new);
        named.map_err(|error| JournalError::io(to, &error)).map(|()| made)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    made
}

/// Where it is made.
fn beside(to: &Path) -> Option<PathBuf> {
    let mut name: OsString = to.file_name()?.to_owned();
    name.push(".new");
    Some(to.with_file_name(name))
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// That a copy of what is in `dir` is not made within it, where it would be taken for a part of it.
pub(crate) fn refuse_within(dir: &Path, to: &Path) -> Result<(), JournalError> {
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| JournalError::io(path, &error));
    if real(parent(to))?.starts_with(real(dir)?) {
        let text = "this lies within the journal's own folder; name another place";
        return Err(JournalError::new(JournalErrorKind::Exists, to, text));
    }
    Ok(())
}
