//! Changing the key of what was kept before: a page at a time, so that callers get their turn
//! between pages, and with nothing to remember but where the next page begins.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use onlyonce_core::{KeyId, Record, Revision, StateKind, Timestamp};
use onlyonce_store::{Cursor, Filter, Page, Store, StoreError, StoreErrorKind, Swap};

use crate::keyring::PLAIN;
use crate::store::{Encrypted, content, is_own};

/// Records that are looked at in one step: their answers are in memory together, and callers wait
/// behind so many writes at most.
const PAGE: usize = 32;

/// What a step has seen of kept answers and done to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// How many are encrypted with which key, as it was found; [`PLAIN`] for those with none.
    pub found: BTreeMap<String, u64>,
    /// How many are now encrypted with the newest key and were not before.
    pub renewed: u64,
    /// Those that cannot be opened. They stay as they are.
    pub unread: Vec<(KeyId, StoreError)>,
    /// Where the next step begins; `None` at the end.
    pub next: Option<Cursor>,
}

impl Encrypted {
    /// Counts, on one page, which key kept answers are encrypted with.
    ///
    /// # Errors
    /// What the store says.
    pub async fn count(&self, after: Option<Cursor>) -> Result<Turned, StoreError> {
        let (turned, _) = self.look(after).await?;
        Ok(turned)
    }

    /// The same, and encrypts with the newest key what is not. A record keeps all that it says and
    /// gets a new revision; one that somebody else writes meanwhile is encrypted by that write.
    /// Once a pass from the first page to the last has left nothing unread, no record needs another
    /// key. A pass that ends early has lost nothing: what it has not reached is as it was.
    ///
    /// # Errors
    /// What the store says: the step may be repeated.
    pub async fn renew(&self, after: Option<Cursor>) -> Result<Turned, StoreError> {
        let (mut turned, stale) = self.look(after).await?;
        let swaps = stale.into_iter().map(|(id, sealed)| self.renewed(id, sealed));
        for (id, renewed) in join_all(swaps).await {
            match renewed {
                Ok(done) => turned.renewed += u64::from(done),
                Err(error) if error.kind() == StoreErrorKind::Damaged => {
                    turned.unread.push((id, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(turned)
    }

    /// What is on a page, and the records of it that are not encrypted with the newest key.
    async fn look(
        &self,
        after: Option<Cursor>,
    ) -> Result<(Turned, Vec<(KeyId, Record)>), StoreError> {
        let filter = Filter { state: Some(StateKind::Completed), limit: PAGE };
        let Page { records, damaged, next } = self.inner.list(filter, after).await?;
        let mut turned = Turned { unread: damaged, next, ..Turned::default() };
        let mut stale = Vec::new();
        for (id, record) in records.into_iter().filter(|(id, _)| !is_own(*id)) {
            let Some(content) = content(&record) else { continue };
            let name = self.keys.name_of(content);
            if name != self.keys.newest() {
                stale.push((id, record));
            }
            *turned.found.entry(name).or_default() += 1;
        }
        Ok((turned, stale))
    }

    /// Whether it was this call that encrypted the record anew.
    async fn renewed(&self, id: KeyId, sealed: Record) -> (KeyId, Result<bool, StoreError>) {
        let expected = sealed.revision;
        let done = match self.opened(id, sealed) {
            Ok(mut record) => {
                // The next number, whatever the time is: the record is as old as it was.
                record.revision = Revision::after(Some(expected), Timestamp::default());
                self.swap(id, Some(expected), Some(record)).await.map(|it| it == Swap::Done)
            }
            Err(error) => Err(error),
        };
        (id, done)
    }
}

impl Turned {
    /// Adds what a later step has seen.
    pub fn and(&mut self, later: Self) {
        let Self { found, renewed, unread, next } = later;
        for (name, count) in found {
            *self.found.entry(name).or_default() += count;
        }
        self.renewed += renewed;
        self.unread.extend(unread);
        self.next = next;
    }

    /// How many answers there are that can be read.
    pub fn answers(&self) -> u64 {
        self.found.values().sum()
    }

    /// How many are not encrypted at all.
    pub fn plain(&self) -> u64 {
        self.found.get(PLAIN).copied().unwrap_or_default()
    }
}
