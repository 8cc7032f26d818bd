//! The calls of a store, and what the answers of etcd mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use onlyonce_core::{Floor, KeyId, Record, Revision, StateKind, Timestamp};
use onlyonce_store::{StoreError, StoreErrorKind, Swap, Warning};

use crate::cache::{Cache, Seen};
use crate::client::Client;
use crate::error::Fault;
use crate::fence::{Fence, Mark};
use crate::layout::{self, Facts, Layout};
use crate::members::Members;
use crate::target::Target;
use crate::wire::{Answer, Compare, Is, KeyValue, Op, Range, Txn, TxnDone, end_of};

/// How often a swap is tried anew when what was remembered was out of date, or the process's
/// number was raised meanwhile.
const TRIES: u32 = 4;

/// What all clones of a store share.
pub(crate) struct Inner {
    pub(crate) target: Target,
    pub(crate) layout: Arc<Layout>,
    pub(crate) members: Arc<Members>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) cache: Cache,
    pub(crate) facts: Facts,
    /// Which cluster this is; another than that of the facts if a snapshot has brought them here.
    pub(crate) cluster: u64,
    pub(crate) warnings: Vec<Warning>,
    /// Up to which of etcd's revisions the next pass of the sweeper lets it forget.
    pub(crate) forget_until: AtomicI64,
}

/// A record as etcd has it.
struct Found {
    record: Record,
    seen: Seen,
}

impl Inner {
    pub(crate) async fn get(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        Ok(self.look(id).await?.map(|found| found.record))
    }

    async fn look(&self, id: KeyId) -> Result<Option<Found>, StoreError> {
        let get = Txn::of(Op::get(self.layout.record(id)));
        let answer = self.members.read(get).await.map_err(Fault::of_read)?;
        self.found(id, answer.first())
    }

    /// The record in a key, which is remembered.
    fn found(&self, id: KeyId, found: Option<KeyValue>) -> Result<Option<Found>, StoreError> {
        let Some(found) = found else { return Ok(None) };
        let place = self.target.to_string();
        let (record, entry) = layout::record(&place, id, found.value)?;
        let seen = Seen { revision: record.revision, changed: found.mod_revision, entry };
        self.cache.put(id, seen);
        Ok(Some(Found { record, seen }))
    }

