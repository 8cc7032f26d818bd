//! Encrypted answers: the key file, which of its keys a store needs, and changing the key.

mod names;
mod watch;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::Engine;
use onlyonce_core::Timestamp;
use onlyonce_failpoint::failpoint;
use onlyonce_proxy::Telemetry;
use onlyonce_store::{Cursor, Store, StoreError};
use onlyonce_vault::{Encrypted, Keyring, Names, PLAIN, Settled, Turned};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::{Opened, time_of};
use names::{Where, lost, write};
pub(crate) use names::{carry, names, names_at};
pub(crate) use watch::Watch;

/// After a failure of the store the pass waits so long.
const AGAIN: Duration = Duration::from_secs(60);
/// Answers that cannot be opened are named in the log up to here.
const NAMED_MAX: usize = 100;

/// A store as it is used: what it keeps is encrypted if there is a key file, and what is encrypted
/// is not taken for an answer if there is none.
pub(crate) struct Wrapped {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Option<Vault>,
    /// To be run for as long as the store is used, if others may use it too.
    pub(crate) watch: Option<Watch>,
}

impl Wrapped {
    /// What a command uses that has no telemetry; the runtime ends the watch with the command.
    pub(crate) fn watched(self) -> (Arc<dyn Store>, Option<Vault>) {
        let Self { store, vault, watch } = self;
        if let Some(watch) = watch {
            tokio::spawn(watch.run(None));
        }
        (store, vault)
    }
}

/// The encryption of a store that is open.
#[derive(Clone)]
pub(crate) struct Vault {
    store: Arc<Encrypted>,
    names: Where,
    /// Those of the key file, the newest first.
    keys: Vec<String>,
}

/// The store, encrypted if there is a key file.
///
/// One that has answers encrypted with keys that are not there is refused: whoever asks for such an
/// answer would be told that it is damaged.
pub(crate) async fn open(opened: &Opened, key_file: Option<&Path>) -> Result<Wrapped, Failure> {
    let names = Where::of(opened);
    let known = names.read().await?;
    let ring = match key_file {
        Some(file) => Some((file, keyring(file)?)),
        None if known.is_empty() => None,
        None => return Err(no_key(&names)),
    };
    let raw = opened.store();
    let Some((file, ring)) = ring else {
        let watch = Watch::of(&names, Vec::new());
        let store: Arc<dyn Store> = match &names {
            Where::File(_) => raw,
            // Somebody else may begin to encrypt while this process runs.
            Where::Record(_) => Arc::new(Encrypted::new(raw, Keyring::none())),
        };
        return Ok(Wrapped { store, vault: None, watch });
    };
    refuse_missing(file, &ring, &known)?;
    let (keys, newest) = (ring.names(), ring.newest());
    match &names {
        Where::File(path) if !known.contains(&newest) => {
            let mut known = known;
            // What was kept until now is not encrypted.
            if known.is_empty() && 0 < opened.keys().unwrap_or_default() {
                known.push(PLAIN.to_owned());
            }
            known.push(newest);
            // Before the first answer is encrypted with it.
            write(path, &known).map_err(|error| lost(path, &error))?;
        }
        Where::File(_) => {}
        Where::Record(raw) => {
            let known = Names::begin(&**raw, &newest, time_of(&**raw).await?).await?;
            // Somebody else may have begun at the same time.
            let known: Vec<String> = known.iter().map(str::to_owned).collect();
            refuse_missing(file, &ring, &known)?;
        }
    }
    let watch = Watch::of(&names, keys.clone());
    let store = Arc::new(Encrypted::new(raw, ring));
    let vault = Vault { store: Arc::clone(&store), names, keys };
    Ok(Wrapped { store, vault: Some(vault), watch })
}

fn no_key(names: &Where) -> Failure {
    let text = match names {
        Where::File(path) => {
            let dir = path.parent().unwrap_or(path).display();
            format!("{dir}: answers in this journal are encrypted")
        }
        Where::Record(_) => "answers in this store are encrypted".to_owned(),
    };
    Failure::new(Exit::StoreUnavailable, text)
        .with_hint("name the file with their keys with --key-file")
}

fn refuse_missing(file: &Path, ring: &Keyring, known: &[String]) -> Result<(), Failure> {
    let Some(missing) = known.iter().find(|name| *name != PLAIN && !ring.has(name)) else {
        return Ok(());
    };
    let text = format!("{}: key {missing} is not in it", file.display());
    Err(Failure::new(Exit::StoreUnavailable, text).with_hint(
        "answers in the store may be encrypted with it: put it below the newest key, until \
         `onlyonce keys encryption` says that no answer uses it",
    ))
}

impl Vault {
    /// The names of the keys in the key file, the newest first.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Looks at a page of kept answers, and encrypts those anew that need it if `renew`.
    pub(crate) async fn page(
        &self,
        after: Option<Cursor>,
        renew: bool,
    ) -> Result<Turned, StoreError> {
        if renew { self.store.renew(after).await } else { self.store.count(after).await }
    }

    /// Writes down that no answer needs another key than the newest, once somebody has looked at
    /// all of them, who has begun with it then.
    pub(crate) async fn settle(&self, began: Timestamp) -> Result<Settled, Failure> {
        self.names.settle(&self.keys[0], began).await
    }

    /// Whether this process encrypts anew what others have encrypted, and there may be such.
    async fn is_to_renew(&self) -> Result<bool, Failure> {
        let is_mixed = self.names.read().await?.iter().any(|name| *name != self.keys[0]);
        Ok(is_mixed && self.names.is_latest(&self.keys[0]).await?)
    }

    /// Encrypts what is kept with the newest key, if it is not, beside the callers: half of the
    /// time is theirs. Goes on after failures of the store; what cannot be opened stays. Does it
    /// again while other processes encrypt with another key.
    pub(crate) async fn renew_all(self, engine: Engine, telemetry: Arc<Telemetry>) {
        while self.is_to_renew().await.unwrap_or(true) {
            let began = engine.now();
            let all = self.pass(&engine, &telemetry).await;
            for (id, error) in all.unread.iter().take(NAMED_MAX) {
                let text = "a kept answer cannot be opened and stays as it is";
                tracing::warn!(key = %id, %error, "{text}");
            }
            let (renewed, unread, key) = (all.renewed, all.unread.len(), &self.keys[0]);
            if 0 < unread {
                tracing::warn!(renewed, unread, key, "not all kept answers are encrypted anew");
                return;
            }
            match self.settle(began).await {
                Ok(Settled::Done) => {
                    tracing::info!(renewed, key, "no kept answer needs another key any more");
                    return;
                }
                Ok(Settled::Used(other)) => {
                    let other = other.name;
                    tracing::info!(renewed, key, other, "another key may still be in use");
                }
                Err(failure) => {
                    let error = failure.what;
                    tracing::warn!(error, "the names of keys could not be written");
                }
            }
            tokio::time::sleep(AGAIN).await;
            while self.names.is_in_use(key).await.unwrap_or(true) {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// From the first page to the last.
    async fn pass(&self, engine: &Engine, telemetry: &Telemetry) -> Turned {
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
                return all;
            }
            let took = engine.now().since(begun);
            tokio::time::sleep(took.max(Duration::from_millis(1))).await;
        }
    }
}

/// Those of these names whose keys are not in the file.
pub(crate) fn missing(file: &Path, known: &[String]) -> Result<Vec<String>, Failure> {
    let ring = keyring(file)?;
    let missing = known.iter().filter(|name| *name != PLAIN && !ring.has(name));
    Ok(missing.cloned().collect())
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
