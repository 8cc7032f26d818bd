//! Keys of intents in files of a folder, for any number of processes: each key is on the disk
//! before it is sent. The clients for Python and Node.js read and write the same files.
//!
//! A file is never written again: a key that takes another's place is in a file of its own, and the
//! one with the highest number counts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::canonical::hex;
use crate::intents::{IntentStore, checked, room};

/// Keeps keys in a folder.
#[derive(Clone, Debug)]
pub struct FileIntents {
    folder: PathBuf,
}

impl FileIntents {
    /// Those in this folder, which is made, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(folder: impl AsRef<Path>) -> io::Result<Self> {
        let folder = folder.as_ref().to_owned();
        let mut making = fs::DirBuilder::new();
        making.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut making, 0o700);
        making.create(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, intent: &str, number: usize) -> PathBuf {
        let name = hex(&Sha256::digest(intent.as_bytes()));
        self.folder.join(format!("{name}.{number}.json"))
    }

    fn count(&self, intent: &str) -> io::Result<usize> {
        let mut number = 0;
        while self.path(intent, number).try_exists()? {
            number += 1;
        }
        Ok(number)
    }

    fn latest(&self, intent: &str) -> io::Result<Option<(usize, String)>> {
        match self.count(intent)?.checked_sub(1) {
            None => Ok(None),
            Some(number) => Ok(Some((number, self.read(intent, number)?))),
        }
    }

    fn read(&self, intent: &str, number: usize) -> io::Result<String> {
        let path = self.path(intent, number);
        let wrong = |text: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text}", path.display()))
        };
        let document: Value =
            serde_json::from_slice(&fs::read(&path)?).map_err(|error| wrong(&error.to_string()))?;
        if document.get("intent").and_then(Value::as_str) != Some(intent) {
            return Err(wrong("it is not of this intent"));
        }
        let key = document.get("key").and_then(Value::as_str).filter(|key| !key.is_empty());
        key.map(str::to_owned).ok_or_else(|| wrong("it has no key"))
    }

    /// Makes a file that is whole from its first moment; whoever is second reads the first's.
    fn keep(&self, intent: &str, number: usize, key: String) -> io::Result<String> {
        let path = self.path(intent, number);
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(|error| io::Error::other(error.to_string()))?;
        let draft = self.folder.join(format!("{}.draft", hex(&chance)));
        let text = json!({"intent": intent, "key": key}).to_string();
        let kept = write(&draft, text.as_bytes()).and_then(|()| fs::hard_link(&draft, &path));
        let key = match kept {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.read(intent, number),
            Err(error) => Err(error),
        };
        // What is left of a draft hinders nobody.
        let _ = fs::remove_file(&draft);
        let key = key?;
        self.sync()?;
        Ok(key)
    }

    /// A name in a folder is durable once the folder is.
    fn sync(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

impl IntentStore for FileIntents {
    fn take(&self, intent: &str, make: &dyn Fn() -> String) -> io::Result<String> {
        checked(intent)?;
        if let Some((_, key)) = self.latest(intent)? {
            // Whoever made the file may not have come so far.
            self.sync()?;
            return Ok(key);
        }
        room(fs::read_dir(&self.folder)?.count())?;
        self.keep(intent, 0, make())
    }

    fn replace(&self, intent: &str, old: &str, make: &dyn Fn() -> String) -> io::Result<String> {
        match self.latest(intent)? {
            None => self.keep(intent, 0, make()),
            Some((number, key)) if key == old => self.keep(intent, number + 1, make()),
            Some((_, key)) => Ok(key),
        }
    }

    fn forget(&self, intent: &str) -> io::Result<()> {
        // The highest first: should the rest be left behind, it is a key that was refused, and will
        // be again.
        for number in (0..self.count(intent)?).rev() {
            match fs::remove_file(self.path(intent, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.sync()
    }
}
