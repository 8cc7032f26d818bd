//! Looking through all records: for operators a page at a time, for the sweeper what is due.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, StoreError};

use crate::error::JournalError;
use crate::index::{Keys, Slot};
use crate::journal::Journal;
use crate::shared::{self, Shared};
use crate::shelf::{Found, Shelf, due_unit};

const PAGE: usize = 1_000;
/// Records that one page of a listing reads at most, however few match.
const PAGE_READS: usize = 20_000;

impl Journal {
    pub(crate) fn page(&self, filter: &Filter, after: Option<KeyId>) -> Page {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        let index = &self.shared.index;
        let (keys, broken) = match filter.state {
            Some(StateKind::InFlight) => (sorted(&index.sides().in_flight, after), Vec::new()),
            Some(StateKind::Unknown) => (sorted(&index.sides().unknown, after), Vec::new()),
            Some(StateKind::Released | StateKind::Completed) => {
                (index.page(after, PAGE_READS), Vec::new())
            }
            Some(StateKind::Tombstone) => self.all_keys(after, PAGE_READS),
            None => self.all_keys(after, limit),
        };
        let mut page = Page::default();
        let mut last = None;
        let mut keys = keys.into_iter();
        for id in keys.by_ref().take(PAGE_READS) {
            last = Some(id);
            match self.shared.read(id) {
                Ok(Some(record)) if filter.state.is_none_or(|it| it == record.state.kind()) => {
                    page.records.push((id, record));
                }
                Ok(_) => {}
                Err(error) => page.damaged.push((id, error)),
            }
            if page.records.len() + page.damaged.len() == limit {
                break;
            }
        }
        // The keys were at least one more than what was wanted, if there are more at all.
        let more = keys.next().is_some();
        page.next = last.filter(|_| more).map(|id| Cursor(id.as_bytes().to_vec()));
        let is_here = |id: &KeyId| !more || last.is_some_and(|last| *id <= last);
        page.damaged.extend(broken.into_iter().filter(|(id, _)| is_here(id)));
        page
    }

    /// The keys after `after`, in order, at least one more than `limit` if there are so many; and
    /// the first keys of blocks of them that cannot be read.
    fn all_keys(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> (Vec<KeyId>, Vec<(KeyId, StoreError)>) {
        // Shelves first: what leaves the index meanwhile is seen in both or in it alone, unless
        // the shelves change, and then all is looked at again.
        loop {
            let shelves = self.shared.shelves();
            let (mut keys, mut broken) = (Vec::new(), Vec::new());
            // Of a source with more than was taken, nothing is known behind its last one.
            let mut until: Option<KeyId> = None;
            let mut add = |mut some: Vec<KeyId>| {
                if limit < some.len() {
                    let last = some.last().copied();
                    until = until.min(last).or(last);
                }
                keys.append(&mut some);
            };
            for shelf in &shelves.list {
                add(on_shelf(shelf, after, limit, &mut broken));
            }
            add(self.shared.index.page(after, limit));
            if shelves.generation == self.shared.shelves().generation {
                keys.retain(|id| until.is_none_or(|until| *id <= until));
                keys.sort_unstable();
                keys.dedup();
                return (keys, broken);
            }
        }
    }
}

impl Shared {
    /// The keys whose records are due, at most `limit`.
    pub(crate) fn due_now(&self, wanted: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        self.latest.fetch_max(wanted.over_at.as_millis(), Ordering::Relaxed);
        let (over, released) = (wanted.over_at.as_millis(), wanted.released_until.as_millis());
        let due: Vec<u32> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            let due = segments.iter().filter(|(_, segment)| {
                segment.due_from.over <= over || segment.due_from.released <= released
            });
            due.map(|(number, _)| *number).collect()
        };
        let is_in = |_: KeyId, slot: Slot| due.binary_search(&slot.segment).is_ok();
        let mut found = Vec::new();
        // Where the last one ended: before it, all was found and is not due any more.
        let from = self.due_shard.load(Ordering::Relaxed);
        for (shard, some) in self.index.select(from, is_in) {
            for (id, slot) in some {
                if found.len() == limit {
                    self.due_shard.store(shard, Ordering::Relaxed);
                    return Ok(found);
                }
                let is_due = match self.read_slot(id, slot) {
                    Ok(record) => wanted.names(&record),
                    // One that moved or changed meanwhile is found by the next pass. Of one that
                    // cannot be read nobody can say, so whoever asks must hear of it.
                    Err(_) => self.read(id).is_err(),
                };
                if is_due {
                    found.push(id);
                }
            }
        }
        for shelf in &self.shelves().list {
            self.due_on(shelf, wanted, limit, &mut found);
        }
        Ok(found)
    }

    /// What is due on a shelf, until `found` has `limit` keys.
    fn due_on(&self, shelf: &Shelf, wanted: Due, limit: usize, found: &mut Vec<KeyId>) {
        let over = due_unit(wanted.over_at.as_millis());
        for block in (0..shelf.blocks()).filter(|block| shelf.may_be_due(*block, over)) {
            if limit <= found.len() {
                return;
            }
            let mut due_from = u32::MAX;
            let looked = living(shelf, block, |one| {
                due_from = due_from.min(due_unit(one.due()));
                // What is in the log is newer, and was looked at.
                if wanted.names(&one.record) && self.index.get(one.id).is_none() {
                    found.push(one.id);
                }
            });
            match (looked, shelf.first(block)) {
                (Ok(()), _) => shelf.is_due_from(block, due_from),
                // Whoever asks for this one hears why.
                (Err(_), Some(first)) => found.push(first),
                (Err(_), None) => {}
            }
            found.truncate(limit);
        }
    }
}

fn sorted(keys: &Keys, after: Option<KeyId>) -> Vec<KeyId> {
    let mut keys: Vec<KeyId> =
        keys.iter().copied().filter(|id| after.is_none_or(|after| after < *id)).collect();
    keys.sort_unstable();
    keys
}

/// Keys on a shelf after `after`, in order, at least one more than `limit` if there are so many.
fn on_shelf(
    shelf: &Shelf,
    after: Option<KeyId>,
    limit: usize,
    broken: &mut Vec<(KeyId, StoreError)>,
) -> Vec<KeyId> {
    let mut keys = Vec::new();
    let is_after = |id: KeyId| after.is_none_or(|after| after < id);
    let begin = after.map_or(0, |after| shelf.block_after(after));
    for block in begin..shelf.blocks() {
        let read = living(shelf, block, |one| {
            if is_after(one.id) {
                keys.push(one.id);
            }
        });
        if let (Err(error), Some(first)) = (read, shelf.first(block).filter(|id| is_after(*id))) {
            broken.push((first, shared::on_shelf(&error)));
        }
        if limit < keys.len() {
            break;
        }
    }
    keys
}

/// What counts in a block of a shelf.
fn living(shelf: &Shelf, block: usize, mut take: impl FnMut(Found)) -> Result<(), JournalError> {
    let mut entries = shelf.block(block)?;
    while let Some(found) = entries.next_found()? {
        if !shelf.is_gone(found.ordinal) {
            take(found);
        }
    }
    Ok(())
}
