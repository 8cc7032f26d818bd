//! What each process on a shared store does about the names of keys for as long as it runs: it says
//! which key it encrypts with, and tells if another process has named one that it does not have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_proxy::Telemetry;
use onlyonce_store::{Store, StoreError};
use onlyonce_vault::{EVERY, Names, PLAIN};

use super::names::Where;
use crate::place::time_of;

/// After a failure of the store it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(5);

/// The names of a shared store, and the keys of this process, the newest first; none if it does not
/// encrypt.
pub(crate) struct Watch {
    store: Arc<dyn Store>,
    keys: Vec<String>,
}

impl Watch {
    /// A journal needs none: nobody else has it.
    pub(super) fn of(names: &Where, keys: Vec<String>) -> Option<Self> {
        match names {
            Where::File(_) => None,
            Where::Record(store) => Some(Self { store: Arc::clone(store), keys }),
        }
    }

    /// Never ends.
    pub(crate) async fn run(self, telemetry: Option<Arc<Telemetry>>) {
        let (mut told, mut pause) = (BTreeSet::new(), EVERY);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.turn(telemetry.as_deref(), &mut told).await;
        }
    }

    /// Looks once, tells what was not told yet, and says after which pause to look again.
    async fn turn(&self, telemetry: Option<&Telemetry>, told: &mut BTreeSet<String>) -> Duration {
        let missing = match self.look().await {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(%error, "the names of keys could not be read or written");
                return AGAIN;
            }
        };
        if let Some(telemetry) = telemetry {
            telemetry.keys_missing(missing.len());
        }
        for key in missing.into_iter().filter(|key| told.insert(key.clone())) {
            tracing::error!(
                key,
                "another process encrypts answers with a key that is not in the key file: they \
                 cannot be given again here"
            );
        }
        EVERY
    }

    /// Says which key is used, and what is named and not here.
    async fn look(&self) -> Result<Vec<String>, StoreError> {
        let store = &*self.store;
        if self.keys.is_empty() && Names::read(store).await?.is_empty() {
            return Ok(Vec::new());
        }
        let newest = self.keys.first().map_or(PLAIN, String::as_str);
        let names = Names::go_on(store, newest, time_of(store).await?).await?;
        let others = names.iter().filter(|name| *name != PLAIN);
        let missing = others.filter(|name| !self.keys.iter().any(|key| key == name));
        Ok(missing.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_store::MemoryStore;
    use onlyonce_vault::Settled;

    async fn names(store: &Arc<dyn Store>) -> Vec<String> {
        Names::read(&**store).await.unwrap().iter().map(str::to_owned).collect()
    }

    fn watch(store: &Arc<dyn Store>, keys: &[&str]) -> Watch {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        Watch::of(&Where::Record(Arc::clone(store)), keys).unwrap()
    }

    #[tokio::test]
    async fn who_still_encrypts_with_a_key_names_it_again_and_misses_those_of_others() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let plain = watch(&store, &[]);
        assert!(plain.look().await.unwrap().is_empty());
        assert!(names(&store).await.is_empty(), "nothing is written where nothing is encrypted");
        let now = time_of(&*store).await.unwrap();
        Names::begin(&*store, "one", now).await.unwrap();
        Names::begin(&*store, "two", now).await.unwrap();
        let later = now.plus(EVERY * 10);
        assert_eq!(Names::settle(&*store, "two", later).await, Ok(Settled::Done));
        assert_eq!(names(&store).await, ["two"]);
        // It stood still for long, and goes on.
        let old = watch(&store, &["one"]);
        assert_eq!(old.look().await.unwrap(), ["two"]);
        assert_eq!(names(&store).await, ["one", "two"], "what comes back is not the latest");
        assert_eq!(plain.look().await.unwrap(), ["plain", "one", "two"][1..]);
        assert_eq!(names(&store).await, ["plain", "one", "two"]);
        assert!(watch(&store, &["two", "one"]).look().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_key_that_is_missing_is_counted_until_it_is_not_named_any_more() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let now = time_of(&*store).await.unwrap();
        Names::begin(&*store, "two", now).await.unwrap();
        let (old, mut told) = (watch(&store, &["one"]), BTreeSet::new());
        let telemetry = Telemetry::default();
        let missing = |count: u32| {
            let says = format!("\nonlyonce_encryption_keys_missing {count}\n");
            assert!(telemetry.render().contains(&says));
        };
        missing(0);
        assert_eq!(old.turn(Some(&telemetry), &mut told).await, EVERY);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["two"]);
        missing(1);
        let later = now.plus(EVERY * 10);
        assert_eq!(Names::settle(&*store, "one", later).await, Ok(Settled::Done));
        old.turn(Some(&telemetry), &mut told).await;
        missing(0);
    }
}
