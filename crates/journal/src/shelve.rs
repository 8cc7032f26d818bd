//! Moving old tombstones from the log to shelves, and keeping shelves few.
//!
//! A shelf is written and synced beside what it will replace; then the writer shows it between two
//! batches, then the list is written, and only then goes what it replaces: keys from the index,
//! older shelves from the disk. A crash in between leaves tombstones in two places, never in none.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use onlyonce_core::{KeyId, Secret, State, StateKind};
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::entry::{self, Entry};
use crate::error::JournalError;
use crate::index::Slot;
use crate::journal::{Journal, told};
use crate::label;
use crate::shared::{self, RECORDS_AT_ONCE, Shared};
use crate::shelf::{self, Entries, Found, Shelf};
use crate::shelf_builder::Builder;
use crate::shelves::{self, Place, Shelves};
use crate::writer::{Change, Written};

/// Tombstones that are moved at once: this bounds the memory that it takes.
const AT_ONCE: usize = 1 << 20;
/// More shelves than this are merged: each is asked for every key that the index does not have.
const SHELVES_MAX: usize = 8;
/// Deletions that a shelf may miss while it is made; with more, it is made again later.
const MEANWHILE_MAX: usize = 100_000;

/// A change of the shelves there are.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    pub(crate) new: Option<Arc<Shelf>>,
    pub(crate) without: Vec<u64>,
}

