//! Encrypted answers: the key file, which of its keys a journal needs, and changing the key.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onlyonce::Engine;
use onlyonce_failpoint::failpoint;
use onlyonce_journal::Journal;
use onlyonce_proxy::Telemetry;
use onlyonce_store::{Store, StoreError};
use onlyonce_vault::{Encrypted, Keyring, PLAIN, Turned};

use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::Opened;

/// The names of the keys that answers in the journal may need, a line each, in its folder; backups
/// carry it.
const NAMES: &str = "keys";
/// After a failure of the store the pass waits so long.
const AGAIN: Duration = Duration::from_secs(60);
/// Answers that cannot be opened are named in the log up to here.
const NAMED_MAX: usize = 100;

/// A journal's store, and what its answers are encrypted with.
pub(crate) struct Wrapped {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Option<Vault>,
}

/// The encryption of a journal that is open.
#[derive(Clone)]
pub(crate) struct Vault {
    store: Arc<Encrypted<Journal>>,
    names: PathBuf,
    /// Those of the key file, the newest first.
    keys: Vec<String>,
}

/// The store, encrypted if there is a key file. Only a journal has a place for the names of keys.
///
/// A journal that has answers encrypted with keys that are not there is refused: whoever asks for
/// such an answer would be told that it is damaged.
pub(crate) fn open(opened: &Opened, args: &StoreArgs) -> Result<Wrapped, Failure> {
    if let Some(store) = opened.shared() {
        if args.key_file.is_none() {
            return Ok(Wrapped { store, vault: None });
        }
        let text = format!("--key-file: answers in {} cannot be encrypted yet", args.store);
        return Err(Failure::new(Exit::Usage, text).with_hint("a journal can encrypt them"));
    }
    let Some((journal, dir)) = opened.journal() else {
        unreachable!("what is not shared is a journal")
    };
    let path = dir.join(NAMES);
    let lost = |error: io::Error| {
        Failure::new(Exit::StoreUnavailable, format!("{}: {error}", path.display()))
    };
    let mut needed = read(&path).map_err(lost)?;
    let Some(file) = &args.key_file else {
        if needed.is_empty() {
            return Ok(Wrapped { store: Arc::new(journal.clone()), vault: None });
        }
        let text = format!("{}: answers in this journal are encrypted", dir.display());
        return Err(Failure::new(Exit::StoreUnavailable, text)
            .with_hint("name the file with their keys with --key-file"));
    };
    let ring = keyring(file)?;
    if let Some(missing) = needed.iter().find(|name| *name != PLAIN && !ring.has(name)) {
        let text = format!("{}: key {missing} is not in it", file.display());
        return Err(Failure::new(Exit::StoreUnavailable, text).with_hint(
            "answers in the journal may be encrypted with it: put it below the newest key, until \
             `onlyonce keys encryption` says that no answer uses it",
        ));
    }
    let (keys, newest) = (ring.names(), ring.newest());
    if !needed.contains(&newest) {
        // What was kept until now is not encrypted.
        if needed.is_empty() && 0 < journal.stats().keys {
            needed.push(PLAIN.to_owned());
        }
        needed.push(newest);
        // Before the first answer is encrypted with it.
        write(&path, &needed).map_err(lost)?;
    }
    let store = Arc::new(Encrypted::new(journal.clone(), ring));
    let vault = Vault { store: Arc::clone(&store), names: path, keys };
    Ok(Wrapped { store, vault: Some(vault) })
}

impl Vault {
    /// The names of the keys in the key file, the newest first.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Looks at a page of kept answers, and encrypts those anew that need it if `renew`.
    pub(crate) async fn page(
        &self,
        after: Option<onlyonce_store::Cursor>,
        renew: bool,
    ) -> Result<Turned, StoreError> {
        if renew { self.store.renew(after).await } else { self.store.count(after).await }
    }

    /// Whether answers may be kept that the newest key does not open.
    pub(crate) fn is_mixed(&self) -> io::Result<bool> {
        Ok(read(&self.names)?.iter().any(|name| *name != self.keys[0]))
    }

    /// Writes down that no answer needs another key than the newest, once somebody has looked at
    /// all of them.
    pub(crate) fn settle(&self) -> io::Result<()> {
        if self.is_mixed()? { write(&self.names, &self.keys[..1]) } else { Ok(()) }
    }

    /// Encrypts what is kept with the newest key, if it is not, beside the callers: half of the
    /// time is theirs. Goes on after failures of the store; what cannot be opened stays.
    pub(crate) async fn renew_all(self, engine: Engine, telemetry: Arc<Telemetry>) {
        if !self.is_mixed().unwrap_or(true) {
            return;
        }
        let (mut all, mut after) = (Turned::default(), None);
        loop {
            let begun = engine.now();
            failpoint!("renew.page.before", after);
            match self.page(after.clone(), true).await {
                Ok(turned) => {
                    failpoint!("renew.page.after", turned);
                    telemetry.renewed(turned.renewed, turned.unread.len());
                    all.and(turned);
                }
                Err(error) => {
                    tracing::warn!(%error, "answers are not all encrypted anew yet");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            after = all.next.clone();
            if after.is_none() {
                break;
            }
            let took = engine.now().since(begun);
            tokio::time::sleep(took.max(Duration::from_millis(1))).await;
        }
        for (id, error) in all.unread.iter().take(NAMED_MAX) {
            tracing::warn!(key = %id, %error, "a kept answer cannot be opened and stays as it is");
        }
        let (renewed, unread, key) = (all.renewed, all.unread.len(), &self.keys[0]);
        if 0 < unread {
            tracing::warn!(renewed, unread, key, "not all kept answers are encrypted anew");
            return;
        }
        match self.settle() {
            Ok(()) => tracing::info!(renewed, key, "no kept answer needs another key any more"),
            Err(error) => tracing::warn!(%error, "the names of keys could not be written"),
        }
    }
}

/// Whether answers in the journal in this folder may be encrypted.
pub(crate) fn is_encrypted(dir: &Path) -> Result<bool, Failure> {
    let path = dir.join(NAMES);
    let names = read(&path).map_err(|error| {
        Failure::new(Exit::StoreUnavailable, format!("{}: {error}", path.display()))
    })?;
    Ok(!names.is_empty())
}

fn keyring(file: &Path) -> Result<Keyring, Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, format!("{}: {text}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let mode = fs::metadata(file).map_err(|error| wrong(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("others can read it (mode {:o})", mode & 0o777);
        return Err(wrong(text).with_hint("chmod 600"));
    }
    Keyring::parse(&text).map_err(|error| wrong(error.to_string()))
}

fn read(path: &Path) -> io::Result<Vec<String>> {
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
fn write(path: &Path, names: &[String]) -> io::Result<()> {
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
