//! Moving old tombstones from the log to shelves.
//!
//! A shelf is written and synced beside what it will replace; then the writer shows it between two
//! batches, then the list is written, and only then goes what it replaces: keys from the index,
//! older shelves from the disk. A crash in between leaves tombstones in two places, never in none.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use onlyonce_core::{KeyId, Secret, State, StateKind};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::entry::{self, Entry};
use crate::error::JournalError;
use crate::index::Slot;
use crate::journal::{Journal, told};
use crate::label;
use crate::merge::{merged, to_merge};
use crate::shared::{self, RECORDS_AT_ONCE, Shared};
use crate::shelf::{self, Shelf};
use crate::shelf_builder::Builder;
use crate::shelves::{self, Place};
use crate::writer::{Change, Written};

/// Tombstones that are moved at once: this bounds the memory that it takes.
const AT_ONCE: usize = 1 << 20;
/// Deletions that a shelf may miss while it is made; with more, it is made again later.
const MEANWHILE_MAX: usize = 100_000;

/// A change of the shelves there are.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    pub(crate) new: Option<Arc<Shelf>>,
    pub(crate) without: Vec<u64>,
}

/// A shelf that was made of the log.
pub(crate) struct Made {
    pub(crate) shelf: Arc<Shelf>,
    is_all: bool,
}

/// What has happened since a shelf was begun.
pub(crate) struct Meanwhile {
    shelf: u64,
    /// What was deleted, with its revision: the shelf may have it.
    deleted: Vec<(KeyId, u64)>,
    /// What is on it and leaves the index once it is listed.
    moved: Vec<(KeyId, Slot)>,
}

/// Segments that are looked at for tombstones. Nothing in them was moved, unless somebody says so:
/// whoever asked may stop waiting at any time.
struct Moving {
    shared: Arc<Shared>,
    segments: Vec<(u32, u64)>,
    is_done: bool,
}

impl Drop for Moving {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.not_moved(&self.segments);
        }
    }
}

impl Shared {
    /// What stands in these places counts no more. A shelf that is being made may have it too.
    pub(crate) fn is_gone(&self, id: KeyId, revision: u64, places: &[Place]) {
        let shelves = self.shelves();
        for place in places {
            if shelves.set_gone(*place) {
                self.is_list_stale.store(true, Ordering::Release);
            }
        }
        let mut meanwhile = self.meanwhile();
        if let Some(known) = meanwhile.as_mut() {
            known.deleted.push((id, revision));
            if MEANWHILE_MAX < known.deleted.len() {
                *meanwhile = None;
            }
        }
    }

    fn moved(&self) -> MutexGuard<'_, Vec<(KeyId, Slot)>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meanwhile(&self) -> MutexGuard<'_, Option<Meanwhile>> {
        self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a shelf with this number. The one before it is not shown any more.
    pub(crate) fn begin_shelf(&self) -> u64 {
        let shelf = self.next_shelf.fetch_add(1, Ordering::Relaxed);
        *self.meanwhile() = Some(Meanwhile { shelf, deleted: Vec::new(), moved: Vec::new() });
        shelf
    }

    /// There will be no shelf with this number.
    pub(crate) fn give_up_shelf(&self, number: u64) {
        *self.meanwhile() = None;
        // If not now, then with a later list.
        let _ = self.disk.remove(&shelf::name(number));
    }

    /// The segments that hold tombstones of revisions up to `until` and have done so for long
    /// enough to look, each with the revision from which on. They are taken for moved.
    fn begin_moving(&self, until: u64, patience: u64) -> Vec<(u32, u64)> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let waits = segments
            .iter_mut()
            .filter(|(_, segment)| segment.due_from.tombstone.saturating_add(patience) <= until);
        waits
            .map(|(number, segment)| {
                let from = std::mem::replace(&mut segment.due_from.tombstone, until + 1);
                (*number, from)
            })
            .collect()
    }

    fn not_moved(&self, segments: &[(u32, u64)]) {
        let mut open = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        for (number, from) in segments {
            if let Some(segment) = open.get_mut(number) {
                segment.due_from.tombstone = segment.due_from.tombstone.min(*from);
            }
        }
    }

    pub(crate) fn go_on(&self) -> Result<(), StoreError> {
        if let Some(error) = self.poisoned() {
            return Err(error);
        }
        if self.is_closing.load(Ordering::Relaxed) {
            return Err(StoreError::new(StoreErrorKind::NotApplied, "the journal is closed"));
        }
        Ok(())
    }
}

impl Install {
    /// Shows it. By the writer, so that nothing changes meanwhile.
    pub(crate) fn put(&self, shared: &Shared) -> Written {
        failpoint!("shelf.show.before", self);
        let written = self.show(shared);
        failpoint!("shelf.show.after", self);
        if let Some(shelf) = &self.new {
            shared.decided.fetch_max(shelf.number, Ordering::AcqRel);
        }
        written
    }

