//! What readers and the writer share: the index, the open segments and shelves, and whether all is
//! well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::{Floor, KeyId, Record, Timestamp};
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::disk::Disk;
use crate::entry::{self, Entry, FRAME, Framed, Position};
use crate::error::JournalError;
use crate::index::{Index, Slot};
use crate::keeper::Prepared;
use crate::listing::{DueAt, Rest};
use crate::recover::{Recovered, Segment};
use crate::segment::{self, DueFrom, HEADER};
use crate::shelve::Meanwhile;
use crate::shelves::{Listed, Place, Shelves};

/// One read brings most records whole, in bytes.
const READ: u64 = 512;

/// Whoever works long in the background gives way after so many records that were read, each of
/// which costs a microsecond or two.
pub(crate) const RECORDS_AT_ONCE: usize = 64;
/// The same for entries that are read in their order.
pub(crate) const ENTRIES_AT_ONCE: usize = 256;
/// The same for keys that were looked up in memory.
pub(crate) const KEYS_AT_ONCE: usize = 1_024;
/// And for so long: callers' threads that wait for a core get one meanwhile.
const PAUSE: Duration = Duration::from_micros(100);

/// Lets callers' threads have the core now and then. `done` counts what was done so far.
pub(crate) fn give_way(done: usize, at_once: usize) {
    if done.is_multiple_of(at_once) {
        thread::sleep(PAUSE);
    }
}

/// What is called when the journal stops trusting its disk.
pub(crate) type OnPoison = Box<dyn FnOnce(&str) + Send>;

/// Where the newest entry of a key stands.
pub(crate) enum Newest {
    Log(Slot),
    Shelf(Arc<Shelves>, Place, Box<Record>),
    Nowhere(Arc<Shelves>),
}

/// What shelves had of a key when somebody asked for a change of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looked {
    /// The shelves that were looked at; `None` if the change has nothing to do with them.
    pub(crate) generation: Option<u64>,
    /// The tombstone that counts, and its revision.
    pub(crate) shelved: Option<(Place, u64)>,
    /// What counts no more once the change is made.
    pub(crate) gone: Vec<Place>,
}

