//! Opening: from segments and shelves to the index, to the place where writing goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use onlyonce_core::{Floor, KeyId};

use crate::disk::{Disk, Medium};
use crate::entry::Position;
use crate::error::{JournalError, JournalErrorKind};
use crate::index::Index;
use crate::segment::{self, DueFrom, Fact, HEADER, Header, Scan, What};
use crate::shelf;
use crate::shelves::{self, Listed, Place, Shelves};
use crate::snapshot::{self, Snapshot};

/// A segment that is open for reading.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) length: u64,
    /// When time alone may first have something to do with a record in it.
    pub(crate) due_from: DueFrom,
}

/// What was found.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: BTreeMap<u32, Segment>,
    pub(crate) floor: Floor,
    pub(crate) revision_max: u64,
    /// Where writing goes on; everything before it is synced.
    pub(crate) end: Position,
    /// What was cut from the end because it was never confirmed, in bytes.
    pub(crate) cut: u64,
    pub(crate) shelves: Shelves,
    /// The number of the next shelf that is made.
    pub(crate) next_shelf: u64,
    /// Whether the log says more of shelves than their list does.
    pub(crate) is_list_stale: bool,
}

/// Reads all segments, cuts a torn tail, and makes everything that is served durable.
///
/// # Errors
/// Damage: what had been synced is not what is there. Nothing is changed then. A damaged block of a
/// shelf is no such error: its keys are known for ones that cannot be read.
pub(crate) fn recover(disk: &dyn Disk) -> Result<Recovered, JournalError> {
    let numbers = segment::numbers(disk)?;
    let Some((last, sealed)) = numbers.split_last() else {
        let text = "the journal has no segment";
        return Err(JournalError::new(JournalErrorKind::Damaged, disk.place(""), text));
    };
    let active = segment::scan(disk, *last)?;
    if active.proven_beyond_end() {
        let why = active.broken.unwrap_or("an entry is missing");
        let text = format!("{why}, in a place that was synced before");
        return Err(JournalError::damaged(disk.place(&segment::name(*last)), active.end, text));
    }
    let ends = ends(disk, sealed, &active.header)?;
    let snapshots: Vec<Snapshot> = sealed
        .iter()
        .zip(ends)
        .map(|(number, end)| sealed_snapshot(disk, *number, end))
        .collect::<Result<_, _>>()?;
    let listed = shelves::read(disk)?.unwrap_or_default();
    let shelves = shelves::open(disk, &listed)?;
    let next_shelf = shelves::numbers(disk)?.into_iter().max().unwrap_or_default() + 1;
    let mut build = Build::new(snapshots.iter().map(|it| it.facts.len()).sum(), shelves);
    for snapshot in snapshots {
        build.add(disk, snapshot)?;
    }
    let end = Position { segment: *last, offset: active.end };
    build.add(disk, Snapshot::of(&active))?;
    let is_list_stale = build.settle_shelves()?;
    // Only now that nothing refuses any more.
    let cut = settle_end(disk, &active)?;
    remove_leftovers(disk, &listed)?;
    let Build { index, segments, floor, revision_max, shelves, .. } = build;
    Ok(Recovered {
        index,
        segments,
        floor,
        revision_max,
        end,
        cut,
        shelves,
        next_shelf,
        is_list_stale,
    })
}

/// Where each sealed segment ends, from the header of the one after it.
pub(crate) fn ends(
    disk: &dyn Disk,
    sealed: &[u64],
    last: &Header,
) -> Result<Vec<u64>, JournalError> {
    let headers = sealed.iter().skip(1).map(|number| {
        let place = disk.place(&segment::name(*number));
        let mut bytes = [0; HEADER];
        let read = disk.open(&segment::name(*number)).and_then(|it| it.read_at(&mut bytes, 0));
        read.map_err(|error| JournalError::io(&place, &error))?;
        Header::parse(&bytes).map_err(|text| JournalError::damaged(&place, 0, text))
    });
    let mut headers = headers.collect::<Result<Vec<_>, _>>()?;
    headers.push(*last);
    let pairs = sealed.iter().zip(&headers);
    pairs
        .map(|(number, next)| {
            if next.previous.segment == *number {
                return Ok(next.previous.offset);
            }
            let place = disk.place(&segment::name(next.previous.segment));
            Err(JournalError::damaged(place, 0, "the segment is missing"))
        })
        .collect()
}

/// What a sealed segment says, from its snapshot or else from itself.
pub(crate) fn sealed_snapshot(
    disk: &dyn Disk,
    number: u64,
    end: u64,
) -> Result<Snapshot, JournalError> {
    if let Some(snapshot) = snapshot::read(disk, number, end) {
        return Ok(snapshot);
    }
    let scan = segment::scan(disk, number)?;
    if scan.end < end {
        let why = scan.broken.unwrap_or("an entry is missing");
        let text = format!("{why}, in a segment that was synced up to byte {end}");
        return Err(JournalError::damaged(disk.place(&segment::name(number)), scan.end, text));
    }
    let snapshot = Snapshot { end, ..Snapshot::of(&scan) };
    // Without it the next opening is slower, and nothing else.
    let _ = snapshot::write(disk, &snapshot);
    Ok(snapshot)
}

