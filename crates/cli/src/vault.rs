//! Encrypted answers: the key file, and which of its keys a journal needs.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use onlyonce_journal::Journal;
use onlyonce_store::Store;
use onlyonce_vault::{Encrypted, Keyring};

use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// The names of the keys that have encrypted answers, a line each, in the journal's folder.
const NAMES: &str = "keys";

/// The store in a journal, encrypted if there is a key file.
///
/// A journal that has answers encrypted with keys that are not there is refused: whoever asks for
/// such an answer would be told that it is damaged.
pub(crate) fn store(journal: &Journal, args: &StoreArgs) -> Result<Arc<dyn Store>, Failure> {
    let path = args.store.dir().join(NAMES);
    let names = fs::read_to_string(&path).unwrap_or_default();
    let Some(file) = &args.key_file else {
        if names.trim().is_empty() {
            return Ok(Arc::new(journal.clone()));
        }
        let text = format!("{}: answers in this journal are encrypted", args.store.dir().display());
        return Err(Failure::new(Exit::StoreUnavailable, text)
            .with_hint("name the file with their keys with --key-file"));
    };
    let keys = keyring(file)?;
    if let Some(missing) = names.lines().find(|name| !keys.has(name)) {
        let text = format!("{}: key {missing} is not in it", file.display());
        return Err(Failure::new(Exit::StoreUnavailable, text).with_hint(format!(
            "answers in the journal are encrypted with it: put it below the newest key, or strike \
             it from {} once they have been forgotten",
            path.display()
        )));
    }
    if !names.lines().any(|name| name == keys.newest()) {
        note(&path, &keys.newest()).map_err(|error| {
            Failure::new(Exit::StoreUnavailable, format!("{}: {error}", path.display()))
        })?;
    }
    Ok(Arc::new(Encrypted::new(journal.clone(), keys)))
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

/// Before the first answer is encrypted with it.
fn note(path: &Path, name: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(path)?;
    file.write_all(format!("{name}\n").as_bytes())?;
    file.sync_all()
}
