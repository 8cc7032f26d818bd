//! Where the newest entry of each key stands, in memory.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use onlyonce_core::KeyId;

use crate::segment::{Fact, What};

/// How many tables share the keys.
///
/// Tables double when they are full, so one table would at its worst be half empty. These have
/// shares of different size and so double at different times: together they are never far from
/// the average, which keeps a key at about 50 bytes.
const SHARDS: usize = 32;

/// Where an entry stands, and the revision it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) revision: u64,
}

/// Key ids are digests, so their own bytes are as good as any hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // The first bytes choose the shard; the last ones are still free.
        let mut tail = [0; 8];
        let from = bytes.len().saturating_sub(8);
        tail[..bytes.len() - from].copy_from_slice(&bytes[from..]);
        self.0 = u64::from_le_bytes(tail);
    }

    // The length that is hashed before a slice.
    fn write_usize(&mut self, _length: usize) {}
}

type Table = HashMap<KeyId, Slot, BuildHasherDefault<IdHasher>>;

/// A set of keys.
pub(crate) type Keys = HashSet<KeyId, BuildHasherDefault<IdHasher>>;

/// The index. Only synced entries are in it.
pub(crate) struct Index {
    /// The first key prefix of each shard, in order, so that shards are ranges of keys.
    starts: [u16; SHARDS],
    shards: Vec<RwLock<Table>>,
    sides: Mutex<Sides>,
    /// How many keys were put in order for listings.
    #[cfg(test)]
    pub(crate) sorted: std::sync::atomic::AtomicUsize,
    /// How many were looked at by who looks for a few.
    #[cfg(test)]
    pub(crate) selected: std::sync::atomic::AtomicUsize,
}

/// The few keys that start-up and operators ask for.
#[derive(Default)]
pub(crate) struct Sides {
    pub(crate) in_flight: Keys,
    pub(crate) unknown: Keys,
}

impl Index {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self {
            starts: starts(),
            shards,
            sides: Mutex::default(),
            #[cfg(test)]
            sorted: std::sync::atomic::AtomicUsize::new(0),
            #[cfg(test)]
            selected: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Makes room for this many keys at once.
    pub(crate) fn reserve(&mut self, keys: usize) {
        for at in 0..SHARDS {
            let next = self.starts.get(at + 1).map_or(1 << 16, |it| u32::from(*it));
            let share = next - u32::from(self.starts[at]);
            let table = self.shards[at].get_mut().unwrap_or_else(PoisonError::into_inner);
            table.reserve(((keys as u64 * u64::from(share)) >> 16) as usize);
        }
    }

    fn shard(&self, id: KeyId) -> usize {
        let prefix = u16::from_be_bytes([id.as_bytes()[0], id.as_bytes()[1]]);
        self.starts.partition_point(|start| *start <= prefix) - 1
    }

    pub(crate) fn get(&self, id: KeyId) -> Option<Slot> {
        let table = self.shards[self.shard(id)].read().unwrap_or_else(PoisonError::into_inner);
        table.get(&id).copied()
    }

    pub(crate) fn sides(&self) -> MutexGuard<'_, Sides> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an entry in `segment` says, unless something newer is known. A deletion beats
    /// the revision that it deleted.
    pub(crate) fn take(&self, segment: u32, fact: &Fact) {
        let mut table =
            self.shards[self.shard(fact.id)].write().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(&fact.id).map_or(0, |slot| slot.revision);
        if fact.what == What::Deleted {
            if fact.revision < known {
                return;
            }
            table.remove(&fact.id);
        } else if known < fact.revision {
            let Fact { offset, revision, .. } = *fact;
            table.insert(fact.id, Slot { segment, offset, revision });
        } else {
            return;
        }
        drop(table);
        self.sides().take(fact);
    }

    /// The newest entry of a key stands somewhere else from now on.
    pub(crate) fn moved(&self, segment: u32, fact: &Fact) {
        let mut table =
            self.shards[self.shard(fact.id)].write().unwrap_or_else(PoisonError::into_inner);
        let Fact { offset, revision, .. } = *fact;
        if let Some(slot) = table.get_mut(&fact.id).filter(|slot| slot.revision == revision) {
            *slot = Slot { segment, offset, revision };
        }
    }

    /// A key's newest entry is on a shelf from now on, if it still stands here.
    pub(crate) fn forget(&self, id: KeyId, slot: Slot) {
        let mut table = self.shards[self.shard(id)].write().unwrap_or_else(PoisonError::into_inner);
        if table.get(&id) == Some(&slot) {
            table.remove(&id);
        }
    }

    /// Gives memory back where keys have gone.
    pub(crate) fn shrink(&self) {
        for table in &self.shards {
            let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
            // Tables double, so this moves keys only if half of the memory can go; and a quarter
            // of the keys must come before it grows again.
            let room = (table.len() * 5).div_ceil(4);
            table.shrink_to(room);
        }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|table| table.read().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// How much memory the tables take, in bytes: buckets of key, slot and one byte of control.
    pub(crate) fn bytes(&self) -> usize {
        let bucket = size_of::<(KeyId, Slot)>() + 1;
        self.shards
            .iter()
            .map(|table| table.read().unwrap_or_else(PoisonError::into_inner).capacity())
            .map(|capacity| if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() })
            .map(|buckets| buckets * bucket)
            .sum()
    }