    fn show(&self, shared: &Shared) -> Written {
        let shelves = shared.shelves();
        let is_there = |number: &u64| shelves.list.iter().any(|it| it.number == *number);
        // Of what has taken their place more may be deleted than is known of this one.
        if !self.without.iter().all(is_there) {
            return Written::Raced;
        }
        if let Some(shelf) = &self.new {
            // Whoever made this one may have gone, and another one was begun.
            let known = shared.meanwhile().take_if(|it| it.shelf == shelf.number);
            let Some(meanwhile) = known else { return Written::Raced };
            for (id, revision) in meanwhile.deleted {
                match shelf.find(id) {
                    Ok(Some(found)) if found.record.revision.get() <= revision => {
                        shelf.set_gone(found.ordinal);
                    }
                    Ok(_) => {}
                    Err(_) => return Written::Raced,
                }
            }
            shared.moved().extend(meanwhile.moved);
        }
        shared.set_shelves(shelves.with(self.new.clone(), &self.without));
        shared.is_list_stale.store(true, Ordering::Release);
        Written::Done
    }
}

impl Journal {
    /// Moves tombstones that are old enough, and merges shelves.
    pub(crate) async fn shelve(&self) -> Result<(), StoreError> {
        // Nothing is made anew while what was made before is not in the list.
        self.write_list().await?;
        let (age, shared) = (self.shelve_after(), &self.shared);
        let latest = shared.latest.load(Ordering::Relaxed).max(shared.revision_max());
        if let Some(until) = latest.checked_sub(age) {
            // A look for a few that have just become old would cost as much as one for many.
            while self.shelve_some(until, age / 24).await? {}
        }
        while let Some(inputs) = to_merge(&shared.shelves()) {
            match self.merge(inputs.clone()).await {
                Ok(true) => {}
                Ok(false) => break,
                // Damage that was not known: from now on the others are merged without it.
                Err(_) if inputs.iter().any(|shelf| shelf.damage().is_some()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether there may be more.
    async fn shelve_some(&self, until: u64, patience: u64) -> Result<bool, StoreError> {
        let segments = self.shared.begin_moving(until, patience);
        if segments.is_empty() {
            return Ok(false);
        }
        let looked_at = segments.clone();
        let mut moving = Moving { shared: Arc::clone(&self.shared), segments, is_done: false };
        let made = self.on_mover(move |shared| make(shared, &looked_at, until)).await?;
        let Some(Made { shelf, is_all }) = made else {
            moving.is_done = true;
            return Ok(false);
        };
        if !self.install(Install { new: Some(shelf), without: Vec::new() }).await? {
            return Ok(false);
        }
        moving.is_done = is_all;
        drop(moving);
        self.write_list().await?;
        Ok(!is_all)
    }

    async fn merge(&self, inputs: Vec<Arc<Shelf>>) -> Result<bool, StoreError> {
        let without = inputs.iter().map(|shelf| shelf.number).collect();
        let new = self.on_mover(move |shared| merged(shared, &inputs)).await?;
        let installed = self.install(Install { new, without }).await?;
        if installed {
            self.write_list().await?;
        }
        Ok(installed)
    }

    /// `false` if too much has changed meanwhile.
    async fn install(&self, install: Install) -> Result<bool, StoreError> {
        let written = told(self.ask(Vec::new(), Change::Shelves(install))?).await?;
        Ok(written == Written::Done)
    }

    /// Writes the list of shelves if it says less than what is known; then what is on a shelf
    /// leaves the index.
    pub(crate) async fn write_list(&self) -> Result<(), StoreError> {
        let is_stale = self.shared.is_list_stale.load(Ordering::Acquire);
        if !is_stale && self.shared.moved().is_empty() {
            return Ok(());
        }
        let secret = self.secret().clone();
        self.on_mover(move |shared| {
            // Before the list is made: their shelves are in it then.
            let mut moved = std::mem::take(&mut *shared.moved());
            if let Err(error) = write_list(shared, &secret) {
                shared.moved().append(&mut moved);
                return Err(error);
            }
            moved.into_iter().for_each(|(id, slot)| shared.index.forget(id, slot));
            Ok(())
        })
        .await
    }
}

pub(crate) fn failed(shared: &Shared, name: &str, error: &std::io::Error) -> StoreError {
    let place = shared.disk.place(name);
    StoreError::new(StoreErrorKind::NotApplied, JournalError::io(place, error).to_string())
}

pub(crate) fn damaged(error: JournalError) -> StoreError {
    StoreError::new(StoreErrorKind::Damaged, error.to_string())
}

/// Makes a shelf of the tombstones with revisions up to `until` in these segments.
pub(crate) fn make(
    shared: &Shared,
    segments: &[(u32, u64)],
    until: u64,
) -> Result<Option<Made>, StoreError> {
    let number = shared.begin_shelf();
    let made = made_as(number, shared, segments, until);
    if !matches!(made, Ok(Some(_))) {
        shared.give_up_shelf(number);
    }
    made
}

fn made_as(
    number: u64,
    shared: &Shared,
    segments: &[(u32, u64)],
    until: u64,
) -> Result<Option<Made>, StoreError> {
    let is_old = |_: KeyId, slot: Slot| {
        let at = segments.binary_search_by_key(&slot.segment, |(number, _)| *number);
        slot.revision <= until && at.is_ok_and(|at| segments[at].1 <= slot.revision)
    };
    let shelves = shared.shelves();
    let (mut found, mut is_all) = (Vec::new(), true);
    for (_, mut some) in shared.index.select(0, is_old) {
        // Shards are ranges of keys in their order. Within one, it is read in the order of the log.
        if AT_ONCE <= found.len() && !some.is_empty() {
            is_all = false;
            break;
        }
        some.sort_unstable_by_key(|(_, slot)| (slot.segment, slot.offset));
        // In the log it can be read; on shelves it could not, beside a block that may have it too.
        some.retain(|(id, slot)| shared.is_tombstone(*slot) && !shelves.may_have_lost(*id));
        some.sort_unstable_by_key(|(id, _)| *id);
        found.extend(some);
        shared.go_on()?;
    }
    if found.is_empty() {
        return Ok(None);
    }
    let io = |error: std::io::Error| failed(shared, &shelf::name(number), &error);
    let mut builder = Builder::new(&*shared.disk, number, found.len() as u64).map_err(io)?;
    let mut moved = Vec::with_capacity(found.len());
    for (done, (id, slot)) in (1..).zip(found) {
        shared::give_way(done, RECORDS_AT_ONCE);
        if let Some((payload, due)) = shared.tombstone(id, slot) {
            builder.add(id, &payload, slot.revision, due).map_err(io)?;
            moved.push((id, slot));
        }
        shared.go_on()?;
    }
    builder.finish().map_err(io)?;
    let shelf = Shelf::open(&*shared.disk, number, &[]).map_err(damaged)?;
    if let Some(meanwhile) = shared.meanwhile().as_mut() {
        meanwhile.moved = moved;
    }
    Ok(Some(Made { shelf: Arc::new(shelf), is_all }))
}

impl Shared {
    /// The bytes of a tombstone in the log, and when it is due. `None` if something else stands
    /// there, or nothing that can be read: then it stays in the index, and whoever reads it hears
    /// why.
    fn tombstone(&self, id: KeyId, slot: Slot) -> Option<(bytes::Bytes, u64)> {
        let payload = self.payload(slot).ok()?;
        match entry::parse(payload.clone()) {
            Ok(Entry::Record(found, record))
                if found == id && record.revision.get() == slot.revision =>
            {
                match record.state {
                    State::Tombstone { forget_at, .. } => Some((payload, forget_at.as_millis())),
                    State::InFlight(_)
                    | State::Released { .. }
                    | State::Completed { .. }
                    | State::Unknown(_) => None,
                }
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether a tombstone seems to stand there: its first byte is read, and nothing checked.
    fn is_tombstone(&self, slot: Slot) -> bool {
        let mut first = [0; entry::FRAME + 1];
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let Some(medium) = segments.get(&slot.segment).map(|it| Arc::clone(&it.medium)) else {
            return false;
        };
        drop(segments);
        medium.read_at(&mut first, slot.offset.into()).is_ok()
            && first[entry::FRAME] & 0x0F == StateKind::Tombstone as u8
    }
}

/// Writes the list of shelves as it is known here, and removes files that are not in it.
fn write_list(shared: &Shared, secret: &Secret) -> Result<(), StoreError> {
    shared.go_on()?;
    let disk = &*shared.disk;
    let io = |error: std::io::Error| failed(shared, shelves::LIST_FILE, &error);
    if !label::has_shelves(disk).map_err(damaged)? {
        // The label says that there is a list, so an empty one comes first.
        shelves::write(disk, &[]).map_err(io)?;
        label::write(disk, secret, None, true).map_err(io)?;
    }
    shared.is_list_stale.store(false, Ordering::Release);
    // Before the list is made: what is shown later is kept.
    let decided = shared.decided.load(Ordering::Acquire);
    let listed = shared.shelves().listed();
    let prepared = shelves::prepare(disk, &listed);
    prepared.map_err(|error| {
        shared.is_list_stale.store(true, Ordering::Release);
        io(error)
    })?;
    if let Err(error) = shelves::put(disk) {
        let place = disk.place(shelves::LIST_FILE);
        shared.poison(format!("{} could not be written: {error}", place.display()));
        return shared.go_on();
    }
    let unlisted =
        |number: &u64| *number <= decided && listed.iter().all(|it| it.number != *number);
    for number in shelves::numbers(disk).unwrap_or_default().into_iter().filter(unlisted) {
        // If not now, then when the journal is opened.
        failpoint!("shelf.remove.before", number);
        let _ = disk.remove(&shelf::name(number));
        failpoint!("shelf.remove.after", number);
    }
    Ok(())
}
