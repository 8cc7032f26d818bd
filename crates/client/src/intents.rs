//! Where the key of an intent is kept, from before it is sent for the first time.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The most intents that one store keeps.
pub const INTENTS_MAX: usize = 100_000;
/// The longest name of an intent, in bytes.
pub const NAME_MAX: usize = 1024;

/// Keeps one key for each intent. All of it may be called by many threads at once, and may wait
/// for a disk.
pub trait IntentStore: Send + Sync + 'static {
    /// The key that is kept for the intent; else one that `make` makes, once it is kept durably.
    /// All who ask at once get the same.
    ///
    /// # Errors
    /// No key is kept: nothing may be sent.
    fn take(&self, intent: &str, make: &dyn Fn() -> String) -> io::Result<String>;

    /// Puts a new key in the place of `old`, and gives it; another's, if that was first.
    ///
    /// # Errors
    /// No new key is kept: nothing may be sent.
    fn replace(&self, intent: &str, old: &str, make: &dyn Fn() -> String) -> io::Result<String>;

    /// The intent is over: its name means a new one from now on.
    ///
    /// # Errors
    /// It may not be: the key may still be there.
    fn forget(&self, intent: &str) -> io::Result<()>;
}

/// Keeps keys as long as the process lives: a restart does not find them again.
#[derive(Debug, Default)]
pub struct MemoryIntents {
    keys: Mutex<HashMap<String, String>>,
}

impl MemoryIntents {
    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IntentStore for MemoryIntents {
    fn take(&self, intent: &str, make: &dyn Fn() -> String) -> io::Result<String> {
        checked(intent)?;
        let mut keys = self.keys();
        if let Some(key) = keys.get(intent) {
            return Ok(key.clone());
        }
        room(keys.len())?;
        Ok(keys.entry(intent.to_owned()).or_insert_with(make).clone())
    }

    fn replace(&self, intent: &str, old: &str, make: &dyn Fn() -> String) -> io::Result<String> {
        let mut keys = self.keys();
        let key = keys.entry(intent.to_owned()).or_insert_with(make);
        if key == old {
            *key = make();
        }
        Ok(key.clone())
    }

    fn forget(&self, intent: &str) -> io::Result<()> {
        self.keys().remove(intent);
        Ok(())
    }
}

/// Refuses a name that is none.
pub(crate) fn checked(intent: &str) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if intent.trim().is_empty() {
        return wrong("an intent has a name that is not blank".into());
    }
    if NAME_MAX < intent.len() {
        return wrong(format!("the name of an intent has at most {NAME_MAX} bytes"));
    }
    Ok(())
}

pub(crate) fn room(taken: usize) -> io::Result<()> {
    if taken < INTENTS_MAX {
        return Ok(());
    }
    let text = format!("{INTENTS_MAX} intents are kept: forget those that are over");
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}
