//! The store around another.

use std::fmt;
use std::sync::Arc;

use onlyonce_core::{Floor, KeyId, Record, Reply, Revision, State, Timestamp};
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, Page, Store, StoreError, StoreErrorKind, Swap, Teller,
    transaction,
};

use crate::keyring::{Keyring, OVERHEAD};
use crate::names;

/// Encrypts the answers that another store keeps. Records from before are read as they are. The
/// record with the names of keys is shown to nobody; that of sweepers is no answer, and to none but
/// who asks for it.
pub struct Encrypted {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) keys: Keyring,
}

impl Encrypted {
    /// A store around `inner`. Whoever opens it without `keys` reads no answer that it has kept.
    pub const fn new(inner: Arc<dyn Store>, keys: Keyring) -> Self {
        Self { inner, keys }
    }

    /// The store around which it is.
    pub const fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    fn sealed(&self, id: KeyId, record: Record) -> Record {
        // Whoever sweeps reads it, with whatever keys.
        if is_own(id) {
            return record;
        }
        let revision = record.revision;
        with_content(record, |content| Ok::<_, ()>(self.keys.seal(id, revision, content)))
            .unwrap_or_else(|()| unreachable!("sealing does not fail"))
    }

    pub(crate) fn opened(&self, id: KeyId, record: Record) -> Result<Record, StoreError> {
        let revision = record.revision;
        with_content(record, |content| {
            let opened = self.keys.open(id, revision, content).transpose();
            opened.map_err(|closed| {
                StoreError::new(StoreErrorKind::Damaged, format!("{id}: {closed}"))
            })
        })
    }
}

/// What is kept of the reply.
pub(crate) fn content(record: &Record) -> Option<&[u8]> {
    match &record.state {
        State::Completed { reply, .. } => reply.content().map(|content| &content[..]),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}

/// Whether it is no key's record, but one of ours.
pub(crate) fn is_own(id: KeyId) -> bool {
    id == names::ID || id == transaction::SWEPT
}

/// The record with its reply's content changed; `None` leaves it.
fn with_content<E>(
    mut record: Record,
    change: impl FnOnce(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Record, E> {
    if let State::Completed { reply, .. } = &mut record.state
        && let Some(content) = reply.content()
        && let Some(changed) = change(content)?
    {
        *reply = Reply::kept(reply.status(), changed);
    }
    Ok(record)
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Store for Encrypted {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let found = if id == names::ID { None } else { self.inner.get(id).await? };
            found.map(|record| self.opened(id, record)).transpose()
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            if id == names::ID {
                let text = format!("{id} is the id of no key");
                return Err(StoreError::new(StoreErrorKind::NotApplied, text));
            }
            let next = next.map(|record| self.sealed(id, record));
            Ok(match self.inner.swap(id, expected, next).await? {
                Swap::Conflict(Some(record)) => Swap::Conflict(Some(self.opened(id, record)?)),
                swap @ (Swap::Done | Swap::Conflict(None)) => swap,
            })
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.inner.floor()
    }

    fn part(&self, id: KeyId) -> Option<u32> {
        self.inner.part(id)
    }

    fn floor_in(&self, part: u32) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.inner.floor_in(part)
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        self.inner.clock()
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.raise_floor(to)
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision_max()
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.inner.due(due, limit)
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.reclaim()
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let Page { records, mut damaged, next } = self.inner.list(filter, after).await?;
            let mut opened = Vec::with_capacity(records.len());
            for (id, record) in records.into_iter().filter(|(id, _)| !is_own(*id)) {
                match self.opened(id, record) {
                    Ok(record) => opened.push((id, record)),
                    Err(error) => damaged.push((id, error)),
                }
            }
            Ok(Page { records: opened, damaged, next })
        })
    }

    fn notices(&self, teller: Teller) {
        self.inner.notices(teller);
    }

    fn reply_max(&self) -> usize {
        let overhead = if self.keys.seals() { OVERHEAD } else { 0 };
        self.inner.reply_max().saturating_sub(overhead)
    }

    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }
}