/// Cuts what is broken at the end, and writes again what may never have reached the medium: a
/// page that a failed sync has dropped looks clean, and no later sync would bring it to disk.
fn settle_end(disk: &dyn Disk, active: &Scan) -> Result<u64, JournalError> {
    let Scan { header, end, synced, all, .. } = active;
    let file = segment::name(header.number);
    let (end, number) = (*end as usize, header.number);
    let proven = if synced.segment == number { synced.offset as usize } else { HEADER };
    let tail = &all[end..];
    let torn = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let settled = disk.open(&file).and_then(|medium| {
        let from = proven.clamp(HEADER, end);
        medium.write_at(&all[from..end], from as u64)?;
        // Nothing of the tail may ever be read as an entry again.
        medium.write_at(&vec![0; torn], end as u64)?;
        medium.sync()
    });
    settled.map_err(|error| JournalError::io(disk.place(&file), &error))?;
    Ok(torn as u64)
}

/// Files that were being made when the process ended, and shelves whose place others have taken.
fn remove_leftovers(disk: &dyn Disk, listed: &[Listed]) -> Result<(), JournalError> {
    // From here on the folder is held open.
    disk.sync_names().map_err(|error| JournalError::io(disk.place(""), &error))?;
    let names = disk.list().map_err(|error| JournalError::io(disk.place(""), &error))?;
    let is_left = |name: &&String| {
        let unlisted = |number| listed.iter().all(|shelf| shelf.number != number);
        name.ends_with(".new") || shelf::number(name).is_some_and(unlisted)
    };
    for name in names.iter().filter(is_left) {
        disk.remove(name).map_err(|error| JournalError::io(disk.place(name), &error))?;
    }
    Ok(())
}

struct Build {
    index: Index,
    segments: BTreeMap<u32, Segment>,
    floor: Floor,
    revision_max: u64,
    /// Up to which revision keys were deleted: an older entry may be read after the deletion.
    deleted: HashMap<KeyId, u64>,
    shelves: Shelves,
    /// Tombstones in the log that may be on a shelf too, with their revisions.
    tombstones: HashMap<KeyId, u64>,
}

impl Build {
    fn new(keys: usize, shelves: Shelves) -> Self {
        let mut index = Index::new();
        index.reserve(keys);
        let (segments, deleted, tombstones) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let revision_max = shelves.list.iter().map(|it| it.revision_max).max().unwrap_or_default();
        let floor = Floor::NONE;
        Self { index, segments, floor, revision_max, deleted, shelves, tombstones }
    }

    fn add(&mut self, disk: &dyn Disk, snapshot: Snapshot) -> Result<(), JournalError> {
        let file = segment::name(snapshot.number);
        let place = disk.place(&file);
        let number = u32::try_from(snapshot.number)
            .map_err(|_| JournalError::damaged(&place, 16, "the segment's number cannot be"))?;
        for fact in &snapshot.facts {
            self.take(number, fact);
        }
        self.floor = self.floor.max(snapshot.floor);
        self.revision_max = self.revision_max.max(snapshot.revision_max);
        let due_from = DueFrom::of(&snapshot.facts);
        let medium = disk.open(&file).map_err(|error| JournalError::io(&place, &error))?;
        let length = medium.len().map_err(|error| JournalError::io(&place, &error))?;
        if length < snapshot.end {
            let text = format!("the file should have at least {} bytes", snapshot.end);
            return Err(JournalError::damaged(&place, length, text));
        }
        self.segments.insert(number, Segment { medium, length, due_from });
        Ok(())
    }

    fn take(&mut self, number: u32, fact: &Fact) {
        if fact.what == What::Deleted {
            let known = self.deleted.entry(fact.id).or_default();
            *known = fact.revision.max(*known);
        } else if !self.deleted.is_empty()
            && self.deleted.get(&fact.id).is_some_and(|deleted| fact.revision <= *deleted)
        {
            return;
        }
        if fact.what == What::Tombstone && self.may_be_shelved(fact.id, fact.revision) {
            let known = self.tombstones.entry(fact.id).or_default();
            *known = fact.revision.max(*known);
        }
        self.index.take(number, fact);
    }

    fn may_be_shelved(&self, id: KeyId, revision: u64) -> bool {
        let shelves = self.shelves.list.iter();
        shelves.filter(|it| revision <= it.revision_max).any(|it| it.may_have(id))
    }

    /// What the log deleted counts on no shelf; what is on a shelf need not be in the index.
    /// Whether the list of shelves says less than that.
    fn settle_shelves(&mut self) -> Result<bool, JournalError> {
        let sorted = |known: &HashMap<KeyId, u64>| {
            let mut known: Vec<(KeyId, u64)> = known.iter().map(|(id, it)| (*id, *it)).collect();
            known.sort_unstable();
            known
        };
        if self.shelves.list.is_empty() {
            return Ok(false);
        }
        let (mut is_stale, before) = (false, self.index.len());
        let (deleted, tombstones) = (sorted(&self.deleted), sorted(&self.tombstones));
        for shelf in &self.shelves.list {
            let mut here = deleted.clone();
            here.retain(|(id, revision)| shelf.revision_min <= *revision && shelf.may_have(*id));
            shelf.find_all(&here, |found, deleted| {
                if found.record.revision.get() <= deleted {
                    let place = Place { shelf: shelf.number, ordinal: found.ordinal };
                    is_stale |= self.shelves.set_gone(place);
                }
            })?;
            let mut here = tombstones.clone();
            here.retain(|(id, _)| shelf.may_have(*id));
            shelf.find_all(&here, |found, _| {
                let slot = self.index.get(found.id);
                let is_here = slot.filter(|slot| slot.revision == found.record.revision.get());
                if let Some(slot) = is_here.filter(|_| !shelf.is_gone(found.ordinal)) {
                    self.index.forget(found.id, slot);
                }
            })?;
        }
        // What is on shelves has made room in the index that nothing needs.
        if self.index.len() < before {
            self.index.shrink();
        }
        Ok(is_stale)
    }
}
