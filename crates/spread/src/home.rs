//! Where a key is looked for, and how it moves: everything that is done under one map.
//!
//! While keys move, a key lives at its old home until a forward stands there; whoever wants to
//! change it carries it first. A copy at the new home counts for nothing before that. So that each
//! of two nodes may have the map of before, or that of the move, or the one after it: what they do
//! to a key at the same place is ordered by swaps, and no two of them use different places, since
//! a node with the map of before meets the forward, and with the one after it every key has one.

use std::collections::BTreeMap;
use std::sync::Arc;

use onlyonce_core::{KeyId, Record, Revision};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{Store, StoreError, StoreErrorKind, Swap};

use crate::forward::{forward, version_of};
use crate::map::{Map, Number};

/// How often a step may lose against others before it is given up.
const CONFLICTS_MAX: usize = 16;

/// What came of a call under a map.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub(crate) enum Turn<T> {
    /// It is done.
    Done(T),
    /// Nothing was done: a forward shows that there is a map of this version.
    Old(u64),
}

/// The members by their numbers.
pub(crate) type Members = BTreeMap<Number, Arc<dyn Store>>;

/// The members under a map.
pub(crate) struct View<'a> {
    pub(crate) map: &'a Map,
    pub(crate) members: &'a Members,
}

/// What stands at a place.
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
enum Seen {
    Record(Record),
    /// Nothing, or a forward of an earlier move, which says nothing any more.
    Vacant(Option<Revision>),
    /// The forward of this move.
    Forwarded,
    Newer(u64),
}