/// A shelf that was made of the log, and what is on it.
pub(crate) struct Made {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) moved: Vec<(KeyId, Slot)>,
    is_all: bool,
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
        let mut meanwhile = self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = meanwhile.as_mut() {
            known.push((id, revision));
            if MEANWHILE_MAX < known.len() {
                *meanwhile = None;
            }
        }
    }

    fn moved(&self) -> MutexGuard<'_, Vec<(KeyId, Slot)>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_meanwhile(&self) {
        let mut meanwhile = self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
        *meanwhile = Some(Vec::new());
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

    fn go_on(&self) -> Result<(), StoreError> {
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
        let meanwhile = shared.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(shelf) = &self.new {
            let Some(deleted) = meanwhile else { return Written::Raced };
            for (id, revision) in deleted {
                match shelf.find(id) {
                    Ok(Some(found)) if found.record.revision.get() <= revision => {
                        shelf.set_gone(found.ordinal);
                    }
                    Ok(_) => {}
                    Err(_) => return Written::Raced,
                }
            }
        }
        shared.set_shelves(shared.shelves().with(self.new.clone(), &self.without));
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
        let made = self.on_mover(move |shared| make(shared, &looked_at, until)).await;
        let Made { shelf, moved, is_all } = match made {
            Ok(Some(made)) => made,
            Ok(None) => return Ok(false),
            Err(error) => {
                self.shared.not_moved(&segments);
                return Err(error);
            }
        };
        let installed = self.install(Install { new: Some(shelf), without: Vec::new() }).await;
        if installed != Ok(true) || !is_all {
            self.shared.not_moved(&segments);
        }
        if !installed? {
            return Ok(false);
        }
        self.shared.moved().extend(moved);
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

fn failed(shared: &Shared, name: &str, error: &std::io::Error) -> StoreError {
    let place = shared.disk.place(name);
    StoreError::new(StoreErrorKind::NotApplied, JournalError::io(place, error).to_string())
}

fn damaged(error: JournalError) -> StoreError {
    StoreError::new(StoreErrorKind::Damaged, error.to_string())
}

/// Makes a shelf of the tombstones with revisions up to `until` in these segments.
pub(crate) fn make(
    shared: &Shared,
    segments: &[(u32, u64)],
    until: u64,
) -> Result<Option<Made>, StoreError> {
    shared.note_meanwhile();
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
    let number = shared.next_shelf.fetch_add(1, Ordering::Relaxed);
    let io = |error: std::io::Error| failed(shared, &shelf::name(number), &error);
    let made = (|| {
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
        Ok(Made { shelf: Arc::new(shelf), moved, is_all })
    })();
    if made.is_err() {
        let _ = shared.disk.remove(&shelf::name(number));
    }
    made.map(Some)
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

/// The shelves that should be one, if any should. What is damaged stays as it is: nobody can say
/// what a shelf in its place would have to hold.
fn to_merge(shelves: &Shelves) -> Option<Vec<Arc<Shelf>>> {
    let list: Vec<&Arc<Shelf>> =
        shelves.list.iter().filter(|shelf| shelf.damage().is_none()).collect();
    // Half of it is enough to pay for writing the rest again.
    if let Some(shelf) = list.iter().find(|it| it.living() <= it.entries / 2) {
        return Some(vec![Arc::clone(shelf)]);
    }
    if list.len() <= SHELVES_MAX {
        return None;
    }
    // Neighbours in time: what dies together stays together.
    let pairs = list.windows(2);
    let smallest =
        pairs.min_by_key(|pair| pair.iter().map(|it| u64::from(it.living())).sum::<u64>());
    smallest.map(|pair| pair.iter().map(|shelf| Arc::clone(shelf)).collect())
}

/// Makes one shelf of what counts on several. `None` if nothing does.
pub(crate) fn merged(
    shared: &Shared,
    inputs: &[Arc<Shelf>],
) -> Result<Option<Arc<Shelf>>, StoreError> {
    shared.note_meanwhile();
    let room: u64 = inputs.iter().map(|shelf| u64::from(shelf.living())).sum();
    if room == 0 {
        return Ok(None);
    }
    let number = shared.next_shelf.fetch_add(1, Ordering::Relaxed);
    let io = |error: std::io::Error| failed(shared, &shelf::name(number), &error);
    let made = (|| {
        let mut builder = Builder::new(&*shared.disk, number, room).map_err(io)?;
        let walks = inputs.iter().map(|shelf| Walk::new(shelf));
        let mut walks = walks.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        let mut done = 0;
        while let Some(id) = walks.iter().filter_map(|it| Some(it.next.as_ref()?.id)).min() {
            done += 1;
            shared::give_way(done, RECORDS_AT_ONCE);
            let mut newest: Option<Found> = None;
            for walk in walks.iter_mut().filter(|it| it.next.as_ref().is_some_and(|it| it.id == id))
            {
                let found = walk.step().map_err(damaged)?;
                let revision = |it: &Option<Found>| it.as_ref().map(|it| it.record.revision);
                if revision(&newest) < revision(&found) {
                    newest = found;
                }
            }
            if let Some(Found { id, payload, record, .. }) = &newest {
                let due = crate::segment::due(record);
                builder.add(*id, payload, record.revision.get(), due).map_err(io)?;
            }
            shared.go_on()?;
        }
        if builder.entries() == 0 {
            return Ok(None);
        }
        builder.finish().map_err(io)?;
        let shelf = Shelf::open(&*shared.disk, number, &[]).map_err(damaged)?;
        Ok(Some(Arc::new(shelf)))
    })();
    if !matches!(made, Ok(Some(_))) {
        let _ = shared.disk.remove(&shelf::name(number));
    }
    made
}

/// What counts on a shelf, in the order of keys.
struct Walk<'a> {
    shelf: &'a Shelf,
    block: usize,
    entries: Option<Entries<'a>>,
    next: Option<Found>,
}

impl<'a> Walk<'a> {
    fn new(shelf: &'a Shelf) -> Result<Self, JournalError> {
        let mut walk = Self { shelf, block: 0, entries: None, next: None };
        walk.step()?;
        Ok(walk)
    }

    /// The present one; goes on to the next. A block that cannot be read is given up.
    fn step(&mut self) -> Result<Option<Found>, JournalError> {
        let next = self.read_on().inspect_err(|error| {
            let block = if self.entries.is_some() { self.block - 1 } else { self.block };
            self.shelf.give_up(block, error);
        })?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn read_on(&mut self) -> Result<Option<Found>, JournalError> {
        loop {
            if let Some(entries) = &mut self.entries {
                match entries.next_found()? {
                    Some(found) if self.shelf.is_gone(found.ordinal) => continue,
                    Some(found) => return Ok(Some(found)),
                    None => self.entries = None,
                }
            } else if self.block < self.shelf.blocks() {
                self.entries = Some(self.shelf.block(self.block)?);
                self.block += 1;
            } else {
                return Ok(None);
            }
        }
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
    let unlisted = |number: &u64| listed.iter().all(|it| it.number != *number);
    for number in shelves::numbers(disk).unwrap_or_default().into_iter().filter(unlisted) {
        // If not now, then when the journal is opened.
        let _ = disk.remove(&shelf::name(number));
    }
    Ok(())
}
