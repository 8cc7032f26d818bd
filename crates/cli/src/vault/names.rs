//! Where the names of the keys are that answers may need: a journal's in a file of its folder, a
//! shared store's in a record of it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onlyonce_core::Timestamp;
use onlyonce_failpoint::failpoint;
use onlyonce_journal::Settings;
use onlyonce_store::Store;
use onlyonce_vault::{Names, Settled};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::{Opened, Place, time_of};

/// The names, a line each, in a journal's folder; backups carry it.
const FILE: &str = "keys";

/// Where they are.
#[derive(Clone)]
pub(super) enum Where {
    /// A journal's file.
    File(PathBuf),
    /// The record of a store that others may have too.
    Record(Arc<dyn Store>),
}

impl Where {
    /// Of the store that is open.
    pub(super) fn of(opened: &Opened) -> Self {
        match opened.journal() {
            Some((_, dir)) => Self::File(dir.join(FILE)),
            None => Self::Record(opened.store()),
        }
    }

    /// All of them; none if nothing was ever encrypted.
    pub(super) async fn read(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::File(path) => read(path).map_err(|error| lost(path, &error)),
            Self::Record(store) => {
                let names = Names::read(&**store).await?;
                Ok(names.iter().map(str::to_owned).collect())
            }
        }
    }

    /// Takes all away but `newest`, once a pass that began then has found no answer that needs
    /// another.
    pub(super) async fn settle(&self, newest: &str, began: Timestamp) -> Result<Settled, Failure> {
        let path = match self {
            Self::File(path) => path,
            Self::Record(store) => return Ok(Names::settle(&**store, newest, began).await?),
        };
        // Nobody else has the journal, so nobody else encrypts.
        let done = read(path).and_then(|names| match names.iter().any(|name| name != newest) {
            true => write(path, &[newest.to_owned()]),
            false => Ok(()),
        });
        done.map(|()| Settled::Done).map_err(|error| lost(path, &error))
    }

    /// Whether this process encrypts anew what others have encrypted: of several with several
    /// newest keys only those do it whose key came last.
    pub(super) async fn is_latest(&self, newest: &str) -> Result<bool, Failure> {
        match self {
            Self::File(_) => Ok(true),
            Self::Record(store) => Ok(Names::read(&**store).await?.latest() == Some(newest)),
        }
    }

    /// Whether somebody may still encrypt with another key.
    pub(super) async fn is_in_use(&self, newest: &str) -> Result<bool, Failure> {
        match self {
            Self::File(_) => Ok(false),
            Self::Record(store) => {
                let now = time_of(&**store).await?;
                Ok(Names::read(&**store).await?.in_use(newest, now).is_some())
            }
        }
    }
}

/// The keys that answers in this store may need.
pub(crate) async fn names(opened: &Opened) -> Result<Vec<String>, Failure> {
    Where::of(opened).read().await
}

/// The same of a store that is not open, also while another process has the journal.
pub(crate) async fn names_at(place: &Place) -> Result<Vec<String>, Failure> {
    if let Place::Journal(dir) = place {
        let path = dir.join(FILE);
        return read(&path).map_err(|error| lost(&path, &error));
    }
    let opened = place.open_marked(Settings::default()).await?;
    let found = names(&opened).await;
    opened.close();
    found
}

/// Names these keys in a store to which answers are copied as they are, before the first of them.
pub(crate) async fn carry(names: &[String], to: &Opened) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    match Where::of(to) {
        Where::File(path) => {
            let written = read(&path).and_then(|mut all| {
                all.extend(
                    names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>(),
                );
                write(&path, &all)
            });
            written.map_err(|error| lost(&path, &error))
        }
        Where::Record(store) => {
            let now = time_of(&*store).await?;
            Ok(Names::add(&*store, names, now).await?)
        }
    }
}

pub(super) fn lost(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::StoreUnavailable, format!("{}: {error}", path.display()))
}

pub(super) fn read(path: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
            Ok(names.map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// All of them or what stood there before, whenever the power goes out.
pub(super) fn write(path: &Path, names: &[String]) -> io::Result<()> {
    let new = path.with_extension("new");
    failpoint!("names.write.before", (names.len(), names));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    file.write_all(lines.as_bytes())?;
    failpoint!("names.sync.before", (names.len(), names));
    file.sync_all()?;
    failpoint!("names.rename.before", (names.len(), names));
    fs::rename(&new, path)?;
    failpoint!("names.rename.after", (names.len(), names));
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    failpoint!("names.synced.after", (names.len(), names));
    Ok(())
}