impl View<'_> {
    /// The member of this number.
    pub(crate) fn member(&self, number: Number) -> Result<&dyn Store, StoreError> {
        member(self.members, number)
    }

    /// That all homes of a key are named here, before anything is done with it: a forward alone
    /// would be of no use to anybody.
    fn named(&self, id: KeyId) -> Result<(), StoreError> {
        let homes = [Some(self.map.home(id)), self.map.old_home(id)];
        homes.into_iter().flatten().try_for_each(|home| self.member(home).map(drop))
    }

    pub(crate) async fn get(&self, id: KeyId) -> Result<Turn<Option<Record>>, StoreError> {
        self.named(id)?;
        if let Some(old) = self.map.old_home(id) {
            match self.seen(old, id).await? {
                Seen::Record(record) => return Ok(Turn::Done(Some(record))),
                Seen::Newer(version) => return Ok(Turn::Old(version)),
                // With no record here it may be one that was made where nobody looks here any more.
                Seen::Forwarded | Seen::Vacant(_) => {}
            }
        }
        Ok(match self.seen(self.map.home(id), id).await? {
            Seen::Record(record) => Turn::Done(Some(record)),
            Seen::Newer(version) => Turn::Old(version),
            Seen::Forwarded | Seen::Vacant(_) => Turn::Done(None),
        })
    }

    pub(crate) async fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Turn<Swap>, StoreError> {
        self.named(id)?;
        if let Some(old) = self.map.old_home(id) {
            match self.leave(old, id, Some(expected)).await.map_err(not_begun)? {
                Left::Moved | Left::Before => {}
                Left::Newer(version) => return Ok(Turn::Old(version)),
                Left::Stays(record) => return Ok(Turn::Done(Swap::Conflict(Some(record)))),
                Left::Twice => return Err(two_records(id)),
            }
        }
        let (home, mut cleared) = (self.map.home(id), false);
        loop {
            let swap = self.member(home)?.swap(id, expected, next.clone()).await?;
            let Swap::Conflict(found) = swap else { return Ok(Turn::Done(Swap::Done)) };
            match self.what(found, false) {
                Seen::Newer(version) => return Ok(Turn::Old(version)),
                Seen::Record(record) => return Ok(Turn::Done(Swap::Conflict(Some(record)))),
                Seen::Vacant(Some(forward)) if expected.is_none() && !cleared => {
                    self.member(home)?.swap(id, Some(forward), None).await?;
                    cleared = true;
                }
                Seen::Forwarded | Seen::Vacant(_) if expected.is_none() => return Err(busy(id)),
                Seen::Forwarded | Seen::Vacant(_) => return Ok(Turn::Done(Swap::Conflict(None))),
            }
        }
    }

    /// Carries a key to its new home, if it has a record at the old one.
    pub(crate) async fn carry(&self, id: KeyId) -> Result<Turn<Carried>, StoreError> {
        let Some(old) = self.map.old_home(id) else { return Ok(Turn::Done(Carried::Not)) };
        Ok(match self.leave(old, id, None).await? {
            Left::Newer(version) => Turn::Old(version),
            Left::Moved => Turn::Done(Carried::Moved),
            Left::Before | Left::Stays(_) => Turn::Done(Carried::Not),
            Left::Twice => Turn::Done(Carried::Twice),
        })
    }

    /// The records of a key that has one at its old home and another at its new one, which is no
    /// copy on its way: the old one first.
    pub(crate) async fn both(&self, id: KeyId) -> Result<Option<[Record; 2]>, StoreError> {
        let Some(old) = self.map.old_home(id) else { return Ok(None) };
        let (there, here) = (self.seen(old, id).await?, self.seen(self.map.home(id), id).await?);
        let (Seen::Record(there), Seen::Record(here)) = (there, here) else { return Ok(None) };
        let is_copy = here == there || here.revision < there.revision;
        Ok((!is_copy).then_some([there, here]))
    }

    /// Puts `kept` at the key's new home, and the forward at its old one, if these stand there.
    pub(crate) async fn choose(
        &self,
        id: KeyId,
        [there, here]: &[Record; 2],
        kept: Record,
    ) -> Result<(), StoreError> {
        let changed =
            || refused(format!("key {id} was changed meanwhile: look at it again")).of_key();
        let (Some(old), home) = (self.map.old_home(id), self.map.home(id)) else {
            return Err(changed());
        };
        let highest = there.revision.max(here.revision);
        let forward = forward(self.map.version(), Some(there.revision)).ok_or_else(|| busy(id))?;
        if kept.revision <= highest {
            return Err(refused(format!("key {id}: what is kept must be newer than both")));
        }
        // What is replaced first does not come back, so the other one is looked at before.
        match self.seen(old, id).await? {
            Seen::Record(stands) if stands.revision == there.revision => {}
            Seen::Record(_) | Seen::Vacant(_) | Seen::Forwarded | Seen::Newer(_) => {
                return Err(changed());
            }
        }
        failpoint!("spread.choose.before", id);
        if self.member(home)?.swap(id, Some(here.revision), Some(kept)).await? != Swap::Done {
            return Err(changed());
        }
        // Cut off here, the key has two records still, and the choice is said again.
        failpoint!("spread.choose.between", id);
        match self.member(old)?.swap(id, Some(there.revision), Some(forward)).await {
            Ok(Swap::Done) => {
                failpoint!("spread.choose.after", id);
                Ok(())
            }
            Ok(Swap::Conflict(_)) => Err(half_chosen(id, home, old, "it was changed meanwhile")),
            Err(error) => Err(half_chosen(id, home, old, &error.to_string())),
        }
    }

    /// Puts the forward at a key's old home, and first its record at the new one. With an expected
    /// revision a record that has another one is left where it is.
    async fn leave(
        &self,
        old: Number,
        id: KeyId,
        expected: Option<Option<Revision>>,
    ) -> Result<Left, StoreError> {
        for _ in 0..CONFLICTS_MAX {
            let before = match self.seen(old, id).await? {
                Seen::Newer(version) => return Ok(Left::Newer(version)),
                Seen::Forwarded => return Ok(Left::Before),
                Seen::Vacant(before) => before,
                Seen::Record(record) => {
                    if expected.is_some_and(|expected| expected != Some(record.revision)) {
                        return Ok(Left::Stays(record));
                    }
                    failpoint!("spread.copy.before", record);
                    match self.copy(id, &record).await? {
                        Copied::There => Some(record.revision),
                        Copied::Newer(version) => return Ok(Left::Newer(version)),
                        // Or it has moved meanwhile, and gone on there.
                        Copied::Hindered => match self.seen(old, id).await? {
                            Seen::Record(again) if again.revision == record.revision => {
                                return Ok(Left::Twice);
                            }
                            Seen::Record(_)
                            | Seen::Vacant(_)
                            | Seen::Forwarded
                            | Seen::Newer(_) => continue,
                        },
                    }
                }
            };
            let forward = forward(self.map.version(), before).ok_or_else(|| busy(id))?;
            failpoint!("spread.forward.before", before);
            match self.member(old)?.swap(id, before, Some(forward)).await? {
                Swap::Done => {
                    failpoint!("spread.forward.after", before);
                    return Ok(Left::Moved);
                }
                Swap::Conflict(_) => {}
            }
        }
        Err(busy(id))
    }

    /// Puts a copy of the record at the key's new home, in the place of an older one: somebody may
    /// have ended between a copy and its forward.
    async fn copy(&self, id: KeyId, record: &Record) -> Result<Copied, StoreError> {
        let (home, mut expected) = (self.member(self.map.home(id))?, None);
        for _ in 0..CONFLICTS_MAX {
            let swap = home.swap(id, expected, Some(record.clone())).await?;
            let Swap::Conflict(found) = swap else { return Ok(Copied::There) };
            match self.what(found, false) {
                Seen::Newer(version) => return Ok(Copied::Newer(version)),
                Seen::Record(found) if found == *record => return Ok(Copied::There),
                Seen::Record(found) if found.revision < record.revision => {
                    expected = Some(found.revision);
                }
                Seen::Record(_) => return Ok(Copied::Hindered),
                Seen::Forwarded | Seen::Vacant(None) => expected = None,
                Seen::Vacant(Some(forward)) => {
                    home.swap(id, Some(forward), None).await?;
                    expected = None;
                }
            }
        }
        Err(busy(id))
    }

    async fn seen(&self, at: Number, id: KeyId) -> Result<Seen, StoreError> {
        let found = self.member(at)?.get(id).await?;
        Ok(self.what(found, self.map.old_home(id) == Some(at)))
    }

    fn what(&self, found: Option<Record>, is_old_home: bool) -> Seen {
        let Some(record) = found else { return Seen::Vacant(None) };
        match version_of(&record) {
            None => Seen::Record(record),
            Some(version) if self.map.version() < version => Seen::Newer(version),
            Some(version) if is_old_home && version == self.map.version() => Seen::Forwarded,
            Some(_) => Seen::Vacant(Some(record.revision)),
        }
    }
}