    /// The keys after `after`, in order, more than `limit` of them if there are so many: whole
    /// shards, so that each is sorted once. And whether there are none behind these.
    pub(crate) fn page(&self, after: Option<KeyId>, limit: usize) -> (Vec<KeyId>, bool) {
        let first = after.map_or(0, |id| self.shard(id));
        let mut page = Vec::new();
        for (number, shard) in self.shards.iter().enumerate().skip(first) {
            let table = shard.read().unwrap_or_else(PoisonError::into_inner);
            let keys = table.keys().copied().filter(|id| after.is_none_or(|after| after < *id));
            let from = page.len();
            page.extend(keys);
            drop(table);
            page[from..].sort_unstable();
            #[cfg(test)]
            self.sorted.fetch_add(page.len() - from, std::sync::atomic::Ordering::Relaxed);
            if limit < page.len() {
                return (page, number + 1 == SHARDS);
            }
        }
        (page, true)
    }

    /// The keys with their slots that `wanted` names, a shard at a time, so that whoever looks for
    /// a few holds nobody up for long. Begins with the shard `from` and ends with the one before;
    /// each with its number.
    pub(crate) fn select<'a>(
        &'a self,
        from: usize,
        wanted: impl Fn(KeyId, Slot) -> bool + 'a,
    ) -> impl Iterator<Item = (usize, Vec<(KeyId, Slot)>)> + 'a {
        (0..SHARDS).map(move |at| {
            let number = (from + at) % SHARDS;
            let table = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
            #[cfg(test)]
            self.selected.fetch_add(table.len(), std::sync::atomic::Ordering::Relaxed);
            let all = table.iter().map(|(id, slot)| (*id, *slot));
            (number, all.filter(|(id, slot)| wanted(*id, *slot)).collect())
        })
    }
}

impl Sides {
    pub(crate) fn take(&mut self, fact: &Fact) {
        let put = |set: &mut Keys, is_in: bool| {
            if is_in {
                set.insert(fact.id)
            } else {
                set.remove(&fact.id)
            };
        };
        put(&mut self.in_flight, fact.what == What::InFlight);
        put(&mut self.unknown, fact.what == What::Unknown);
    }
}

/// Shares from `1` to `2`, evenly on a logarithmic scale.
fn starts() -> [u16; SHARDS] {
    let weight = |at: usize| 2f64.powf(at as f64 / SHARDS as f64);
    let total: f64 = (0..SHARDS).map(weight).sum();
    let mut starts = [0; SHARDS];
    let mut sum = 0.0;
    for (at, start) in starts.iter_mut().enumerate() {
        *start = (sum / total * f64::from(1 << 16)) as u16;
        sum += weight(at);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> KeyId {
        let mut bytes = [0; 16];
        // Any good mixing will do: real ids are digests.
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes[..8].copy_from_slice(&mixed.to_be_bytes());
        bytes[8..].copy_from_slice(&mixed.wrapping_mul(0xD134_2543_DE82_EF95).to_be_bytes());
        KeyId::from_bytes(bytes)
    }

    fn fact(number: u64, revision: u64, what: What) -> Fact {
        Fact { id: id(number), revision, offset: 64, what, due: 0 }
    }

    #[test]
    fn a_key_takes_at_most_64_bytes_at_any_size() {
        let index = Index::new();
        for number in 0..600_000 {
            index.take(1, &fact(number, 5, What::Settled));
            if number % 10_000 == 9_999 && 100_000 < number {
                let per_key = index.bytes() as f64 / index.len() as f64;
                assert!(per_key <= 64.0, "{per_key} bytes a key at {number}");
            }
        }
    }

    #[test]
    fn the_highest_revision_counts_in_whatever_order_entries_are_read() {
        let entries = [
            (1, fact(7, 10, What::InFlight)),
            (2, fact(7, 11, What::Unknown)),
            (3, fact(7, 9, What::Settled)),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let index = Index::new();
            order.iter().for_each(|at: &usize| index.take(entries[*at].0, &entries[*at].1));
            assert_eq!(index.get(id(7)).map(|slot| (slot.segment, slot.revision)), Some((2, 11)));
            assert!(index.sides().unknown.contains(&id(7)) && index.sides().in_flight.is_empty());
            index.take(4, &fact(7, 10, What::Deleted));
            assert!(index.get(id(7)).is_some() && index.sides().unknown.contains(&id(7)));
            index.take(4, &fact(7, 11, What::Deleted));
            assert_eq!(index.get(id(7)), None);
            assert!(index.sides().unknown.is_empty());
        }
    }

    #[test]
    fn pages_hold_every_key_once_and_in_order() {
        let index = Index::new();
        (0..5_000).for_each(|number| index.take(1, &fact(number, 1, What::Settled)));
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (mut page, _) = index.page(after, 100);
            page.truncate(100);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            seen.extend(page);
        }
        assert_eq!(seen.len(), 5_000);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
