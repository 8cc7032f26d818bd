//! Which revision of etcd's a record that was seen has, so that replacing it costs one round trip.
//!
//! Nothing relies on it: what is wrong here makes a transaction fail, which then shows what is
//! there.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use onlyonce_core::{KeyId, Revision};

use crate::layout::Entry;

/// Keys of each of two generations: some megabytes in all.
const KEYS_MAX: usize = 32_768;

/// A record as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The record's own.
    pub(crate) revision: Revision,
    /// etcd's, of the key's last change.
    pub(crate) changed: i64,
    pub(crate) entry: Entry,
}

/// The records that were seen last.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    generations: Mutex<[HashMap<KeyId, Seen>; 2]>,
}

impl Cache {
    pub(crate) fn get(&self, id: KeyId) -> Option<Seen> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().find_map(|one| one.get(&id)).copied()
    }

    pub(crate) fn put(&self, id: KeyId, seen: Seen) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        if KEYS_MAX <= young.len() {
            *old = mem::take(young);
        }
        young.insert(id, seen);
    }

    pub(crate) fn forget(&self, id: KeyId) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter_mut().for_each(|one| {
            one.remove(&id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_core::StateKind;

    #[test]
    fn it_is_bounded_and_the_newest_counts() {
        let cache = Cache::default();
        let id = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            KeyId::from_bytes(bytes)
        };
        let seen = |number: usize| {
            let entry = Entry { state: StateKind::InFlight, due_at: 1, id: id(number) };
            Seen { revision: Revision::new(1).unwrap(), changed: number as i64, entry }
        };
        for number in 0..KEYS_MAX * 3 {
            cache.put(id(number), seen(number));
        }
        cache.put(id(KEYS_MAX * 3 - 1), seen(7));
        let kept = cache.generations.lock().unwrap().iter().map(HashMap::len).sum::<usize>();
        assert!(kept <= 2 * KEYS_MAX);
        assert_eq!(cache.get(id(0)), None);
        assert_eq!(cache.get(id(KEYS_MAX * 3 - 1)).map(|seen| seen.changed), Some(7));
        cache.forget(id(KEYS_MAX * 3 - 1));
        assert_eq!(cache.get(id(KEYS_MAX * 3 - 1)), None);
    }
}
