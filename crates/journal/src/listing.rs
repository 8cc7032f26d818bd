//! Looking through all records: for operators a page at a time, for the sweeper what is due.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::vec;

use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, StoreError};

use crate::error::JournalError;
use crate::index::{Index, Keys, Slot};
use crate::shared::{self, RECORDS_AT_ONCE, Shared};
use crate::shelf::{Found, Shelf, due_unit};

const PAGE: usize = 1_000;
/// Records that one page of a listing reads at most, however few match.
const PAGE_READS: usize = 20_000;

impl Shared {
    pub(crate) fn page(&self, filter: &Filter, after: Option<KeyId>) -> Page {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        let index = &self.index;
        let is_in_index = matches!(filter.state, Some(StateKind::Released | StateKind::Completed));
        let whole = |keys: Vec<KeyId>| Rest { after, keys: keys.into_iter(), is_all: true };
        let (mut rest, broken) = match filter.state {
            Some(StateKind::InFlight) => {
                (whole(sorted(&index.sides().in_flight, after)), Vec::new())
            }
            Some(StateKind::Unknown) => (whole(sorted(&index.sides().unknown, after)), Vec::new()),
            Some(StateKind::Released | StateKind::Completed) => (self.rest(after), Vec::new()),
            Some(StateKind::Tombstone) => {
                let (keys, broken) = self.all_keys(after, PAGE_READS);
                (whole(keys), broken)
            }
            None => {
                let (keys, broken) = self.all_keys(after, limit);
                (whole(keys), broken)
            }
        };
        let mut page = Page::default();
        for done in 1..=PAGE_READS {
            let Some(id) = rest.next(index) else { break };
            shared::give_way(done, RECORDS_AT_ONCE);
            match self.read(id) {
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
        let (more, last) = (rest.has_more(index), rest.after);
        page.next = last.filter(|_| more).map(|id| Cursor(id.as_bytes().to_vec()));
        let is_here = |id: &KeyId| !more || last.is_some_and(|last| *id <= last);
        page.damaged.extend(broken.into_iter().filter(|(id, _)| is_here(id)));
        if is_in_index {
            self.keep_rest(more.then_some(rest));
        }
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
            let shelves = self.shelves();
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
            add(self.index.page(after, limit).0);
            if shelves.generation == self.shelves().generation {
                keys.retain(|id| until.is_none_or(|until| *id <= until));
                keys.sort_unstable();
                keys.dedup();
                return (keys, broken);
            }
        }
    }
}

/// Where a search for what is due has ended.
#[derive(Default)]
pub(crate) struct DueAt {
    /// In this shard of the index.
    shard: usize,
    /// What of it may be due and was not looked at; and what was searched for. To look through the
    /// whole shard each time that a few are found would cost the square of its keys.
    rest: Option<(Due, vec::IntoIter<(KeyId, Slot)>)>,
}

/// What a listing has still to look at. Kept from one page to the next: to put a part of the index
/// in order for each page would cost a long listing of small pages the square of its keys.
pub(crate) struct Rest {
    /// The listing goes on behind this key.
    after: Option<KeyId>,
    keys: vec::IntoIter<KeyId>,
    /// Whether there are none behind these.
    is_all: bool,
}

impl Rest {
    fn new(index: &Index, after: Option<KeyId>) -> Self {
        let (keys, is_all) = index.page(after, PAGE_READS);
        Self { after, keys: keys.into_iter(), is_all }
    }

    fn next(&mut self, index: &Index) -> Option<KeyId> {
        if !self.has_more(index) {
            return None;
        }
        let next = self.keys.next();
        self.after = next.or(self.after);
        next
    }

    fn has_more(&mut self, index: &Index) -> bool {
        if self.keys.as_slice().is_empty() && !self.is_all {
            *self = Self::new(index, self.after);
        }
        !self.keys.as_slice().is_empty()
    }
}

impl Shared {
    /// What the listing that has just come to this key has still to look at. Another one begins
    /// anew: what is kept may be older than it is.
    fn rest(&self, after: Option<KeyId>) -> Rest {
        let kept = self.listing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = kept.filter(|rest| after.is_some() && rest.after == after);
        kept.unwrap_or_else(|| Rest::new(&self.index, after))
    }

    /// Of the latest listing; it is dropped when room is given back.
    pub(crate) fn keep_rest(&self, rest: Option<Rest>) {
        *self.listing.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }

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
        let DueAt { shard, rest } = std::mem::take(&mut *self.due_at());
        let rest = rest.filter(|(of, _)| *of == wanted).map(|(_, rest)| rest);
        let next = if rest.is_some() { shard + 1 } else { shard };
        let begun = rest.into_iter().map(|rest| (shard, rest));
        let others = self.index.select(next, is_in).map(|(shard, some)| (shard, some.into_iter()));
        let (mut looked_at, mut first, mut is_first) = (0, Keys::default(), true);
        for (shard, mut some) in begun.chain(others) {
            loop {
                if found.len() == limit {
                    *self.due_at() = DueAt { shard, rest: Some((wanted, some)) };
                    return Ok(found);
                }
                let Some((id, slot)) = some.next() else { break };
                looked_at += 1;
                shared::give_way(looked_at, RECORDS_AT_ONCE);
                // The shard where it began comes whole at the end.
                if !first.contains(&id) && self.is_due(id, slot, wanted) {
                    found.push(id);
                }
            }
            if std::mem::take(&mut is_first) {
                first.extend(found.iter().copied());
            }
        }
        for shelf in &self.shelves().list {
            self.due_on(shelf, wanted, limit, &mut found);
        }
        Ok(found)
    }

    fn is_due(&self, id: KeyId, slot: Slot, wanted: Due) -> bool {
        match self.read_slot(id, slot) {
            Ok(record) => wanted.names(&record),
            // One that moved or changed meanwhile is found by the next pass. Of one that cannot be
            // read nobody can say, so whoever asks must hear of it.
            Err(_) => self.read(id).is_err(),
        }
    }

    fn due_at(&self) -> MutexGuard<'_, DueAt> {
        self.due_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is due on a shelf, until `found` has `limit` keys.
    fn due_on(&self, shelf: &Shelf, wanted: Due, limit: usize, found: &mut Vec<KeyId>) {
        let over = due_unit(wanted.forget_until.as_millis());
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