/// A state of the journal that later changes do not touch.
pub(crate) struct Standing {
    pub(crate) segments: BTreeMap<u32, Segment>,
    /// Up to where the last of them is synced.
    pub(crate) until: Position,
    pub(crate) shelves: Arc<Shelves>,
    pub(crate) listed: Vec<Listed>,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Index,
    pub(crate) segments: RwLock<BTreeMap<u32, Segment>>,
    /// Up to where the last segment is synced. It changes its segment under the lock of `segments`.
    synced: AtomicU64,
    floor: AtomicU64,
    revision_max: AtomicU64,
    shelves: RwLock<Arc<Shelves>>,
    /// What has happened since a shelf was begun.
    pub(crate) meanwhile: Mutex<Option<Meanwhile>>,
    /// Tombstones that are on a shelf and leave the index once the list has it.
    pub(crate) moved: Mutex<Vec<(KeyId, Slot)>>,
    /// Whether the list of shelves on disk says less than what is known here.
    pub(crate) is_list_stale: AtomicBool,
    pub(crate) next_shelf: AtomicU64,
    /// The writer has shown or refused each shelf up to this one. One above it may still be listed,
    /// also if nobody waits for it any more.
    pub(crate) decided: AtomicU64,
    /// The latest time that somebody has named.
    pub(crate) latest: AtomicU64,
    /// Where the last search for what is due has ended.
    pub(crate) due_at: Mutex<DueAt>,
    /// What the latest listing has still to look at.
    pub(crate) listing: Mutex<Option<Rest>>,
    pub(crate) is_closing: AtomicBool,
    poison: OnceLock<String>,
    on_poison: Mutex<Vec<OnPoison>>,
    pub(crate) syncs: AtomicU64,
    pub(crate) entries: AtomicU64,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, recovered: Recovered) -> Self {
        let Recovered { index, segments, floor, revision_max, end, shelves, .. } = recovered;
        let next_shelf = recovered.next_shelf;
        Self {
            disk,
            index,
            segments: RwLock::new(segments),
            synced: AtomicU64::new(end.offset),
            floor: AtomicU64::new(floor.time().as_millis()),
            revision_max: AtomicU64::new(revision_max),
            shelves: RwLock::new(Arc::new(shelves)),
            meanwhile: Mutex::default(),
            moved: Mutex::default(),
            // What the log says of shelves may be more than the list has.
            is_list_stale: AtomicBool::new(recovered.is_list_stale),
            next_shelf: AtomicU64::new(next_shelf),
            decided: AtomicU64::new(next_shelf.saturating_sub(1)),
            latest: AtomicU64::new(0),
            due_at: Mutex::default(),
            listing: Mutex::default(),
            is_closing: AtomicBool::new(false),
            poison: OnceLock::new(),
            on_poison: Mutex::default(),
            syncs: AtomicU64::new(0),
            entries: AtomicU64::new(0),
        }
    }

    pub(crate) fn floor(&self) -> Floor {
        Floor::at(Timestamp::from_millis(self.floor.load(Ordering::Acquire)))
    }

    pub(crate) fn raise_floor(&self, to: Floor) {
        self.floor.fetch_max(to.time().as_millis(), Ordering::AcqRel);
    }

    pub(crate) fn revision_max(&self) -> u64 {
        self.revision_max.load(Ordering::Acquire)
    }

    pub(crate) fn raise_revision(&self, to: u64) {
        self.revision_max.fetch_max(to, Ordering::AcqRel);
    }

    pub(crate) fn shelves(&self) -> Arc<Shelves> {
        Arc::clone(&self.shelves.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_shelves(&self, shelves: Shelves) {
        *self.shelves.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shelves);
    }

    /// Where the newest synced entry of a key stands.
    pub(crate) fn newest(&self, id: KeyId) -> Result<Newest, StoreError> {
        loop {
            if let Some(slot) = self.index.get(id) {
                return Ok(Newest::Log(slot));
            }
            // Loaded after the index was asked: what leaves it is on a shelf before.
            let shelves = self.shelves();
            let found = shelves.find(id);
            let is_same =
                || self.index.get(id).is_none() && self.shelves().generation == shelves.generation;
            match found {
                Ok(Some((place, record))) => {
                    return Ok(Newest::Shelf(shelves, place, Box::new(record)));
                }
                Ok(None) if is_same() => return Ok(Newest::Nowhere(shelves)),
                Err(error) if is_same() => return Err(on_shelf(&error)),
                // It came back to the log, or the shelves changed.
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// The newest synced record of a key.
    pub(crate) fn read(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        loop {
            let slot = match self.newest(id)? {
                Newest::Log(slot) => slot,
                Newest::Shelf(_, _, record) => return Ok(Some(*record)),
                Newest::Nowhere(_) => return Ok(None),
            };
            let read = self.read_slot(id, slot);
            // Its segment may be gone because the entry was copied or replaced meanwhile.
            if read.is_ok() || self.index.get(id) == Some(slot) {
                return read.map(Some);
            }
        }
    }

    /// The revision of a key, and what a change of it has to do with shelves.
    pub(crate) fn look(
        &self,
        id: KeyId,
        is_deletion: bool,
    ) -> Result<(Option<u64>, Looked), StoreError> {
        let (shelves, revision, shelved) = match self.newest(id)? {
            Newest::Log(slot) if is_deletion => (self.shelves(), Some(slot.revision), None),
            // Whatever a shelf has of it is older, and stays behind what is in the log.
            Newest::Log(slot) => return Ok((Some(slot.revision), Looked::default())),
            Newest::Shelf(shelves, place, record) => {
                let revision = record.revision.get();
                (shelves, Some(revision), Some((place, revision)))
            }
            Newest::Nowhere(shelves) => (shelves, None, None),
        };
        // A deletion must leave nothing behind that would come back.
        let gone = match (revision, shelved) {
            (Some(until), _) if is_deletion => {
                shelves.places(id, until).map_err(|error| on_shelf(&error))?
            }
            (_, Some((place, _))) => vec![place],
            (Some(_) | None, None) => Vec::new(),
        };
        Ok((revision, Looked { generation: Some(shelves.generation), shelved, gone }))
    }

    pub(crate) fn read_slot(&self, id: KeyId, slot: Slot) -> Result<Record, StoreError> {
        let payload = self.payload(slot)?;
        match entry::parse(payload) {
            Ok(Entry::Record(found, record))
                if found == id && record.revision.get() == slot.revision =>
            {
                Ok(record)
            }
            Ok(_) => Err(self.damaged(slot, "another entry stands there")),
            Err(error) => Err(self.damaged(slot, &error.to_string())),
        }
    }

    fn damaged(&self, slot: Slot, why: &str) -> StoreError {
        let place = self.disk.place(&segment::name(slot.segment.into()));
        let text = format!("{} at byte {}: {why}", place.display(), slot.offset);
        StoreError::new(StoreErrorKind::Damaged, text)
    }

    /// The bytes of an entry.
    pub(crate) fn payload(&self, slot: Slot) -> Result<Bytes, StoreError> {
        let Slot { segment, offset, .. } = slot;
        let found = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.get(&segment).cloned()
        };
        let Segment { medium, length, .. } =
            found.ok_or_else(|| self.damaged(slot, "no such segment"))?;
        let read = |length: u64| -> Result<Bytes, StoreError> {
            let mut bytes = vec![0; length as usize];
            let read = medium.read_at(&mut bytes, offset.into());
            read.map_err(|error| self.damaged(slot, &error.to_string()))?;
            Ok(Bytes::from(bytes))
        };
        let left = length.saturating_sub(offset.into());
        let mut bytes = read(left.min(READ))?;
        let frame = bytes.first_chunk::<FRAME>().copied().unwrap_or_default();
        let whole = entry::length(frame) as u64;
        if (bytes.len() as u64) < whole && whole <= left {
            bytes = read(whole)?;
        }
        match entry::framed(&bytes, segment.into(), offset.into()) {
            Framed::Whole(payload) => Ok(payload),
            Framed::Empty => Err(self.damaged(slot, "nothing stands there")),
            Framed::Broken(why) => Err(self.damaged(slot, why)),
        }
    }

    /// A new segment is being written.
    pub(crate) fn begin_segment(&self, number: u32, prepared: Prepared) {
        let Prepared { medium, length, .. } = prepared;
        let segment = Segment { medium, length, due_from: DueFrom::NEVER };
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(number, segment);
        self.synced_to(HEADER as u64);
    }

    /// The last segment is synced up to this offset.
    pub(crate) fn synced_to(&self, offset: u64) {
        self.synced.store(offset, Ordering::Release);
    }

    /// All that has been confirmed by now.
    pub(crate) fn standing(&self) -> Standing {
        // No segment goes while this is held, so what left the log is on these shelves.
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let shelves = self.shelves();
        // Before the end: what is deleted later is in the log that is copied.
        let listed = shelves.listed();
        let segment = segments.keys().next_back().copied().unwrap_or_default().into();
        let offset = self.synced.load(Ordering::Acquire);
        let until = Position { segment, offset };
        Standing { segments: segments.clone(), until, shelves, listed }
    }

    /// A record in this segment may be due from then on.
    pub(crate) fn due_from(&self, number: u32, due: DueFrom) {
        let known = |segments: &BTreeMap<u32, Segment>| {
            segments.get(&number).is_some_and(|it| it.due_from.min(due) == it.due_from)
        };
        if known(&self.segments.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = segments.get_mut(&number) {
            segment.due_from = segment.due_from.min(due);
        }
    }

    /// Nothing is written any more: the disk has failed in a way that leaves nobody knowing what
    /// is on it.
    pub(crate) fn poison(&self, text: String) {
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
        self.on_poison.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn on_shelf(error: &JournalError) -> StoreError {
    StoreError::new(StoreErrorKind::Damaged, error.to_string())
}
