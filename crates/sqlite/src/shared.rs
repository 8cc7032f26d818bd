//! What the threads of a store have in common: whether its file can still be trusted.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use onlyonce_store::{StoreError, StoreErrorKind};

type OnPoison = Box<dyn FnOnce(&str) + Send>;

pub(crate) struct Shared {
    path: PathBuf,
    poison: OnceLock<String>,
    callbacks: Mutex<Vec<OnPoison>>,
}

impl Shared {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), poison: OnceLock::new(), callbacks: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing is written any more by this process.
    pub(crate) fn poison(&self, text: &str) {
        let text = format!("{}: {text}", self.path.display());
        if self.poison.set(text.clone()).is_err() {
            return;
        }
        let told = std::mem::take(&mut *self.callbacks());
        told.into_iter().for_each(|tell| tell(&text));
    }

    pub(crate) fn poisoned(&self) -> Option<StoreError> {
        let text = self.poison.get()?;
        Some(StoreError::new(StoreErrorKind::Poisoned, text.clone()))
    }

    pub(crate) fn on_poison(&self, tell: OnPoison) {
        let mut callbacks = self.callbacks();
        match self.poison.get() {
            Some(text) => {
                drop(callbacks);
                tell(text);
            }
            None => callbacks.push(tell),
        }
    }

    fn callbacks(&self) -> std::sync::MutexGuard<'_, Vec<OnPoison>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
