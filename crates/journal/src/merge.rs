//! Making one shelf of several, so that they stay few.

use std::sync::Arc;

use onlyonce_store::StoreError;

use crate::error::JournalError;
use crate::shared::{self, RECORDS_AT_ONCE, Shared};
use crate::shelf::{self, Entries, Found, Shelf};
use crate::shelf_builder::Builder;
use crate::shelve::{damaged, failed};
use crate::shelves::Shelves;

/// More shelves than this are merged: each is asked for every key that the index does not have.
const SHELVES_MAX: usize = 8;

/// The shelves that should be one, if any should. What is damaged stays as it is: nobody can say
/// what a shelf in its place would have to hold.
pub(crate) fn to_merge(shelves: &Shelves) -> Option<Vec<Arc<Shelf>>> {
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
    let number = shared.begin_shelf();
    let made = merged_as(number, shared, inputs);
    if !matches!(made, Ok(Some(_))) {
        shared.give_up_shelf(number);
    }
    made
}

fn merged_as(
    number: u64,
    shared: &Shared,
    inputs: &[Arc<Shelf>],
) -> Result<Option<Arc<Shelf>>, StoreError> {
    let room: u64 = inputs.iter().map(|shelf| u64::from(shelf.living())).sum();
    if room == 0 {
        return Ok(None);
    }
    let io = |error: std::io::Error| failed(shared, &shelf::name(number), &error);
    let mut builder = Builder::new(&*shared.disk, number, room).map_err(io)?;
    let walks = inputs.iter().map(|shelf| Walk::new(shelf));
    let mut walks = walks.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    let mut done = 0;
    while let Some(id) = walks.iter().filter_map(|it| Some(it.next.as_ref()?.id)).min() {
        done += 1;
        shared::give_way(done, RECORDS_AT_ONCE);
        let mut newest: Option<Found> = None;
        for walk in walks.iter_mut().filter(|it| it.next.as_ref().is_some_and(|it| it.id == id)) {
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