/// What became of a key at its old home.
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
enum Left {
    /// It moved just now.
    Moved,
    /// It had moved before.
    Before,
    /// It is not the record that was expected.
    Stays(Record),
    /// It has one at each home, and nobody can know which counts.
    Twice,
    Newer(u64),
}

/// What became of a key that was to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Moved,
    /// There was nothing to carry.
    Not,
    /// It has a record at each home.
    Twice,
}

enum Copied {
    There,
    /// What is there is not older.
    Hindered,
    Newer(u64),
}

/// The member of this number.
pub(crate) fn member(members: &Members, number: Number) -> Result<&dyn Store, StoreError> {
    let store = members.get(&number).map(|store| &**store);
    store.ok_or_else(|| unnamed(number))
}

/// That a map has a member which this process was not started with.
pub(crate) fn unnamed(number: Number) -> StoreError {
    refused(format!(
        "member {number} has joined the set and is not named here: start again with a line for it"
    ))
}

pub(crate) fn refused(text: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::NotApplied, text)
}

/// Whatever became of the move of a key, the swap that asked for it was not begun.
fn not_begun(error: StoreError) -> StoreError {
    match error.kind() {
        StoreErrorKind::Unknown => refused(format!("while the key was moved: {error}")),
        StoreErrorKind::NotApplied
        | StoreErrorKind::Full
        | StoreErrorKind::Damaged
        | StoreErrorKind::Poisoned => error,
    }
}

/// A choice that was made in the new home alone. Its kind is [`StoreErrorKind::Unknown`], since a
/// part of it took place.
fn half_chosen(id: KeyId, home: Number, old: Number, why: &str) -> StoreError {
    let text = format!(
        "key {id}: the record of member {home} was replaced, and nothing says that the one of \
         member {old} was: look at it again, and say the choice again if there are two still: {why}"
    );
    StoreError::new(StoreErrorKind::Unknown, text)
}

fn busy(id: KeyId) -> StoreError {
    refused(format!("key {id} is being moved by others: ask again")).of_key()
}

pub(crate) fn two_records(id: KeyId) -> StoreError {
    refused(format!(
        "key {id} has a record at its old home and a newer one at its new home: `onlyonce store \
         choose` shows both, and lets somebody say which counts"
    ))
    .of_key()
}