    pub(crate) async fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        for _ in 0..TRIES {
            let before = match expected {
                None => None,
                Some(revision) => {
                    let seen = self.cache.get(id).filter(|seen| seen.revision == revision);
                    match seen {
                        Some(seen) => Some(seen),
                        None => match self.look(id).await? {
                            Some(found) if found.seen.revision == revision => Some(found.seen),
                            other => return Ok(Swap::Conflict(other.map(|it| it.record))),
                        },
                    }
                }
            };
            let mark = self.fence.mark(&self.members).await?;
            let txn = self.transaction(id, &mark, before, next.as_ref())?;
            let answer = match self.members.write(txn).await {
                Ok(answer) => answer,
                Err(fault) if fault.is_full() => {
                    return self.full(id, expected, next.as_ref(), fault).await;
                }
                Err(fault) => {
                    if fault.is_unknown() {
                        self.fence.doubt();
                    }
                    return Err(fault.into());
                }
            };
            if answer.succeeded {
                self.remember(id, &answer, next.as_ref())?;
                return Ok(Swap::Done);
            }
            let mut found = answer.answers.into_iter();
            let record = found.next().and_then(Answer::first);
            let number = found.next().and_then(Answer::first).map(|found| found.value);
            if number.is_none() {
                self.fence.lost();
            }
            if number != Some(mark.value()) {
                // It did not take place because of the number, whatever the record is.
                continue;
            }
            let found = self.found(id, record)?;
            if found.as_ref().map(|found| found.seen.revision) == expected {
                // What was remembered was out of date; now it is not.
                continue;
            }
            return Ok(Swap::Conflict(found.map(|found| found.record)));
        }
        let text = format!("{}: too much has changed meanwhile", self.target);
        Err(StoreError::new(StoreErrorKind::NotApplied, text))
    }

    /// What became of a swap that was answered with want of room. The members answer so too when
    /// they have carried it out, and it was what took the last of the room.
    async fn full(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<&Record>,
        fault: Fault,
    ) -> Result<Swap, StoreError> {
        let Ok(found) = self.look(id).await else {
            self.fence.doubt();
            return Err(StoreError::new(StoreErrorKind::Unknown, fault.text()));
        };
        let found = found.map(|found| found.record);
        if found.as_ref() == next {
            return Ok(Swap::Done);
        }
        if found.map(|record| record.revision) == expected {
            return Err(fault.into());
        }
        // Somebody has changed it since; whether on top of ours, nobody can tell.
        Err(StoreError::new(StoreErrorKind::Unknown, fault.text()))
    }

    /// The whole swap: the record, its entry in the index, and the largest revision.
    fn transaction(
        &self,
        id: KeyId,
        mark: &Mark,
        before: Option<Seen>,
        next: Option<&Record>,
    ) -> Result<Txn, StoreError> {
        let key = self.layout.record(id);
        let same = match before {
            None => Compare::absent(key.clone()),
            Some(seen) => Compare::unchanged_since(key.clone(), seen.changed),
        };
        let mut then = Vec::new();
        let mut entry_now = None;
        match next {
            None => then.push(Op::delete(key.clone())),
            Some(record) => {
                let (value, entry) = layout::value(id, record)?;
                let revision = record.revision.get().to_be_bytes();
                let largest = self.layout.revision();
                let raise = Txn {
                    when: vec![Compare::value(largest.clone(), Is::Less, revision)],
                    then: vec![Op::put(largest, revision)],
                    otherwise: Vec::new(),
                };
                then.push(Op::put(key.clone(), value));
                then.push(Op::put(self.layout.entry(entry), []));
                then.push(Op::txn(raise));
                entry_now = Some(entry);
            }
        }
        if let Some(seen) = before.filter(|seen| Some(seen.entry) != entry_now) {
            then.push(Op::delete(self.layout.entry(seen.entry)));
        }
        let otherwise = vec![Op::get(key), Op::get(mark.key.clone())];
        Ok(Txn { when: vec![mark.stands(), same], then, otherwise })
    }

    fn remember(
        &self,
        id: KeyId,
        answer: &TxnDone,
        next: Option<&Record>,
    ) -> Result<(), StoreError> {
        match next {
            Some(record) => {
                let (_, entry) = layout::value(id, record)?;
                let changed = answer.revision();
                self.cache.put(id, Seen { revision: record.revision, changed, entry });
            }
            None => self.cache.forget(id),
        }
        Ok(())
    }

    /// A number of the store.
    pub(crate) async fn number(&self, key: Vec<u8>) -> Result<u64, StoreError> {
        let get = Txn::of(Op::get(key));
        let answer = self.members.read(get).await.map_err(Fault::of_read)?;
        match answer.first().and_then(|found| found.value.try_into().ok()) {
            Some(bytes) => Ok(u64::from_be_bytes(bytes)),
            None => Err(self.gone()),
        }
    }

    fn gone(&self) -> StoreError {
        let text = format!("{}: a part of the store is gone: it was emptied", self.target);
        StoreError::new(StoreErrorKind::Damaged, text)
    }

    pub(crate) async fn floor(&self) -> Result<Floor, StoreError> {
        let floor = self.number(self.layout.floor()).await?;
        Ok(Floor::at(Timestamp::from_millis(floor)))
    }

    pub(crate) async fn raise_floor(&self, to: Floor) -> Result<(), StoreError> {
        let (key, floor) = (self.layout.floor(), to.time().as_millis().to_be_bytes());
        let txn = Txn {
            when: vec![Compare::value(key.clone(), Is::Less, floor)],
            then: vec![Op::put(key.clone(), floor)],
            otherwise: vec![Op::get(key)],
        };
        // Twice is as good as once.
        let answer = self.members.read(txn).await?;
        if answer.succeeded || answer.first().is_some() { Ok(()) } else { Err(self.gone()) }
    }

    pub(crate) async fn count(&self, state: Option<StateKind>) -> Result<u64, StoreError> {
        let (key, range_end) = match state {
            Some(state) => self.layout.entries(state, u64::MAX),
            None => (self.layout.records(), end_of(&self.layout.records())),
        };
        let range = Range { key, range_end, count_only: true, ..Range::default() };
        let count = |client: Client| {
            let range = range.clone();
            async move { client.range(range).await }
        };
        let answer = self.members.call(count, true).await.map_err(Fault::of_read)?;
        Ok(u64::try_from(answer.count).unwrap_or_default())
    }

    /// Makes this cluster the store's own.
    pub(crate) async fn settle_in(&self) -> Result<(), StoreError> {
        let (key, before) = (self.layout.store(), self.facts.write());
        let after = Facts { cluster: self.cluster, ..self.facts.clone() }.write();
        let txn = Txn {
            when: vec![Compare::value(key.clone(), Is::Equal, before)],
            then: vec![Op::put(key.clone(), after.clone())],
            otherwise: vec![Op::get(key)],
        };
        // Twice is as good as once.
        let answer = self.members.read(txn).await?;
        if answer.succeeded || answer.first().is_some_and(|found| found.value == after) {
            return Ok(());
        }
        Err(self.gone())
    }

    /// Lets etcd forget what was replaced before the last call of this.
    pub(crate) async fn reclaim(&self) -> Result<(), StoreError> {
        if !self.target.compact {
            return Ok(());
        }
        let get = Txn::of(Op::get(self.layout.store()));
        let now = self.members.read(get).await.map_err(Fault::of_read)?.revision();
        let until = self.forget_until.swap(now, Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let compact = |client: Client| async move {
            match client.compact(until).await {
                // Somebody else has done it.
                Err(status) if status.message().contains("compacted") => Ok(()),
                other => other.map(drop),
            }
        };
        self.members.call(compact, true).await.map_err(Fault::of_read)
    }
}

#[cfg(test)]
mod tests;
