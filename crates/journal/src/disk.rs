//! The seam to the file system: the few calls the journal makes, so that tests can lose, tear and
//! refuse writes at any of them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use onlyonce_failpoint::failpoint;

/// A folder of files.
pub(crate) trait Disk: Send + Sync + fmt::Debug {
    /// The names in it, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>>;
    /// Makes an empty file, in place of one that may be there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>>;
    /// Renames a file, in place of one that may be there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Where it is, for messages.
    fn place(&self, name: &str) -> PathBuf;
}

/// An open file.
pub(crate) trait Medium: Send + Sync + fmt::Debug {
    /// How long it is, in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `into` from `offset`; an error if the file ends before.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// How many names it has, in this folder or elsewhere.
    fn names(&self) -> io::Result<u64>;
    /// Gives back what is behind `length`. Of a file that has no name any more.
    fn shorten(&self, length: u64) -> io::Result<()>;
    /// Makes what was written durable. After an error nobody knows what is.
    fn sync(&self) -> io::Result<()>;

    /// All of it.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.len()?).map_err(io::Error::other)?;
        let mut all = vec![0; length];
        self.read_at(&mut all, 0)?;
        Ok(all)
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    prepare_whole(disk, name, bytes)?;
    put_whole(disk, name)
}

/// The first half of it: makes the file ready to take the place of one that may be there. Nothing
/// has changed if it fails.
pub(crate) fn prepare_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    failpoint!("file.write.before", (name, bytes.len()));
    let medium = disk.create(&new_name(name))?;
    medium.write_at(bytes, 0)?;
    failpoint!("file.sync.before", (name, bytes.len()));
    medium.sync()
}

/// The second half: puts what is ready in its place. Nobody knows which counts if it fails.
pub(crate) fn put_whole(disk: &dyn Disk, name: &str) -> io::Result<()> {
    failpoint!("file.rename.before", name);
    disk.rename(&new_name(name), name)?;
    failpoint!("file.rename.after", name);
    disk.sync_names()?;
    failpoint!("file.names.after", name);
    Ok(())
}

fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// A small file, if it is there.
pub(crate) fn read_whole(disk: &dyn Disk, name: &str) -> io::Result<Option<Vec<u8>>> {
    match disk.open(name).and_then(|medium| medium.read_all()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Kept open once it was synced: a process that has run out of file handles must still be able
    /// to go on in the segment that it has prepared.
    names: OnceLock<File>,
}

impl Folder {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), names: OnceLock::new() }
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Medium>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        let names = match self.names.get() {
            Some(names) => names,
            None => {
                let names = File::open(&self.path)?;
                self.names.get_or_init(|| names)
            }
        };
        names.sync_all()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Medium for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn names(&self) -> io::Result<u64> {
        Ok(self.metadata()?.nlink())
    }

    fn shorten(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
